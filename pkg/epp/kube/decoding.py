"""ObjectDecoder: JSON of one object to a typed value, and what to do with one that does not fit.

A broken object never takes others with it: lists arrive as pieces that are decoded one by one. It
is reported once, with field and value, and once more when something else is wrong with it.
"""

import gc
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec
import orjson

from epp.kube.cache import KubeObject
from epp.logs import get_logger
from epp_api.meta import NamespacedName, ObjectMeta

log = get_logger(__name__)

T = TypeVar("T", bound=KubeObject)

Decode = Callable[[msgspec.Raw], T]
"""Decodes one object, e.g. ``msgspec.json.Decoder(Pod).decode``. Raises ValueError."""

_SHOWN = 120
_PATH = re.compile(r" - at `(?:key in )?\$?([^`]*)`$")
_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+)\]")


class Decoded(NamedTuple, Generic[T]):
    """One object.

    Attributes:
        key: Its key.
        resource_version: Its version.
        value: None when it does not decode.
    """

    key: NamespacedName
    resource_version: str
    value: T | None


class Identity(msgspec.Struct, frozen=True, rename="camel"):
    """The least that an object says about itself, however broken the rest of it is."""

    name: str = ""
    namespace: str = ObjectMeta().namespace
    resource_version: str = ""
    annotations: dict[str, Any] = {}

    @property
    def key(self) -> NamespacedName:
        """The object's key within its kind."""
        return NamespacedName(self.namespace, self.name)


class _Envelope(msgspec.Struct, frozen=True):
    metadata: Identity


_ENVELOPE = msgspec.json.Decoder(_Envelope)


def identify(raw: msgspec.Raw) -> Identity:
    """Read an object's identity alone. Raises ValueError when it has none."""
    return _ENVELOPE.decode(raw).metadata


@contextmanager
def paused_gc() -> Iterator[None]:
    """Collect no garbage meanwhile: thousands of new objects would all be looked at, for nothing.

    Only around code that does not await: the switch is the process's.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class ObjectDecoder(Generic[T]):
    """Decodes objects of one kind and remembers which of them are broken.

    Args:
        kind: For logs.
        decode: Decodes one object.
        on_broken: Called once for each report.
    """

    def __init__(
        self, kind: str, decode: Decode[T], *, on_broken: Callable[[], None] = lambda: None
    ) -> None:
        self._kind = kind
        self._decode = decode
        self._on_broken = on_broken
        self._reported: dict[NamespacedName, str] = {}

    def decode(self, raw: msgspec.Raw) -> Decoded[T] | None:
        """Decode one object; None when it is so broken that nobody can tell which one it is."""
        try:
            value = self._decode(raw)
        except ValueError as exc:
            return self._broken(raw, exc)
        meta = value.metadata
        if self._reported:
            self.forget(meta.key)
        return Decoded(meta.key, meta.resource_version, value)

    def forget(self, key: NamespacedName) -> None:
        """The object is well, or gone: report it again when it breaks."""
        self._reported.pop(key, None)

    def _broken(self, raw: msgspec.Raw, exc: ValueError) -> Decoded[T] | None:
        try:
            meta = identify(raw)
        except ValueError:
            log.warning("object without metadata ignored", kind=self._kind, error=exc)
            self._on_broken()
            return None
        problem = str(exc)
        if self._reported.get(meta.key) != problem:
            self._reported[meta.key] = problem
            field, value = locate(raw, problem)
            log.warning(
                "object cannot be used, its last good state stays",
                kind=self._kind,
                object=str(meta.key),
                error=_PATH.sub("", problem),
                field=field,
                value=value,
            )
            self._on_broken()
        return Decoded(meta.key, meta.resource_version, None)


def locate(raw: msgspec.Raw, problem: str) -> tuple[str, str]:
    """Find the field that a decoding error is about, and what stands there, shortened."""
    found = _PATH.search(problem)
    path = found.group(1) if found else ""
    try:
        value: Any = orjson.loads(memoryview(raw))
    except ValueError:
        return path.lstrip("."), ""
    for name, index in _STEP.findall(path.partition("[...]")[0]):
        if name and isinstance(value, dict) and name in value:
            value = value[name]
        elif index and isinstance(value, list) and int(index) < len(value):
            value = value[int(index)]
        else:
            return path.lstrip("."), ""
    text = orjson.dumps(value).decode()
    return path.lstrip("."), text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
