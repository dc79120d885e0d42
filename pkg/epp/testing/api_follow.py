"""Follow the objects of one kind by list and watch, for programs of the harness that act on them.

Level-triggered: who follows is told that something changed, and looks at everything. Owner of the
copies; they are never changed in place.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from typing import Any

from epp.errors import TransportError
from epp.testing.api_connection import ApiConnection, StatusError

_RETRY_SECONDS = 0.2


class Follower:
    """The objects of one collection, as far as the API server has told.

    Args:
        connection: The API server.
        path: Of the collection, e.g. ``/api/v1/pods`` for those of all namespaces.
        changed: Called after every change.
        query: Selectors.

    Attributes:
        objects: By uid.
        has_synced: The first list is complete.
    """

    def __init__(
        self,
        connection: ApiConnection,
        path: str,
        changed: Callable[[], None],
        *,
        query: Mapping[str, str] | None = None,
    ) -> None:
        self.objects: dict[str, dict[str, Any]] = {}
        self.has_synced = False
        self._connection = connection
        self._path = path
        self._changed = changed
        self._query = dict(query or {})

    async def run(self) -> None:
        """Follow until cancelled; an API server that is away is asked again."""
        while True:
            with contextlib.suppress(StatusError, OSError, TimeoutError, TransportError):
                version = await self._list()
                await self._watch(version)
            await asyncio.sleep(_RETRY_SECONDS)

    def note(self, stored: dict[str, Any]) -> None:
        """Take the answer of a write, which the watch brings only later."""
        self._take(stored)
        self._changed()

    async def _list(self) -> str:
        listed = await self._connection.request("GET", self._path, query=self._query)
        self.objects = {item["metadata"]["uid"]: item for item in listed["items"]}
        self.has_synced = True
        self._changed()
        return str(listed["metadata"]["resourceVersion"])

    async def _watch(self, version: str) -> None:
        query = {**self._query, "resourceVersion": version}
        events = self._connection.watch(self._path, query=query)
        async with contextlib.aclosing(events):
            async for event in events:
                if event["type"] == "ERROR":
                    return
                if event["type"] == "DELETED":
                    self.objects.pop(event["object"]["metadata"]["uid"], None)
                else:
                    self._take(event["object"])
                self._changed()

    def _take(self, item: dict[str, Any]) -> None:
        known = self.objects.get(item["metadata"]["uid"])
        if known is None or _version(known) <= _version(item):
            self.objects[item["metadata"]["uid"]] = item


def _version(item: Mapping[str, Any]) -> int:
    """Versions of one kind may be compared: Kubernetes promises it since 1.35, etcd always did."""
    return int(item["metadata"]["resourceVersion"])
