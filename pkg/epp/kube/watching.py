"""Watch the objects of a kind: one request, and the events it brings.

The ERROR event is raised as the ApiError it stands for. Unknown types of events are none of our
business: the caller is told and goes on.
Reference: kubernetes.io, "Kubernetes API concepts", efficient detection of changes.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Generic, NamedTuple, TypeVar

import msgspec

from epp.kube.api import KubeApi
from epp.kube.cache import KubeObject
from epp.kube.decoding import Decoded, ObjectDecoder, identify
from epp.kube.errors import ServerError, api_error
from epp.kube.selection import Selection
from epp_api.meta import NamespacedName

T = TypeVar("T", bound=KubeObject)

INITIAL_EVENTS_END = "k8s.io/initial-events-end"
"""Annotation of the bookmark after the last object of a streamed list."""


class Changed(NamedTuple, Generic[T]):
    """An object was created or changed, or is part of a streamed list."""

    decoded: Decoded[T]


class Deleted(NamedTuple):
    """An object is gone, or the selectors do not select it any more."""

    key: NamespacedName
    resource_version: str


class Bookmark(NamedTuple):
    """Nothing happened up to this version.

    Attributes:
        resource_version: Where a watch may go on.
        ends_list: Every object of a streamed list has been sent.
    """

    resource_version: str
    ends_list: bool


class Unknown(NamedTuple):
    """An event of a type that we do not know, or without an object to speak of."""

    type: str


Event = Changed[T] | Deleted | Bookmark | Unknown


class _WireEvent(msgspec.Struct, frozen=True):
    type: str
    object: msgspec.Raw


_EVENT = msgspec.json.Decoder(_WireEvent)
_STATUS = msgspec.json.Decoder(dict[str, object])


@asynccontextmanager
async def watch(
    client: KubeApi,
    selection: Selection,
    decoder: ObjectDecoder[T],
    query: Mapping[str, str],
    *,
    idle_seconds: float,
) -> AsyncIterator[AsyncIterator[Event[T]]]:
    """Open a watch.

    Args:
        client: Where to ask.
        selection: What to watch.
        decoder: Decodes its objects.
        query: Where to begin, and how.
        idle_seconds: Longest silence; a living server sends a bookmark about every 60 s.

    Raises:
        ApiError: It cannot be opened; later, when it breaks or the server says so.
    """
    what = selection.what("watch")
    async with client.lines(
        selection.path,
        query=selection.query(watch="1", allowWatchBookmarks="true", **query),
        idle_seconds=idle_seconds,
        what=what,
    ) as lines:
        yield _Events(lines, decoder, what)


class _Events(Generic[T]):
    """The events of a watch."""

    def __init__(self, lines: AsyncIterator[bytes], decoder: ObjectDecoder[T], what: str) -> None:
        self._lines = lines
        self._decoder = decoder
        self._what = what

    def __aiter__(self) -> AsyncIterator[Event[T]]:
        return self

    async def __anext__(self) -> Event[T]:
        line = await anext(self._lines)
        try:
            event = _EVENT.decode(line)
            return self._event(event.type, event.object)
        except msgspec.DecodeError as exc:
            raise ServerError(f"{self._what}: not an event ({exc})") from exc

    def _event(self, kind: str, raw: msgspec.Raw) -> Event[T]:
        match kind:
            case "ADDED" | "MODIFIED":
                decoded = self._decoder.decode(raw)
                return Unknown(kind) if decoded is None else Changed(decoded)
            case "DELETED":
                meta = identify(raw)
                self._decoder.forget(meta.key)
                return Deleted(meta.key, meta.resource_version)
            case "BOOKMARK":
                meta = identify(raw)
                ends_list = meta.annotations.get(INITIAL_EVENTS_END) == "true"
                return Bookmark(meta.resource_version, ends_list)
            case "ERROR":
                status = _STATUS.decode(raw)
                code = status.get("code")
                raise api_error(self._what, code if isinstance(code, int) else 500, status)
            case _:
                return Unknown(kind)
