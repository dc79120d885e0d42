"""The pace of a pool."""

import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.backend.refresh_schedule import RefreshSchedule, RefreshSettings
from epp.errors import ConfigError


class Pool:
    """A schedule with a clock that the test turns."""

    def __init__(self, **settings: float) -> None:
        self.now = 1000.0
        self.wakes = 0
        self.schedule = RefreshSchedule(
            RefreshSettings(**settings),  # type: ignore[arg-type]  # only intervals are given
            clock=lambda: self.now,
            random=Random(7),
            on_wake=self._woken,
        )

    def _woken(self) -> None:
        self.wakes += 1


def test_without_traffic_idle_endpoints_are_slow_and_busy_ones_fast() -> None:
    pool = Pool()

    assert pool.schedule.interval(0, pool.now) == 1.0
    assert pool.schedule.interval(1, pool.now) == 0.05


def test_a_request_makes_the_whole_pool_fast_for_a_while() -> None:
    pool = Pool()

    pool.schedule.request_arrived()

    assert pool.schedule.interval(0, pool.now + 0.24) == 0.05
    assert pool.schedule.interval(0, pool.now + 0.26) == 1.0


def test_only_the_first_request_after_a_pause_wakes_the_pool() -> None:
    pool = Pool()

    for _ in range(3):
        pool.schedule.request_arrived()
        pool.now += 0.01
    assert pool.wakes == 1

    pool.now += 1.0
    pool.schedule.interval(0, pool.now)
    pool.schedule.request_arrived()
    assert pool.wakes == 2


def test_a_refresh_slower_than_idle_stays_as_slow() -> None:
    pool = Pool(refresh_seconds=5.0)

    assert pool.schedule.interval(0, pool.now) == 5.0


@given(
    took=st.floats(0.0, 0.04),
    interval=st.sampled_from([0.05, 1.0]),
    started=st.floats(0.0, 1e6),
)
def test_the_next_scrape_comes_soon_after_or_before_the_interval(
    took: float, interval: float, started: float
) -> None:
    start = Pool().schedule.next_start(started, started + took, interval)

    assert started + took <= start <= started + interval * 1.06


def test_missed_scrapes_are_dropped() -> None:
    pool = Pool()

    starts = [pool.schedule.next_start(100.0, 100.32, 0.05) for _ in range(50)]

    assert all(100.32 <= start <= 100.38 for start in starts)


def test_intervals_differ_so_that_endpoints_drift_apart() -> None:
    pool = Pool()

    assert len({pool.schedule.next_start(100.0, 100.0, 1.0) for _ in range(50)}) > 1
    assert len({round(pool.schedule.first_start(0.0, 1.0), 1) for _ in range(50)}) > 5


@pytest.mark.parametrize(
    ("failures", "interval", "longest"),
    [
        pytest.param(1, 0.05, 0.1, id="first"),
        pytest.param(2, 0.05, 0.2, id="second"),
        pytest.param(4, 0.05, 0.8, id="fourth"),
        pytest.param(5, 0.05, 1.0, id="capped"),
        pytest.param(5000, 0.05, 1.0, id="capped-for-ever"),
        pytest.param(1, 1.0, 1.0, id="idle"),
    ],
)
def test_a_failing_endpoint_is_left_alone_ever_longer(
    failures: int, interval: float, longest: float
) -> None:
    pause = Pool().schedule.retry_start(failures, 100.0, interval) - 100.0

    assert 0.9 * longest - 1e-9 <= pause <= longest + 1e-9


def test_waking_is_spread_and_never_faster_than_the_refresh() -> None:
    pool = Pool()

    large = [pool.schedule.wake_start(0.0, 100.0, 100) for _ in range(100)]
    fresh = pool.schedule.wake_start(99.99, 100.0, 4)

    assert min(large) >= 100.0
    assert 100.01 < max(large) <= 100.02
    assert fresh == pytest.approx(100.04)


@pytest.mark.parametrize("value", [0.0, -1.0, math.inf, math.nan])
def test_an_interval_must_be_positive(value: float) -> None:
    with pytest.raises(ConfigError, match="--refresh-metrics-interval"):
        RefreshSettings(refresh_seconds=value)
