"""Is the pool saturated? Yes, when no candidate has room and fresh numbers to prove it.

Pure. An endpoint has room when its metrics are fresh, at most ``queue_depth`` requests wait and at
most ``kv_usage`` of its KV cache is used. Stale metrics, and never scraped endpoints, prove
nothing. Reference: GAIE v0.4.0 pkg/epp/saturationdetector/saturationdetector.go.
"""

import math
from dataclasses import dataclass

from epp.backend.endpoint_table import STALE_AFTER_SECONDS, EndpointTable, Mask
from epp.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class SaturationSettings:
    """Limits of room.

    Attributes:
        queue_depth: Waiting requests, inclusive.
        kv_usage: Used share of the KV cache, 0 to 1, inclusive.
        staleness_seconds: How late a scrape may be against its own schedule.
    """

    queue_depth: int = 5
    kv_usage: float = 0.8
    staleness_seconds: float = STALE_AFTER_SECONDS

    def __post_init__(self) -> None:
        """Raise ConfigError for values that mean nothing."""
        if self.queue_depth < 0:
            raise ConfigError("must not be negative", field="queue_depth", value=self.queue_depth)
        if not 0 < self.kv_usage <= 1:
            raise ConfigError("must be in (0, 1]", field="kv_usage", value=self.kv_usage)
        if not 0 < self.staleness_seconds < math.inf:
            raise ConfigError(
                "must be above 0", field="staleness_seconds", value=self.staleness_seconds
            )


class SaturationDetector:
    """Compares a table with the limits."""

    def __init__(self, settings: SaturationSettings | None = None) -> None:
        self._settings = settings or SaturationSettings()

    def is_saturated(self, table: EndpointTable, candidates: Mask) -> bool:
        """Tell whether no candidate has room; True without candidates."""
        settings, columns = self._settings, table.columns
        fresh = table.taken_at <= columns.due_at + settings.staleness_seconds
        fresh &= columns.known & ~columns.failing
        room = (table.waiting <= settings.queue_depth) & (table.kv_usage <= settings.kv_usage)
        return not bool((candidates & room & fresh).any())
