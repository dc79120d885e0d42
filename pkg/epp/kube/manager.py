"""Manager: starts things in order, watches over them, and stops them in reverse.

The order is data: groups, started one after another, each in full before the next. A typical
program has sources first, then the barrier that waits for their caches, then controllers, then
servers. A start that fails stops what was started. Something that is meant to run for ever and
ends by itself is an error, also while later groups are still starting: ``start`` then stops
everything and raises, afterwards ``wait_ended`` tells. A typical program::

    await manager.start()
    try:
        await first_of(told_to_stop, manager.wait_ended())
    finally:
        await manager.stop()

Reference: controller-runtime pkg/manager/runnable_group.go (the idea).
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

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


@runtime_checkable
class Eternal(Protocol):
    """A runnable that must not end before it is told to, and that can tell when it has."""

    async def wait_ended(self) -> None:
        """Wait until it has ended by itself; raise what ended it, if it was an exception."""
        ...


class RunnableEndedError(Exception):
    """Something that was meant to run for ever has ended; the cause is chained."""


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


class Loop:
    """An eternal runnable made of a coroutine function that never returns.

    Args:
        name: Name of its task.
        run: Started as a task; cancelled and awaited on stop.
    """

    def __init__(self, name: str, run: Callable[[], Coroutine[Any, Any, object]]) -> None:
        self._name = name
        self._run = run
        self._task: asyncio.Task[object] | None = None

    async def start(self) -> None:
        """Start the task."""
        self._task = asyncio.create_task(self._run(), name=self._name)

    async def stop(self) -> None:
        """Cancel the task and wait for it."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def wait_ended(self) -> None:
        """Wait for the task; raise what ended it."""
        if self._task is not None:
            await asyncio.shield(self._task)


class _Started(NamedTuple):
    group: str
    runnable: Runnable
    watch: asyncio.Task[None] | None

    @property
    def kind(self) -> str:
        return type(self.runnable).__name__


class Manager:
    """Named groups of runnables.

    Args:
        stop_seconds: How long one runnable may take to stop before it is left behind with a log
            line.
    """

    def __init__(self, *, stop_seconds: float = 10.0) -> None:
        self._groups: list[tuple[str, Sequence[Runnable]]] = []
        self._started: list[_Started] = []
        self._stop_seconds = stop_seconds
        self._someone_ended = asyncio.Event()

    def add_group(self, name: str, *runnables: Runnable) -> None:
        """Append a group; it starts after every group added before."""
        self._groups.append((name, runnables))

    async def start(self) -> None:
        """Start every group in order. After a failure everything started is stopped again.

        Raises:
            RunnableEndedError: Something eternal ended while others were still starting.
            Exception: Whatever a start raised.
        """
        starting = asyncio.create_task(self._start_groups(), name="manager starts")
        ending = asyncio.create_task(self._someone_ended.wait(), name="manager watches")
        try:
            await asyncio.wait((starting, ending), return_when=asyncio.FIRST_COMPLETED)
            self._raise_if_ended()
            await starting
        except BaseException:
            await _cancel((starting,))
            await self.stop()
            raise
        finally:
            await _cancel((ending,))

    async def wait_ended(self) -> None:
        """Wait until something eternal ends by itself, and raise; the caller then stops the rest.

        Raises:
            RunnableEndedError: Always, in the end; the cause is chained.
        """
        await self._someone_ended.wait()
        self._raise_if_ended()

    async def stop(self) -> None:
        """Stop what was started, in reverse. One that fails or hangs does not keep the others."""
        while self._started:
            await self._stop_one(self._started.pop())

    async def _start_groups(self) -> None:
        for name, runnables in self._groups:
            for runnable in runnables:
                self._started.append(_Started(name, runnable, None))
                await runnable.start()
                if isinstance(runnable, Eternal):
                    self._started[-1] = _Started(name, runnable, self._watch(name, runnable))
            log.debug("group started", group=name)

    def _watch(self, group: str, runnable: Eternal) -> asyncio.Task[None]:
        kind = type(runnable).__name__
        watch = asyncio.create_task(runnable.wait_ended(), name=f"manager watches {group} {kind}")
        watch.add_done_callback(self._note_ended)
        return watch

    def _note_ended(self, _watch: asyncio.Task[None]) -> None:
        self._someone_ended.set()

    def _raise_if_ended(self) -> None:
        for group, runnable, watch in self._started:
            if watch is not None and watch.done():
                cause = None if watch.cancelled() else watch.exception()
                kind = type(runnable).__name__
                raise RunnableEndedError(f"{kind} of group {group} ended by itself") from cause

    async def _stop_one(self, started: _Started) -> None:
        if started.watch is not None:
            started.watch.remove_done_callback(self._note_ended)
            await _cancel((started.watch,))
        try:
            await asyncio.wait_for(started.runnable.stop(), self._stop_seconds)
        except TimeoutError:
            log.error("did not stop in time", group=started.group, runnable=started.kind)
        except Exception as exc:
            log.error("stop failed", group=started.group, runnable=started.kind, error=exc)


async def _cancel(tasks: Sequence[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
