"""WorkQueue: keys to reconcile, each at most once at a time.

A key added while it waits is merged. A key added while it is being processed runs once more
afterwards: it is never lost and never processed twice at once. Failures are retried with
exponential back-off and jitter, per key. Owned by one event loop; only ``get`` waits.
Reference: client-go util/workqueue (semantics).
"""

import asyncio
import random
from collections import deque
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

FIRST_BACKOFF_SECONDS = 0.01
MAX_BACKOFF_SECONDS = 60.0
JITTER_RATIO = 0.2
"""Spreads retries of many keys that failed for one reason."""

CallLater = Callable[[float, Callable[[], None]], asyncio.TimerHandle]


class QueueShutDownError(Exception):
    """The queue was shut down: the worker ends."""


class WorkQueue(Generic[K]):
    """A de-duplicating queue of keys.

    Args:
        call_later: Schedules a callback after a delay in seconds; the running loop's by default.
        random_ratio: Uniform in [0, 1), for jitter.
    """

    def __init__(
        self,
        *,
        call_later: CallLater | None = None,
        random_ratio: Callable[[], float] = random.random,
    ) -> None:
        self._ready: deque[K] = deque()
        self._waiting: set[K] = set()
        self._processing: set[K] = set()
        self._failures: dict[K, int] = {}
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._wakeup = asyncio.Event()
        self._shut_down = False
        self._call_later = call_later
        self._random_ratio = random_ratio

    def __len__(self) -> int:
        """Keys that wait to be taken now."""
        return len(self._ready)

    @property
    def idle(self) -> bool:
        """Nothing waits, nothing is being processed, nothing is scheduled."""
        return not self._waiting and not self._processing and not self._timers

    def add(self, key: K) -> None:
        """Ask for a key to be processed."""
        if self._shut_down or key in self._waiting:
            return
        self._waiting.add(key)
        if key not in self._processing:
            self._ready.append(key)
            self._wakeup.set()

    def add_after(self, key: K, seconds: float) -> None:
        """Ask for a key to be processed after a delay; the earliest wish per key wins."""
        if self._shut_down:
            return
        if seconds <= 0:
            self.add(key)
            return
        later = self._call_later or asyncio.get_running_loop().call_later
        timer = later(seconds, lambda: self._due(key))
        previous = self._timers.get(key)
        if previous is not None:
            if previous.when() <= timer.when():
                timer.cancel()
                return
            previous.cancel()
        self._timers[key] = timer

    def add_rate_limited(self, key: K) -> None:
        """Ask for a retry after the key's back-off, which grows with every call."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        delay = min(FIRST_BACKOFF_SECONDS * 2 ** min(failures, 30), MAX_BACKOFF_SECONDS)
        self.add_after(key, delay * (1 + JITTER_RATIO * self._random_ratio()))

    def forget(self, key: K) -> None:
        """Start the key's back-off over: it succeeded."""
        self._failures.pop(key, None)

    def failures(self, key: K) -> int:
        """How often the key has failed in a row."""
        return self._failures.get(key, 0)

    async def get(self) -> K:
        """Wait for a key and take it; call ``done`` afterwards, whatever happens.

        Raises:
            QueueShutDownError: The queue was shut down.
        """
        while not self._ready:
            if self._shut_down:
                raise QueueShutDownError
            self._wakeup.clear()
            await self._wakeup.wait()
        key = self._ready.popleft()
        self._waiting.discard(key)
        self._processing.add(key)
        return key

    def done(self, key: K) -> None:
        """The key was processed; if it was added meanwhile it is ready again."""
        self._processing.discard(key)
        if key in self._waiting:
            self._ready.append(key)
            self._wakeup.set()

    def shut_down(self) -> None:
        """Take no more keys, drop what waits, and wake every worker."""
        self._shut_down = True
        self._ready.clear()
        self._waiting.clear()
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._wakeup.set()

    def _due(self, key: K) -> None:
        self._timers.pop(key, None)
        self.add(key)
