"""FakeClock: time that stands still until a test moves it. Implements ``epp.kube.clock.Clock``."""

import heapq
import itertools
from collections.abc import Callable


class FakeTimer:
    """A callback that waits for its time."""

    def __init__(self, when: float, callback: Callable[[], None]) -> None:
        self._when = when
        self.callback = callback
        self.cancelled = False

    def when(self) -> float:
        """Its time in seconds."""
        return self._when

    def cancel(self) -> None:
        """Never call it."""
        self.cancelled = True


class FakeClock:
    """Monotonic seconds and timers, moved by ``advance``. Callable, as ``time.monotonic`` is.

    Args:
        now: Where it starts.
    """

    def __init__(self, now: float = 1000.0) -> None:
        self._now = now
        self._order = itertools.count()
        self._timers: list[tuple[float, int, FakeTimer]] = []

    def __call__(self) -> float:
        """Seconds now."""
        return self._now

    def time(self) -> float:
        """Seconds now."""
        return self._now

    def call_later(self, delay: float, callback: Callable[[], None], /) -> FakeTimer:
        """Call back once the clock has been advanced that far."""
        timer = FakeTimer(self._now + delay, callback)
        heapq.heappush(self._timers, (timer.when(), next(self._order), timer))
        return timer

    def advance(self, seconds: float) -> None:
        """Move time, calling what becomes due in order, each at its own time."""
        until = self._now + seconds
        while self._timers and self._timers[0][0] <= until:
            when, _, timer = heapq.heappop(self._timers)
            if not timer.cancelled:
                self._now = when
                timer.callback()
        self._now = until

    @property
    def pending(self) -> int:
        """Timers that would still fire."""
        return sum(not timer.cancelled for _, _, timer in self._timers)
