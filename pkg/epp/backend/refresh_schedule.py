"""RefreshSchedule: how soon each endpoint is scraped again. No timers, no I/O.

While requests arrive, every endpoint is scraped at the refresh interval; without them only those
with requests in flight are, the others every second. Intervals vary by a random few percent, so
that endpoints drift apart; starts lie on a coarse grid, so that a wake-up of the process serves
several of them (an idle pool of 100 takes half the CPU for it).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from epp.errors import ConfigError

JITTER_RATIO = 0.1
"""Share of an interval by which it may be shortened."""
SLOTS_PER_INTERVAL = 10
"""Scrapes start on a grid, so that those of one slot share a wake-up of the process."""
TRAFFIC_INTERVALS = 5
"""Refresh intervals for which a request keeps the whole pool at the fast pace."""
WAKE_SPREAD_SECONDS = 0.0002
"""Per endpoint: waking 100 endpoints is spread over 20 ms, so that it does not stall requests."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshSettings:
    """How often to scrape.

    Attributes:
        refresh_seconds: Interval under traffic.
        idle_seconds: Interval of an endpoint without traffic; never below ``refresh_seconds``.
        backoff_max_seconds: Longest pause after failures.
        restricted: Ask for the needed metrics only.
    """

    refresh_seconds: float = 0.05
    idle_seconds: float = 1.0
    backoff_max_seconds: float = 1.0
    restricted: bool = True

    def __post_init__(self) -> None:
        """Refuse intervals that are not positive."""
        for flag, value in (
            ("--refresh-metrics-interval", self.refresh_seconds),
            ("idle refresh interval", self.idle_seconds),
            ("scrape back-off", self.backoff_max_seconds),
        ):
            if not 0 < value < math.inf:
                raise ConfigError("must be above 0 seconds", field=flag, value=value)


class RefreshSchedule:
    """The pace of one pool.

    Args:
        settings: Intervals.
        clock: Monotonic seconds.
        random: Source of jitter.
        on_wake: Called by the first request after a pause; must not block.
    """

    def __init__(
        self,
        settings: RefreshSettings,
        *,
        clock: Callable[[], float],
        random: Random,
        on_wake: Callable[[], None],
    ) -> None:
        self._clock = clock
        self._random = random.random
        self._on_wake = on_wake
        self._asleep = True
        self._last_request_at = -math.inf
        self.refresh_seconds = settings.refresh_seconds
        self.idle_seconds = max(settings.idle_seconds, settings.refresh_seconds)
        self._backoff_max_seconds = settings.backoff_max_seconds
        self._traffic_seconds = TRAFFIC_INTERVALS * settings.refresh_seconds

    def request_arrived(self) -> None:
        """Note a request. O(1): waking the endpoints is the callback's business."""
        self._last_request_at = self._clock()
        if self._asleep:
            self._asleep = False
            self._on_wake()

    def interval(self, in_flight: int, now: float) -> float:
        """Seconds between the starts of two scrapes of an endpoint, before jitter."""
        if in_flight or now - self._last_request_at < self._traffic_seconds:
            return self.refresh_seconds
        self._asleep = True
        return self.idle_seconds

    def next_start(self, started: float, now: float, interval: float) -> float:
        """When to start the scrape after one that started at ``started``; missed ones are dropped."""
        step = self._jittered(interval)
        start = started + step
        if start < now:
            start += math.ceil((now - start) / step) * step
        slot = interval / SLOTS_PER_INTERVAL
        return max(now, round(start / slot) * slot)

    def first_start(self, started: float, interval: float) -> float:
        """When to start the second scrape of a new endpoint: at a random phase."""
        return started + interval * self._random()

    def retry_start(self, failures: int, now: float, interval: float) -> float:
        """When to start the scrape after ``failures`` failures in a row."""
        doubled = self.refresh_seconds * 2.0 ** min(failures, 20)
        pause = max(interval, min(doubled, self._backoff_max_seconds))
        return now + self._jittered(pause)

    def wake_start(self, started: float, now: float, pool_size: int) -> float:
        """When to start the scrape of an endpoint that a request woke."""
        spread = min(self.refresh_seconds, pool_size * WAKE_SPREAD_SECONDS) * self._random()
        return max(now + spread, started + self.refresh_seconds)

    def _jittered(self, seconds: float) -> float:
        return seconds * (1.0 - JITTER_RATIO * self._random())
