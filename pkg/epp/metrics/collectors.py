"""Pool gauges, computed when scraped from a view of the pool.

The view is a protocol, so that this package does not know the datastore. Averages and deviations
are taken over the endpoints whose metrics are fresh; without any they are zero, and so is the
number of ready endpoints. Without a pool there are no series at all.
Reference: llm-d-router ebab687 pkg/epp/datalayer/logger/logger.go. It keeps the last averages of a
pool that lost its endpoints, and rounds averages to two decimals; both are not done here.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from epp.metrics import pool_families as families
from epp.metrics.exposition import NumberCollector, Numbers
from epp.metrics.families import Family, NameSet

DEFAULT_STALENESS_SECONDS = 2.0
"""Reference: ``--metrics-staleness-threshold``."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSample:
    """The pool at one instant; every column has a value per endpoint, in the same order.

    Attributes:
        name: Name of the pool.
        endpoint_names: ``pod-rank-i``.
        waiting: Queued requests.
        running: Running requests.
        kv_usage: 0 to 1.
        in_flight: Requests that this EPP sent there and that have not ended.
        age_seconds: Since the last good scrape; NaN where there was none.
    """

    name: str
    endpoint_names: Sequence[str]
    waiting: Floats
    running: Floats
    kv_usage: Floats
    in_flight: NDArray[np.int64]
    age_seconds: Floats


class PoolView(Protocol):
    """Where the collector looks."""

    def pool_sample(self) -> PoolSample | None:
        """The pool as it is now; None while there is none."""
        ...


class PoolCollector(Collector):
    """Exposes the pool families; to be registered with the registry of ``Metrics``.

    Args:
        view: Asked once per scrape.
        name_sets: Generations of names to expose.
        staleness_seconds: Endpoints whose last good scrape is older do not count as ready.
    """

    def __init__(
        self,
        view: PoolView,
        *,
        name_sets: Iterable[NameSet],
        staleness_seconds: float = DEFAULT_STALENESS_SECONDS,
    ) -> None:
        self._view = view
        self._staleness_seconds = staleness_seconds
        self._values: Mapping[str, Numbers] = {}
        enabled = frozenset(name_sets)
        self._collectors = [
            NumberCollector(family, enabled, self._reader(family))
            for family in families.POOL_FAMILIES
        ]

    def describe(self) -> Iterator[Metric]:
        """Names without samples, so that a registry can tell names that clash."""
        for collector in self._collectors:
            yield from collector.describe()

    def collect(self) -> Iterator[Metric]:
        """Look at the pool once, then expose every family."""
        sample = self._view.pool_sample()
        self._values = {} if sample is None else _pool_values(sample, self._staleness_seconds)
        for collector in self._collectors:
            yield from collector.collect()

    def _reader(self, family: Family) -> Callable[[], Numbers]:
        return lambda: self._values.get(family.key, ())


def _pool_values(sample: PoolSample, staleness_seconds: float) -> dict[str, Numbers]:
    fresh = sample.age_seconds <= staleness_seconds  # NaN compares false: never scraped
    waiting, running = sample.waiting[fresh], sample.running[fresh]
    kv_usage = sample.kv_usage[fresh]
    of_pool = {
        families.POOL_READY.key: float(np.count_nonzero(fresh)),
        families.POOL_KV_CACHE.key: _mean(kv_usage),
        families.POOL_QUEUE.key: _mean(waiting),
        families.POOL_RUNNING.key: _mean(running),
        families.POOL_STD_DEV_KV_CACHE.key: _standard_deviation(kv_usage),
        families.POOL_STD_DEV_QUEUE.key: _standard_deviation(waiting),
        families.POOL_STD_DEV_RUNNING.key: _standard_deviation(running),
    }
    values: dict[str, Numbers] = {key: [((sample.name,), value)] for key, value in of_pool.items()}
    known = ~np.isnan(sample.age_seconds)
    values[families.ENDPOINT_QUEUE.key] = _per_endpoint(sample, sample.waiting, known)
    values[families.ENDPOINT_METRICS_AGE.key] = _per_endpoint(sample, sample.age_seconds, known)
    values[families.ENDPOINT_IN_FLIGHT.key] = _per_endpoint(
        sample, sample.in_flight.astype(np.float64), np.ones_like(known)
    )
    return values


def _per_endpoint(sample: PoolSample, column: Floats, shown: NDArray[np.bool_]) -> Numbers:
    rows = zip(sample.endpoint_names, column.tolist(), shown.tolist(), strict=True)
    return [((sample.name, name), value) for name, value, show in rows if show]


def _mean(values: Floats) -> float:
    return float(values.mean()) if values.size else 0.0


def _standard_deviation(values: Floats) -> float:
    """Sample standard deviation, rounded half up to two decimals; 0 for fewer than two values."""
    if values.size < 2:
        return 0.0
    return math.floor(float(values.std(ddof=1)) * 100 + 0.5) / 100
