"""Clock: where queues get their time and their timers from, so that tests can own both."""

import asyncio
from collections.abc import Callable
from typing import Protocol


class Timer(Protocol):
    """A callback that waits for its time."""

    def when(self) -> float:
        """Its time, in the clock's seconds."""
        ...

    def cancel(self) -> None:
        """Never call it. Harmless afterwards and twice."""
        ...


class Clock(Protocol):
    """Monotonic seconds and timers. An asyncio event loop is one."""

    def time(self) -> float:
        """Seconds since an arbitrary point."""
        ...

    def call_later(self, delay: float, callback: Callable[[], None], /) -> Timer:
        """Call back after a delay in seconds."""
        ...


class LoopClock:
    """The clock of whatever event loop is running at the time of the call."""

    def time(self) -> float:
        """Seconds of the running loop."""
        return asyncio.get_running_loop().time()

    def call_later(self, delay: float, callback: Callable[[], None], /) -> Timer:
        """Call back on the running loop."""
        return asyncio.get_running_loop().call_later(delay, callback)


LOOP_CLOCK = LoopClock()
"""Has no state, so one is enough."""
