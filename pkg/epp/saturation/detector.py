"""Is the pool saturated? Yes, when no candidate has room and fresh numbers to prove it.

Pure. An endpoint has room when its metrics are fresh, at most ``queue_depth`` requests wait and at
most ``kv_usage`` of its KV cache is used. Stale metrics, and never scraped endpoints, prove
nothing. Reference: GAIE v0.4.0 pkg/epp/saturationdetector/saturationdetector.go.
"""

from dataclasses import dataclass

from epp.backend.endpoint_table import EndpointTable, Mask
from epp.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class SaturationSettings:
    """Limits of room.

    Attributes:
        queue_depth: Waiting requests, inclusive.
        kv_usage: Used share of the KV cache, 0 to 1, inclusive.
    """

    queue_depth: int = 5
    kv_usage: float = 0.8

    def __post_init__(self) -> None:
        """Raise ConfigError for values that mean nothing."""
        if self.queue_depth < 0:
            raise ConfigError("must not be negative", field="queue_depth", value=self.queue_depth)
        if not 0 < self.kv_usage <= 1:
            raise ConfigError("must be in (0, 1]", field="kv_usage", value=self.kv_usage)


class SaturationDetector:
    """Compares a table with the limits."""

    def __init__(self, settings: SaturationSettings | None = None) -> None:
        self._settings = settings or SaturationSettings()

    def is_saturated(self, table: EndpointTable, candidates: Mask) -> bool:
        """Tell whether no candidate has room; True without candidates."""
        settings = self._settings
        room = (table.waiting <= settings.queue_depth) & (table.kv_usage <= settings.kv_usage)
        return not bool((candidates & room & ~table.stale).any())
