"""Simulated processes in simulated time: skewed clocks, pauses and sudden deaths, in no time at all.

A ``Timeline`` is true time. It moves from one callback to the next and lets asyncio's tasks run to
a standstill after each, so a test sees every state there is, always in the same order.
"""

import asyncio
import heapq
import itertools
from collections.abc import Callable

_STANDSTILL_CYCLES = 12
"""Cycles of the event loop within which a woken task has come to wait again."""


async def settle() -> None:
    """Let every task run until it waits."""
    for _ in range(_STANDSTILL_CYCLES):
        await asyncio.sleep(0)


class Timeline:
    """True time, from 0 on."""

    def __init__(self) -> None:
        self.now = 0.0
        self._order = itertools.count()
        self._due: list[tuple[float, int, Callable[[], object]]] = []

    def at(self, when: float, callback: Callable[[], object]) -> None:
        """Call back at a time, now if it is over."""
        heapq.heappush(self._due, (max(when, self.now), next(self._order), callback))

    async def run_until(self, until: float, check: Callable[[], object] = lambda: None) -> None:
        """Move on, calling the check in every state on the way."""
        await settle()
        while self._due and self._due[0][0] <= until:
            self.now, _, callback = heapq.heappop(self._due)
            callback()
            check()
            await settle()
            check()
        self.now = until


class SimTimer:
    """A callback that waits for its time on a process's clock."""

    def __init__(self, when: float) -> None:
        self._when = when
        self.cancelled = False

    def when(self) -> float:
        """Its time, in the process's seconds."""
        return self._when

    def cancel(self) -> None:
        """Never call it."""
        self.cancelled = True


class SimProcess:
    """A process that may be paused or killed. Implements ``epp.kube.clock.Clock``.

    While it is paused nothing of it runs: timers and answers wait for the end of the pause.

    Args:
        timeline: True time.
        offset: How far its clocks are off, in seconds.
        speed: Its seconds per true second.
    """

    def __init__(self, timeline: Timeline, *, offset: float = 0.0, speed: float = 1.0) -> None:
        self.timeline = timeline
        self.alive = True
        self._offset = offset
        self._speed = speed
        self._paused_until = 0.0

    @property
    def runs(self) -> bool:
        """It is neither dead nor paused."""
        return self.alive and self.timeline.now >= self._paused_until

    def time(self) -> float:
        """Its monotonic seconds."""
        return self._offset + self.timeline.now * self._speed

    def wall(self) -> float:
        """Its wall clock, off by much more."""
        return 1.7e9 + self._offset * 977 + self.timeline.now

    def call_later(self, delay: float, callback: Callable[[], None], /) -> SimTimer:
        """Call back after a delay in its seconds."""
        timer = SimTimer(self.time() + delay)

        def due() -> None:
            if not timer.cancelled:
                callback()

        self.after(delay / self._speed, due)
        return timer

    def after(self, true_seconds: float, callback: Callable[[], object]) -> None:
        """Call back after true seconds, later if it is paused then, never if it is dead."""

        def due() -> None:
            if not self.alive:
                return
            if self.timeline.now < self._paused_until:
                self.timeline.at(self._paused_until, due)
            else:
                callback()

        self.timeline.at(self.timeline.now + true_seconds, due)

    def pause(self, seconds: float) -> None:
        """Pause it from now on; its first state afterwards is checked before its timers run."""
        self._paused_until = max(self._paused_until, self.timeline.now + seconds)
        self.timeline.at(self._paused_until, lambda: None)
