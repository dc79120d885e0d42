"""PoolCollector: averages, deviations and per-endpoint gauges of one sample."""

from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from epp.metrics.collectors import PoolCollector, PoolSample
from epp.metrics.families import SELECTABLE_NAME_SETS, NameSet
from epp.metrics.metrics import Metrics

NAN = float("nan")


class FakePool:
    def __init__(self, sample: PoolSample | None = None) -> None:
        self.sample = sample
        self.asked = 0

    def pool_sample(self) -> PoolSample | None:
        self.asked += 1
        return self.sample


def make_sample(*rows: tuple[str, float, float, float, int, float]) -> PoolSample:
    """Rows of (name, waiting, running, kv usage, in flight, age)."""
    columns: Any = zip(*rows, strict=True) if rows else ((),) * 6
    names, waiting, running, kv, in_flight, age = columns
    return PoolSample(
        name="pool",
        endpoint_names=names,
        waiting=np.array(waiting, np.float64),
        running=np.array(running, np.float64),
        kv_usage=np.array(kv, np.float64),
        in_flight=np.array(in_flight, np.int64),
        age_seconds=np.array(age, np.float64),
    )


def values_of(sample: PoolSample | None, **kwargs: Any) -> dict[tuple[str, ...], float]:
    registry = CollectorRegistry()
    collector = PoolCollector(FakePool(sample), name_sets=SELECTABLE_NAME_SETS, **kwargs)
    registry.register(collector)
    return {
        (s.name, *(v for k, v in sorted(s.labels.items()) if k != "name")): s.value
        for family in registry.collect()
        for s in family.samples
    }


TWO = make_sample(("a-rank-0", 1, 3, 0.1, 4, 0.1), ("b-rank-0", 2, 5, 0.3, 0, 1.9))


@pytest.mark.parametrize(
    "name, want",
    [
        pytest.param("inference_pool_average_kv_cache_utilization", 0.2, id="p6-kv"),
        pytest.param("inference_pool_average_queue_size", 1.5, id="p6-queue-is-a-float"),
        pytest.param("llm_d_epp_average_queue_size", 1.5, id="p6-queue-newest-name"),
        pytest.param("inference_pool_average_running_requests", 4.0, id="running"),
        pytest.param("llm_d_epp_std_dev_queue_size", 0.71, id="p6-deviation-of-queues"),
        pytest.param("llm_d_epp_std_dev_kv_cache_utilization", 0.14, id="p6-deviation-of-kv"),
        pytest.param("llm_d_epp_std_dev_running_requests", 1.41, id="deviation-of-running"),
        pytest.param("inference_pool_ready_pods", 2, id="ready"),
        pytest.param("llm_d_epp_ready_endpoints", 2, id="ready-newest-name"),
    ],
)
def test_pool_gauges_of_two_endpoints(name: str, want: Any) -> None:
    assert values_of(TWO)[(name,)] == pytest.approx(want)


QUEUES = [("a", 0.0), ("b", 0.125), ("c", 0.25)]
"""Their deviation is exactly 0.125: half-even rounding would give 0.12."""


def test_rounding_is_half_up() -> None:
    sample = make_sample(*((name, waiting, 0, 0.0, 0, 0.1) for name, waiting in QUEUES))

    deviation = values_of(sample)[("llm_d_epp_std_dev_queue_size",)]

    assert deviation == 0.13


def test_stale_and_unknown_endpoints_are_not_averaged() -> None:
    sample = make_sample(
        ("fresh", 4, 0, 0.5, 0, 2.0), ("stale", 100, 0, 1.0, 0, 2.01), ("new", 50, 0, 0.9, 0, NAN)
    )

    values = values_of(sample)

    assert values[("inference_pool_ready_pods",)] == 1
    assert values[("inference_pool_average_queue_size",)] == 4
    assert values[("llm_d_epp_std_dev_queue_size",)] == 0


def test_the_staleness_threshold_is_a_setting() -> None:
    assert values_of(TWO, staleness_seconds=1.0)[("inference_pool_ready_pods",)] == 1


def test_without_endpoints_everything_is_zero() -> None:
    values = values_of(make_sample())

    assert values[("inference_pool_ready_pods",)] == 0
    assert values[("inference_pool_average_queue_size",)] == 0
    assert values[("llm_d_epp_std_dev_running_requests",)] == 0


def test_without_a_pool_there_are_no_series() -> None:
    assert values_of(None) == {}


def test_endpoint_gauges_show_stale_endpoints_and_leave_out_what_is_unknown() -> None:
    sample = make_sample(("stale", 7, 0, 0.1, 2, 60.0), ("new", 7, 0, 0.1, 1, NAN))

    values = values_of(sample)

    assert values["inference_pool_per_pod_queue_size", "stale"] == 7
    assert values["llm_d_epp_per_endpoint_queue_size", "stale"] == 7
    assert values["epp_endpoint_metrics_age_seconds", "stale"] == 60
    assert ("inference_pool_per_pod_queue_size", "new") not in values
    assert ("epp_endpoint_metrics_age_seconds", "new") not in values
    assert values["epp_endpoint_in_flight_requests", "new"] == 1


def test_removed_endpoints_disappear_at_once() -> None:
    pool = FakePool(TWO)
    registry = CollectorRegistry()
    registry.register(PoolCollector(pool, name_sets=[NameSet.LLM_D]))
    list(registry.collect())

    pool.sample = make_sample(("a-rank-0", 1, 3, 0.1, 4, 0.1))

    shown = {
        s.labels.get("model_server_endpoint")
        for family in registry.collect()
        for s in family.samples
    }
    assert "b-rank-0" not in shown


def test_the_pool_is_looked_at_once_per_scrape_and_beside_the_other_metrics() -> None:
    pool = FakePool(TWO)
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    registry.register(PoolCollector(pool, name_sets=metrics.name_sets))

    for family in registry.collect():
        list(family.samples)

    assert pool.asked == 1
