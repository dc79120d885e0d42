"""Manager: starts things in order, and stops them in reverse.

The order is data: groups, started one after another, each in full before the next. A typical
program has sources first, then the barrier that waits for their caches, then controllers, then
servers. A start that fails stops what was started. What runs may report its own death through
``failed``, which ends ``run``.
Reference: controller-runtime pkg/manager/runnable_group.go (the idea).
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from epp.logs import get_logger

log = get_logger(__name__)


class Runnable(Protocol):
    """Something with a beginning and an end."""

    async def start(self) -> object:
        """Begin; return when it works."""
        ...

    async def stop(self) -> None:
        """End; return when nothing of it is left. Idempotent."""
        ...


class Hook:
    """A runnable made of two functions.

    Args:
        start: Called at the start, e.g. a barrier that waits for caches.
        stop: Called at the stop.
    """

    def __init__(
        self,
        start: Callable[[], Awaitable[object]] | None = None,
        stop: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        self._start = start
        self._stop = stop

    async def start(self) -> object:
        """Call the start function."""
        return None if self._start is None else await self._start()

    async def stop(self) -> None:
        """Call the stop function."""
        if self._stop is not None:
            await self._stop()


class Manager:
    """Named groups of runnables.

    Args:
        stop_seconds: How long one runnable may take to stop before it is left behind with a log
            line.
    """

    def __init__(self, *, stop_seconds: float = 10.0) -> None:
        self._groups: list[tuple[str, Sequence[Runnable]]] = []
        self._started: list[tuple[str, Runnable]] = []
        self._stop_seconds = stop_seconds

    def add_group(self, name: str, *runnables: Runnable) -> None:
        """Append a group; it starts after every group added before."""
        self._groups.append((name, runnables))

    async def start(self) -> None:
        """Start every group in order. After a failure everything started is stopped again."""
        try:
            for name, runnables in self._groups:
                for runnable in runnables:
                    self._started.append((name, runnable))
                    await runnable.start()
                log.debug("group started", group=name)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop what was started, in reverse. One that fails or hangs does not keep the others."""
        while self._started:
            name, runnable = self._started.pop()
            try:
                await asyncio.wait_for(runnable.stop(), self._stop_seconds)
            except TimeoutError:
                log.error("did not stop in time", group=name, runnable=type(runnable).__name__)
            except Exception as exc:
                log.error("stop failed", group=name, runnable=type(runnable).__name__, error=exc)
