"""FakeKube: an API server on loopback, as far as a controller needs one, with faults on demand.

Real HTTP, real resourceVersions, paging, watches with bookmarks and streamed lists, selectors
evaluated by the server, optimistic locks, the status subresource, discovery. Not there: schemas,
admission, authorization (but tokens, and refusals as faults). A test writes objects directly or
over HTTP, and waits for conditions, never for time::

    async with FakeKube() as kube:
        kube.create(PODS, {"metadata": {"name": "a", "namespace": "demo"}})
        kube.faults.add(Refuse(status=429, retry_after=1), verb="list", times=1)
        ...
        await kube.until(lambda: kube.watching(PODS) == 1)
"""

import asyncio
from collections.abc import Callable, Iterable
from typing import Self

from aiohttp import web

from epp.kube.connection_settings import Anonymous, ConnectionSettings, StaticAuthorization
from epp.kube.resource import (
    EVENTS,
    LEASES,
    PODS,
    SUBJECT_ACCESS_REVIEWS,
    TOKEN_REVIEWS,
    Resource,
)
from epp.testing.fake_kube_http import ApiHandler
from epp.testing.fake_kube_objects import merge_patch
from epp.testing.fake_kube_selectors import Json, matcher

DEFAULT_RESOURCES = (PODS, EVENTS, LEASES, TOKEN_REVIEWS, SUBJECT_ACCESS_REVIEWS)


class FakeKube(ApiHandler):
    """One fake API server; what can be set and seen is described there.

    Args:
        resources: Kinds that it serves from the start.
        streams_lists: ``yes``, ``refused`` or ``ignored``.

    Attributes:
        url: Where it listens, once started.
    """

    def __init__(
        self, resources: Iterable[Resource] = DEFAULT_RESOURCES, *, streams_lists: str = "yes"
    ) -> None:
        super().__init__(resources, streams_lists=streams_lists)
        self._runner: web.AppRunner | None = None
        self.url = ""

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self, port: int = 0) -> None:
        """Listen; on a free port unless one is given. A stopped server starts again."""
        self._stopping.clear()
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(
            app, access_log=None, shutdown_timeout=1.0, handler_cancellation=True
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", port, reuse_address=True)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    @property
    def port(self) -> int:
        """Where it listens, or did."""
        return int(self.url.rpartition(":")[2])

    async def stop(self) -> None:
        """Break every connection and stop listening; objects and history stay. Idempotent."""
        self._stopping.set()
        for watcher in list(self.watchers):
            watcher.end(abort=True)
        if self._runner is not None:
            runner, self._runner = self._runner, None
            await runner.cleanup()

    def settings(self, token: str = "") -> ConnectionSettings:
        """How a client reaches it."""
        identity = StaticAuthorization(header=f"Bearer {token}") if token else Anonymous()
        return ConnectionSettings(server=self.url, origin="fake", identity=identity)

    def create(self, resource: Resource, obj: Json) -> Json:
        """Store a new object, status included; its namespace is ``default`` if it has none."""
        return self.objects.create(resource, _namespace(resource, obj), obj).obj

    def update(self, resource: Resource, obj: Json) -> Json:
        """Replace an object, status included."""
        key = (resource, _namespace(resource, obj), obj["metadata"]["name"])
        return self.objects.update(key, obj).obj

    def patch(self, resource: Resource, namespace: str, name: str, patch: Json) -> Json:
        """Merge into an object."""
        key = (resource, namespace, name)
        return self.objects.update(key, merge_patch(self.objects.get(key).obj, patch)).obj

    def delete(self, resource: Resource, namespace: str, name: str) -> None:
        """Remove an object."""
        self.objects.delete((resource, namespace, name))

    def list(
        self, resource: Resource, namespace: str = "", labels: str = "", fields: str = ""
    ) -> list[Json]:
        """Objects of a kind."""
        selected = self.objects.select(resource, namespace, matcher(labels, fields))
        return [stored.obj for stored in selected]

    @property
    def version(self) -> int:
        """The current resourceVersion."""
        return self.objects.version

    def compact(self) -> None:
        """Forget the history: every version but the current one, and every page token, is gone.

        Open watches that have sent everything are not disturbed.
        """
        for watcher in self.watchers:
            if not self.objects.since(watcher.version):
                watcher.version = self.objects.version
        self.objects.compact()
        self._snapshots.clear()

    def advance(self) -> None:
        """Let the resourceVersion grow as if somebody had written another kind."""
        self.objects.advance()

    def serve(self, resource: Resource) -> None:
        """Serve a kind from now on, as after its definition was created."""
        if resource not in self._resources:
            self._resources.append(resource)

    def unserve(self, resource: Resource) -> None:
        """Stop serving a kind, as after its definition was deleted: its objects go first."""
        for obj in self.list(resource):
            self.delete(resource, obj["metadata"].get("namespace", ""), obj["metadata"]["name"])
        self._resources.remove(resource)
        for watcher in self.watchers:
            if watcher.resource == resource:
                watcher.end(abort=False)

    def watching(self, resource: Resource) -> int:
        """How many watches of a kind are open."""
        return sum(watcher.resource == resource for watcher in self.watchers)

    def bookmark(self) -> None:
        """Send a bookmark in every watch that allows it."""
        for watcher in self.watchers:
            watcher.bookmark = True
            watcher.wake.set()

    def drop_watches(self, *, abort: bool = True) -> int:
        """End every open watch, by breaking its connection or cleanly. Returns how many."""
        watchers = list(self.watchers)
        for watcher in watchers:
            watcher.end(abort=abort)
        return len(watchers)

    def count(self, verb: str, resource: Resource) -> int:
        """How many requests of a verb have arrived for a kind."""
        return sum(
            request.verb == verb and f"/{resource.plural}" in request.path
            for request in self.requests
        )

    async def until(self, condition: Callable[[], bool], *, seconds: float = 10.0) -> None:
        """Wait for a condition, looked at whenever something happens here.

        Raises:
            TimeoutError: It has not come true in time.
        """
        event = asyncio.Event()
        self._waiting.append(event)
        try:
            async with asyncio.timeout(seconds):
                while not condition():
                    event.clear()
                    await event.wait()
        finally:
            self._waiting.remove(event)


def _namespace(resource: Resource, obj: Json) -> str:
    return str(obj["metadata"].get("namespace") or "default") if resource.namespaced else ""
