"""WorkQueue: keys to reconcile, each at most once at a time.

A key added while it waits is merged. A key added while it is being processed runs once more
afterwards: it is never lost and never processed twice at once. Failures are retried with
exponential back-off and jitter, per key. Owned by one event loop; only ``get`` waits.

A key is in exactly one of these states::

    (nothing) --add--> ready --get--> processing --done--> (nothing)
                                      processing --add--> processing, wanted --done--> ready

Besides, it may have one timer that will add it.
Reference: client-go util/workqueue (semantics).
"""

import asyncio
import random
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from epp.kube.clock import LOOP_CLOCK, Clock, Timer

K = TypeVar("K", bound=Hashable)

_MAX_DOUBLINGS = 30
"""Keeps the power small; any sensible cap is reached long before."""


class QueueShutDownError(Exception):
    """The queue was shut down: the worker ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """How long a key waits before its next try.

    Attributes:
        first_seconds: Wait after the first failure; doubles with each further one.
        max_seconds: Longest wait, jitter included.
        jitter_ratio: Share of the wait that is drawn at random, 0 to 1, so that many keys that
            failed for one reason do not come back as one.
    """

    first_seconds: float = 0.01
    max_seconds: float = 60.0
    jitter_ratio: float = 0.2

    def delay_seconds(self, failures: int, draw: float) -> float:
        """Wait after this many failures in a row (>= 1); the draw is uniform in [0, 1)."""
        doublings = min(failures - 1, _MAX_DOUBLINGS)
        delay = min(self.first_seconds * 2.0**doublings, self.max_seconds)
        return delay * (1.0 - self.jitter_ratio * draw)


DEFAULT_BACKOFF = Backoff()


class WorkQueue(Generic[K]):
    """A de-duplicating queue of keys.

    Args:
        backoff: Waits between tries of a key that fails.
        clock: Schedules what is added later.
        draw: Uniform in [0, 1), for jitter.
    """

    def __init__(
        self,
        *,
        backoff: Backoff = DEFAULT_BACKOFF,
        clock: Clock = LOOP_CLOCK,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._ready: deque[K] = deque()
        self._wanted: set[K] = set()
        self._processing: set[K] = set()
        self._failures: dict[K, int] = {}
        self._timers: dict[K, Timer] = {}
        self._wakeup = asyncio.Event()
        self._shut_down = False
        self._backoff = backoff
        self._clock = clock
        self._draw = draw

    def __len__(self) -> int:
        """Keys that wait to be taken now."""
        return len(self._ready)

    @property
    def idle(self) -> bool:
        """Nothing waits, nothing is being processed, nothing is scheduled."""
        return not self._wanted and not self._processing and not self._timers

    def add(self, key: K) -> None:
        """Ask for a key to be processed. Ignored after ``shut_down``."""
        if self._shut_down or key in self._wanted:
            return
        self._wanted.add(key)
        if key not in self._processing:
            self._make_ready(key)

    def add_after(self, key: K, seconds: float) -> None:
        """Ask for a key to be processed after a delay; the earliest wish per key wins."""
        if self._shut_down:
            return
        if seconds <= 0:
            self.add(key)
            return
        pending = self._timers.get(key)
        if pending is not None:
            if pending.when() <= self._clock.time() + seconds:
                return
            pending.cancel()
        self._timers[key] = self._clock.call_later(seconds, lambda: self._due(key))

    def add_rate_limited(self, key: K) -> None:
        """Ask for a retry after the key's back-off, which grows with every call."""
        failures = self._failures.get(key, 0) + 1
        self._failures[key] = failures
        self.add_after(key, self._backoff.delay_seconds(failures, self._draw()))

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
        self._wanted.discard(key)
        self._processing.add(key)
        return key

    def done(self, key: K) -> None:
        """The key was processed; if it was added meanwhile it is ready again."""
        self._processing.discard(key)
        if key in self._wanted:
            self._make_ready(key)

    def shut_down(self) -> None:
        """Take no more keys, drop what waits, and wake every worker."""
        self._shut_down = True
        self._ready.clear()
        self._wanted.clear()
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._wakeup.set()

    def _make_ready(self, key: K) -> None:
        self._ready.append(key)
        self._wakeup.set()

    def _due(self, key: K) -> None:
        del self._timers[key]
        self.add(key)
