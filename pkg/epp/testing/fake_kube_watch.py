"""One watch of a fake API server: from a version on, through selectors, until it is ended."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field

import orjson
from aiohttp import web

from epp.kube.resource import Resource
from epp.kube.watching import INITIAL_EVENTS_END
from epp.testing.fake_kube_faults import Action, CutMidLine, EndAtOnce, ErrorEvent, Silence
from epp.testing.fake_kube_objects import Change, FakeObjects, StatusError
from epp.testing.fake_kube_selectors import Matches


@dataclass(slots=True, kw_only=True, eq=False)
class Watcher:
    """An open watch.

    Attributes:
        resource: Kind.
        namespace: Empty is all of them.
        matches: Both selectors.
        version: Everything up to here has been sent.
        query: Of the request.
        wake: Something may be there to send.
        bookmark: One is to be sent.
        ended: Stop; ``abort`` tells how.
        abort: Break the connection instead of ending the answer.
    """

    resource: Resource
    namespace: str
    matches: Matches
    version: int
    query: dict[str, str]
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    bookmark: bool = False
    ended: bool = False
    abort: bool = False

    def end(self, *, abort: bool) -> None:
        """End it, cleanly or not."""
        self.ended, self.abort = True, abort
        self.wake.set()


async def serve_watch(
    request: web.Request, watcher: Watcher, objects: FakeObjects, action: Action | None
) -> web.StreamResponse:
    """Answer a watch request. Returns when it is over."""
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    response.enable_chunked_encoding()
    await response.prepare(request)
    try:
        async with asyncio.timeout(float(watcher.query.get("timeoutSeconds", "3600"))):
            await _begin(response, watcher, objects, action)
            while not watcher.ended:
                await _send(response, watcher, objects, cut=isinstance(action, CutMidLine))
                if not watcher.ended:
                    await watcher.wake.wait()
                    watcher.wake.clear()
            if not watcher.abort and action is None:
                await _send(response, watcher, objects, cut=False)
    except (TimeoutError, ConnectionResetError):
        pass
    if watcher.abort and request.transport is not None:
        request.transport.abort()
    elif request.transport is not None and not request.transport.is_closing():
        await response.write_eof()
    return response


async def _begin(
    response: web.StreamResponse, watcher: Watcher, objects: FakeObjects, action: Action | None
) -> None:
    match action:
        case ErrorEvent(code=code, reason=reason):
            await response.write(_error(code, reason))
            watcher.ended = True
        case EndAtOnce():
            watcher.ended = True
        case Silence():
            while not watcher.ended:
                watcher.wake.clear()
                await watcher.wake.wait()
    for line in _initial(watcher, objects):
        await response.write(line)


async def _send(
    response: web.StreamResponse, watcher: Watcher, objects: FakeObjects, *, cut: bool
) -> None:
    try:
        changes = objects.since(watcher.version)
    except StatusError as exc:
        await response.write(_error(exc.code, exc.reason))
        watcher.ended = True
        return
    lines = [line for change in changes if (line := _line(change, watcher))]
    watcher.version = objects.version
    if cut and lines:
        await response.write(lines[0][: len(lines[0]) // 2])
        watcher.end(abort=True)
        return
    if watcher.bookmark and watcher.query.get("allowWatchBookmarks") == "true":
        lines.append(bookmark(watcher.resource, watcher.version))
    watcher.bookmark = False
    if lines:
        await response.write(b"".join(lines))


def _initial(watcher: Watcher, objects: FakeObjects) -> Iterator[bytes]:
    """The objects that are there already, if the watch is to begin with them."""
    streams = watcher.query.get("sendInitialEvents") == "true"
    if watcher.ended or not (streams or watcher.query.get("resourceVersion", "") in {"", "0"}):
        return
    watcher.version = version = objects.version
    for stored in objects.select(watcher.resource, watcher.namespace, watcher.matches):
        yield _event(b"ADDED", stored.json)
    if streams:
        yield bookmark(watcher.resource, version, annotations={INITIAL_EVENTS_END: "true"})


def bookmark(resource: Resource, version: int, annotations: dict[str, str] | None = None) -> bytes:
    """A BOOKMARK event."""
    meta: dict[str, object] = {"resourceVersion": str(version), "creationTimestamp": None}
    if annotations:
        meta["annotations"] = annotations
    obj = {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": meta}
    return _event(b"BOOKMARK", orjson.dumps(obj))


def status(code: int, reason: str, message: str) -> dict[str, object]:
    """A Status object."""
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": code,
    }


def _line(change: Change, watcher: Watcher) -> bytes:
    """What this watch sees of a write; nothing when it concerns other objects."""
    resource, namespace, _ = change.key
    if resource != watcher.resource or watcher.namespace not in {"", namespace}:
        return b""
    was_selected = change.old is not None and watcher.matches(change.old.obj)
    is_selected = not change.is_delete and watcher.matches(change.new.obj)
    match was_selected, is_selected:
        case False, False:
            return b""
        case False, True:
            return _event(b"ADDED", change.new.json)
        case True, True:
            return _event(b"MODIFIED", change.new.json)
        case _:
            return _event(b"DELETED", change.new.json)


def _event(kind: bytes, obj: bytes) -> bytes:
    return b'{"type":"' + kind + b'","object":' + obj + b"}\n"


def _error(code: int, reason: str) -> bytes:
    return _event(b"ERROR", orjson.dumps(status(code, reason, f"fault: {reason}")))
