"""ScriptedWatches: a ``KubeApi`` without a server, whose watches bring what a test has written.

For what no server of ours can be made to do at a chosen moment: an ERROR event after a change, a
deletion within a streamed list. The fake API server is for everything else.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from epp.kube.watching import INITIAL_EVENTS_END


class ScriptedWatches:
    """Each watch takes the next script and ends after it; without one it stays open, silent.

    Args:
        scripts: Lines of one watch after another, from the functions below.
        listed: Objects of every list, in one page.
        version: resourceVersion of that list.

    Attributes:
        watches: Query of each watch that was opened.
        lists: Query of each list that was asked for.
    """

    def __init__(
        self,
        *scripts: Iterable[bytes],
        listed: Iterable[Mapping[str, Any]] = (),
        version: str = "1",
    ) -> None:
        self.watches: list[Mapping[str, str]] = []
        self.lists: list[Mapping[str, str]] = []
        self._scripts = [list(script) for script in scripts]
        self._page = json.dumps({"metadata": {"resourceVersion": version}, "items": list(listed)})
        self._opened = asyncio.Event()

    async def request(
        self,
        _method: str,
        _path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: object | None = None,  # noqa: ARG002 - protocol
        content_type: str = "",  # noqa: ARG002 - protocol
        timeout_seconds: float = 0.0,  # noqa: ARG002 - protocol
        what: str = "",  # noqa: ARG002 - protocol
    ) -> bytes:
        """Answer a list."""
        self.lists.append(dict(query or {}))
        return self._page.encode()

    @asynccontextmanager
    async def lines(
        self,
        _path: str,
        *,
        query: Mapping[str, str] | None = None,
        idle_seconds: float,  # noqa: ARG002 - protocol
        what: str = "",  # noqa: ARG002 - protocol
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Open the next watch."""
        self.watches.append(dict(query or {}))
        script = self._scripts.pop(0) if self._scripts else None
        self._opened.set()
        yield _play(script)

    async def opened(self, count: int, *, seconds: float = 10.0) -> None:
        """Wait until so many watches have been opened. Raises TimeoutError."""
        async with asyncio.timeout(seconds):
            while len(self.watches) < count:
                self._opened.clear()
                await self._opened.wait()


def event(kind: str, obj: Mapping[str, Any]) -> bytes:
    """One line of a watch."""
    return json.dumps({"type": kind, "object": obj}).encode()


def bookmark(version: str, *, ends_list: bool = False) -> bytes:
    """A BOOKMARK event, with the annotation that ends a streamed list or without any."""
    meta: dict[str, Any] = {"resourceVersion": version}
    if ends_list:
        meta["annotations"] = {INITIAL_EVENTS_END: "true"}
    return event("BOOKMARK", {"metadata": meta})


def error(code: int, *, retry_after_seconds: int | None = None) -> bytes:
    """An ERROR event."""
    asked = {} if retry_after_seconds is None else {"retryAfterSeconds": retry_after_seconds}
    return event("ERROR", {"kind": "Status", "code": code, "message": "scripted", "details": asked})


async def _play(script: list[bytes] | None) -> AsyncIterator[bytes]:
    for line in script or ():
        yield line
    if script is None:
        await asyncio.Event().wait()
