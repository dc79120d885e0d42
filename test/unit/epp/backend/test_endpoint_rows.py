"""What rows keep, and what a table taken from them shows, then and for ever."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.backend.endpoint import Endpoint
from epp.backend.endpoint_rows import EndpointRows
from epp.backend.endpoint_table import EndpointTable
from epp.backend.metrics_state import MetricsState
from epp.testing.builders import make_endpoint

A, B, C = (make_endpoint(f"pod-{n}", address=f"10.0.0.{i}") for i, n in enumerate("abc", 1))


def filled(*endpoints: Endpoint) -> EndpointRows:
    rows = EndpointRows()
    for endpoint in endpoints:
        rows.put(endpoint)
    return rows


def load(waiting: int, running: int = 0, kv: float = 0.0) -> MetricsState:
    return MetricsState(waiting_requests=waiting, running_requests=running, kv_usage=kv)


def test_rows_are_sorted_by_key_in_whatever_order_they_come() -> None:
    rows = filled(C, A, B)

    table = rows.snapshot(0.0)

    assert table.endpoints == (A, B, C)
    assert list(rows.keys()) == [A.key, B.key, C.key]
    assert table.columns.index == {A.key: 0, B.key: 1, C.key: 2}
    assert table.columns.row_of_target == {A.target: 0, B.target: 1, C.target: 2}


def test_put_tells_whether_the_endpoint_is_new() -> None:
    rows = EndpointRows()

    assert rows.put(A)
    assert not rows.put(A)
    assert not rows.put(make_endpoint("pod-a", address="10.0.0.9"))
    assert len(rows) == 1


def test_whoever_counts_is_asked_when_an_endpoint_comes_or_moves() -> None:
    rows = EndpointRows()
    asked = []

    def count(endpoint: Endpoint) -> int:
        asked.append(endpoint.target)
        return 10 if endpoint.address == A.address else 20

    rows.count_in_flight_with(count)
    rows.put(A)
    rows.put(make_endpoint(A.pod_name, address=A.address, labels={"other": "labels"}))
    came = int(rows.snapshot(1.0).in_flight[0])
    rows.put(make_endpoint(A.pod_name, address="10.9.9.9"))
    moved = int(rows.snapshot(1.0).in_flight[0])

    assert (came, moved) == (10, 20)
    assert asked == [A.target, "10.9.9.9:8000"]


def test_a_new_address_keeps_metrics_and_in_flight() -> None:
    rows = filled(A)
    rows.publish(A.key, load(4), now=1.0, due_at=2.0)
    rows.add_in_flight(A.key, 3)

    rows.put(make_endpoint("pod-a", address="fd00::9"))

    table = rows.snapshot(1.0)
    assert table.columns.row_of_target == {"[fd00::9]:8000": 0}
    assert (table.waiting[0], table.in_flight[0], bool(table.known[0])) == (4.0, 3, True)


def test_a_removed_endpoint_forgets_everything() -> None:
    rows = filled(A, B)
    rows.publish(A.key, load(4), now=1.0, due_at=2.0)
    rows.add_in_flight(A.key, 3)

    removed = [rows.remove(A.key), rows.remove(A.key)]
    rows.put(A)

    table = rows.snapshot(1.0)
    assert removed == [True, False]
    assert not table.known[0]
    assert table.in_flight[0] == 0


def test_what_comes_late_for_a_removed_endpoint_is_ignored() -> None:
    rows = filled(B)

    rows.publish(A.key, load(4), now=1.0, due_at=2.0)
    rows.fail(A.key, due_at=2.0)
    rows.reschedule(A.key, due_at=2.0)
    rows.add_in_flight(A.key, 1)

    assert A.key not in rows
    assert rows.get(A.key) is None
    assert list(rows.snapshot(1.0).in_flight) == [0]


def test_generation_changes_with_endpoints_and_not_with_metrics() -> None:
    rows = filled(A)
    generations = [rows.snapshot(0.0).columns.generation]

    for change in (
        lambda: rows.publish(A.key, load(1), now=1.0, due_at=2.0),
        lambda: rows.add_in_flight(A.key, 1),
        lambda: rows.put(A),
        lambda: rows.put(make_endpoint("pod-a", address="10.0.0.9")),
        lambda: rows.put(B),
        lambda: rows.remove(B.key),
    ):
        change()
        generations.append(rows.snapshot(0.0).columns.generation)

    moved = [after != before for before, after in zip(generations, generations[1:], strict=False)]
    assert moved == [False, False, False, True, True, True]


def test_unknown_load_is_the_median_of_what_is_known() -> None:
    d = make_endpoint("pod-d", address="10.0.0.4")
    rows = filled(A, B, C, d)
    rows.publish(A.key, load(1, 10, 0.1), now=1.0, due_at=2.0)
    rows.publish(B.key, load(2, 20, 0.2), now=1.0, due_at=2.0)
    rows.publish(d.key, load(90, 30, 0.9), now=1.0, due_at=2.0)

    table = rows.snapshot(1.0)

    assert list(table.waiting) == [1, 2, 2, 90]
    assert list(table.running) == [10, 20, 20, 30]
    assert list(table.kv_usage) == [0.1, 0.2, 0.2, 0.9]
    assert list(table.known) == [True, True, False, True]


def test_without_any_scrape_every_load_is_zero_and_unknown() -> None:
    table = filled(A, B).snapshot(1.0)

    assert list(table.waiting) == [0, 0]
    assert not table.known.any()
    assert np.isnan(table.age_seconds).all()


def test_a_failed_scrape_keeps_the_old_values_until_the_next_good_one() -> None:
    rows = filled(A)
    rows.publish(A.key, load(4), now=1.0, due_at=2.0)

    rows.fail(A.key, due_at=3.0)
    failed = rows.snapshot(1.5)
    rows.publish(A.key, load(5), now=3.0, due_at=4.0)
    recovered = rows.snapshot(3.0)

    assert (failed.waiting[0], bool(failed.failing[0]), failed.age_seconds[0]) == (4.0, True, 0.5)
    assert (recovered.waiting[0], bool(recovered.failing[0])) == (5.0, False)


@pytest.mark.parametrize(
    ("now", "want"),
    [
        pytest.param(1.0, False, id="just-scraped"),
        pytest.param(2.0, False, id="due"),
        pytest.param(2.2, False, id="late-within-tolerance"),
        pytest.param(2.21, True, id="late"),
    ],
)
def test_a_row_is_stale_when_it_missed_its_own_schedule(now: float, want: bool) -> None:
    rows = filled(A)
    rows.publish(A.key, load(1), now=1.0, due_at=2.0)

    assert bool(rows.snapshot(now).stale[0]) is want


def test_a_slower_schedule_moves_staleness() -> None:
    rows = filled(A)
    rows.publish(A.key, load(1), now=1.0, due_at=1.05)

    rows.reschedule(A.key, due_at=2.0)

    assert not rows.snapshot(1.9).stale[0]


def test_never_scraped_and_failing_rows_are_stale() -> None:
    rows = filled(A, B)
    rows.publish(B.key, load(1), now=1.0, due_at=2.0)
    rows.fail(B.key, due_at=2.0)

    assert list(rows.snapshot(1.0).stale) == [True, True]


@given(st.lists(st.sampled_from([-1, 1]), max_size=40))
def test_in_flight_is_never_negative(deltas: list[int]) -> None:
    rows = filled(A)
    want = 0

    for delta in deltas:
        rows.add_in_flight(A.key, delta)
        want = max(0, want + delta)
        assert rows.snapshot(0.0).in_flight[0] == want


def test_a_table_is_not_touched_by_later_changes() -> None:
    rows = filled(A, B)
    rows.publish(A.key, load(1), now=1.0, due_at=2.0)
    before = rows.snapshot(1.0)
    kept = _contents(before)

    rows.add_in_flight(A.key, 5)
    rows.publish(A.key, load(9, 9, 0.9), now=5.0, due_at=6.0)
    rows.fail(B.key, due_at=6.0)
    rows.put(make_endpoint("pod-a", address="10.0.0.9"))
    rows.remove(B.key)

    assert _contents(before) == kept
    assert _contents(rows.snapshot(1.0)) != kept


COLUMNS = (
    *("waiting", "running", "kv_usage", "in_flight", "max_adapters", "used_adapters"),
    *("known", "failing", "updated_at", "due_at", "block_size_tokens", "num_blocks"),
)


@pytest.mark.parametrize("name", COLUMNS)
def test_a_plugin_cannot_write_into_a_table(name: str) -> None:
    column = getattr(filled(A).snapshot(0.0).columns, name)

    with pytest.raises(ValueError, match="read-only"):
        column[0] = 1


def test_tables_without_a_change_between_them_share_columns() -> None:
    rows = filled(A)

    assert rows.snapshot(1.0).columns is rows.snapshot(2.0).columns


def test_in_flight_changes_share_what_scrapes_wrote() -> None:
    rows = filled(A)
    before = rows.snapshot(1.0).columns

    rows.add_in_flight(A.key, 1)

    assert rows.snapshot(1.0).columns.waiting is before.waiting


def test_adapters_are_counted_as_the_union() -> None:
    rows = filled(A)
    state = MetricsState(
        active_adapters=frozenset("xy"),
        waiting_adapters=frozenset("yz"),
        max_adapters=4,
        block_size_tokens=16,
        num_blocks=1000,
    )

    rows.publish(A.key, state, now=1.0, due_at=2.0)

    columns = rows.snapshot(1.0).columns
    assert (columns.used_adapters[0], columns.max_adapters[0]) == (3, 4)
    assert (columns.block_size_tokens[0], columns.num_blocks[0]) == (16, 1000)
    assert columns.active_adapters == (frozenset("xy"),)
    assert columns.waiting_adapters == (frozenset("yz"),)


def test_an_empty_pool_is_an_empty_table() -> None:
    table = EndpointRows().snapshot(0.0)

    assert len(table) == 0
    assert table.stale.shape == (0,)
    assert table.has_adapter("x").shape == (0,)


ENDPOINTS = st.sampled_from([A, B, C])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), ENDPOINTS, st.just(0)),
        st.tuples(st.just("remove"), ENDPOINTS, st.just(0)),
        st.tuples(st.just("publish"), ENDPOINTS, st.integers(0, 9)),
        st.tuples(st.just("fail"), ENDPOINTS, st.just(0)),
        st.tuples(st.just("in-flight"), ENDPOINTS, st.sampled_from([-1, 1])),
        st.tuples(st.just("snapshot"), ENDPOINTS, st.just(0)),
    ),
    max_size=30,
)


@given(STEPS)
def test_a_table_does_not_depend_on_when_snapshots_were_taken(
    steps: list[tuple[str, Endpoint, int]],
) -> None:
    watched, unwatched = EndpointRows(), EndpointRows()

    for step, endpoint, value in steps:
        if step == "snapshot":
            watched.snapshot(0.0)
            continue
        for rows in (watched, unwatched):
            _apply(rows, step, endpoint, value)

    assert _contents(watched.snapshot(1.0)) == _contents(unwatched.snapshot(1.0))


def _apply(rows: EndpointRows, step: str, endpoint: Endpoint, value: int) -> None:
    match step:
        case "put":
            rows.put(endpoint)
        case "remove":
            rows.remove(endpoint.key)
        case "publish":
            rows.publish(endpoint.key, load(value), now=1.0, due_at=2.0)
        case "fail":
            rows.fail(endpoint.key, due_at=2.0)
        case "in-flight":
            rows.add_in_flight(endpoint.key, value)


def _contents(table: EndpointTable) -> list[object]:
    def shown(value: float) -> float | None:
        return None if math.isnan(value) else value

    columns = [[shown(v) for v in getattr(table.columns, name).tolist()] for name in COLUMNS]
    adapters = [table.columns.active_adapters, table.columns.waiting_adapters]
    return [table.endpoints, table.columns.generation, *columns, *adapters]
