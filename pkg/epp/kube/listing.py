"""List the objects of a kind, page by page.

A page is one request. Its objects stay undecoded pieces of the answer, so that one that does not
decode costs nobody else anything.
"""

import asyncio
from typing import Generic, NamedTuple, TypeVar

import msgspec

from epp.kube.api import KubeApi
from epp.kube.cache import KubeObject
from epp.kube.decoding import Decoded, ObjectDecoder, paused_gc
from epp.kube.errors import GoneError, ServerError
from epp.kube.selection import Selection

T = TypeVar("T", bound=KubeObject)

BATCH = 50
"""Objects that are handled between two turns of the event loop: about 2 ms."""


class ListMeta(msgspec.Struct, frozen=True, rename="camel"):
    """Metadata of a list."""

    resource_version: str = ""
    continue_: str = msgspec.field(default="", name="continue")


class Page(msgspec.Struct, frozen=True):
    """One answer to a list request."""

    metadata: ListMeta
    items: list[msgspec.Raw] | None = None


class Listing(NamedTuple, Generic[T]):
    """A complete list, and the version from which a watch goes on."""

    objects: list[Decoded[T]]
    resource_version: str


_PAGE = msgspec.json.Decoder(Page)


async def list_page(
    client: KubeApi, selection: Selection, *, limit: int, token: str, timeout_seconds: float
) -> Page:
    """Get one page.

    Args:
        client: Where to ask.
        selection: What to list.
        limit: Most objects in a page; 0 for all of them.
        token: Where the last page ended; empty for the first.
        timeout_seconds: Deadline.

    Raises:
        GoneError: The token has expired.
        ApiError: Any other failure.
    """
    paging = {"limit": str(limit)} if limit else {}
    if token:
        paging["continue"] = token
    what = selection.what("list")
    answer = await client.request(
        "GET",
        selection.path,
        query=selection.query(**paging),
        timeout_seconds=timeout_seconds,
        what=what,
    )
    try:
        with paused_gc():
            return _PAGE.decode(answer)
    except msgspec.DecodeError as exc:
        raise ServerError(f"{what}: the answer is not a list ({exc})") from exc


async def list_all(
    client: KubeApi,
    selection: Selection,
    decoder: ObjectDecoder[T],
    *,
    limit: int,
    timeout_seconds: float,
) -> Listing[T]:
    """Get every page. When a token expires on the way, everything once more in one page.

    Raises:
        ApiError: A page failed.
    """
    objects: list[Decoded[T]] = []
    token = ""
    while True:
        try:
            page = await list_page(
                client, selection, limit=limit, token=token, timeout_seconds=timeout_seconds
            )
        except GoneError:
            if not token:
                raise
            objects, token, limit = [], "", 0
            continue
        await decode_page(page, decoder, objects)
        token = page.metadata.continue_
        if not token:
            return Listing(objects, page.metadata.resource_version)


async def decode_page(page: Page, decoder: ObjectDecoder[T], into: list[Decoded[T]]) -> None:
    """Decode the objects of a page, giving way to others in between."""
    items = page.items or []
    for start in range(0, len(items), BATCH):
        with paused_gc():
            for raw in items[start : start + BATCH]:
                decoded = decoder.decode(raw)
                if decoded is not None:
                    into.append(decoded)
        await asyncio.sleep(0)
