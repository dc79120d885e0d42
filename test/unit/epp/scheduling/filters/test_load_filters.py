"""Values of each node of the latency tree, against the published formulas."""

import random
from collections.abc import Sequence

import numpy as np
import pytest
from msgspec.structs import replace

from epp.backend.endpoint_table import EndpointTable
from epp.scheduling.filters.decision_tree import NodeFilter
from epp.scheduling.filters.load_filters import (
    critical_request,
    drop,
    has_capacity,
    healthy_scrapes,
    least_kv_cache,
    least_queue,
    lora_affinity,
    low_queue,
)
from epp.scheduling.framework import Cycle
from epp.scheduling.types import InferenceRequest
from epp.testing.builders import P, PodLoad, make_table

INF, NAN = float("inf"), float("nan")


class OneDraw:
    """Gives one number and counts how often it was asked."""

    def __init__(self, value: float) -> None:
        self.value = value
        self.draws = 0

    def random(self) -> float:
        self.draws += 1
        return self.value

    def randrange(self, stop: int, /) -> int:
        raise AssertionError("no node draws an integer")


def kept(
    node: NodeFilter,
    table: EndpointTable,
    *,
    model: str = "ad",
    critical: bool = True,
    draw: OneDraw | None = None,
    given: Sequence[int] | None = None,
) -> list[int]:
    request = InferenceRequest(request_id="r", target_model=model, critical=critical)
    mask = table.all_rows() if given is None else table.mask_of(given)
    after, note = node(Cycle(request, draw or random.Random(1)), table, mask)
    assert note
    assert not (after & ~mask).any()
    return list(np.flatnonzero(after))


def loads(waiting: Sequence[float] = (), kv: Sequence[float] = ()) -> EndpointTable:
    """A table with any floats, also those that no scrape can bring."""
    table = make_table(P() for _ in waiting or kv)
    columns = replace(
        table.columns,
        waiting=np.array(waiting or [0.0] * len(table), np.float64),
        kv_usage=np.array(kv or [0.0] * len(table), np.float64),
    )
    return EndpointTable(columns, table.taken_at)


@pytest.mark.parametrize(
    ("waiting", "want"),
    [
        pytest.param([0, 3, 10], [0, 1], id="floor-of-range-over-n"),
        pytest.param([0, 4, 10], [0], id="just-outside"),
        pytest.param([7], [0], id="single"),
        pytest.param([2, 2, 2], [0, 1, 2], id="equal"),
        pytest.param([1, 0], [1], id="integer-division"),
        pytest.param([-10, -6], [0, 1], id="range-ends-at-zero-or-above"),
        pytest.param([0, INF, 1], [0], id="infinity-widens-no-band"),
        pytest.param([NAN, 1, 9], [1], id="nan-is-in-no-band"),
        pytest.param([NAN, NAN], [0, 1], id="all-nan"),
        pytest.param([INF, INF], [0, 1], id="all-infinite"),
        pytest.param([1e308, -1e308], [1], id="range-overflows"),
    ],
)
def test_least_queue_band(waiting: list[float], want: list[int]) -> None:
    assert kept(least_queue, loads(waiting=waiting)) == want


@pytest.mark.parametrize(
    ("kv", "want"),
    [
        pytest.param([0, 0.3, 1.0], [0, 1], id="range-over-n"),
        pytest.param([0.30, 0.55, 0.90], [0], id="outside"),
        pytest.param([0.4], [0], id="single"),
        pytest.param([0.5, 0.5], [0, 1], id="equal"),
        pytest.param([NAN, 0.9], [1], id="nan-is-in-no-band"),
        pytest.param([NAN, NAN], [0, 1], id="all-nan"),
    ],
)
def test_least_kv_cache_band(kv: list[float], want: list[int]) -> None:
    assert kept(least_kv_cache, loads(kv=kv)) == want


def test_a_band_is_relative_to_what_the_node_was_given() -> None:
    table = loads(waiting=[0, 100, 103, 110])

    assert kept(least_queue, table, given=[1, 2, 3]) == [1, 2]


@pytest.mark.parametrize("node", [least_queue, least_kv_cache])
def test_a_band_of_nobody_is_nobody(node: NodeFilter) -> None:
    assert kept(node, loads(waiting=[1, 2]), given=[]) == []


@pytest.mark.parametrize(
    ("strict", "want"),
    [pytest.param(False, [0, 1], id="ours-inclusive"), pytest.param(True, [0], id="v0.3-below")],
)
def test_low_queue_at_its_threshold(strict: bool, want: list[int]) -> None:
    table = make_table([P(127), P(128), P(129)])

    assert kept(low_queue(128, strict=strict), table) == want


@pytest.mark.parametrize(
    ("pod", "want"),
    [
        pytest.param(P(5, 0.8), [0], id="both-limits-inclusive"),
        pytest.param(P(6, 0.1), [], id="queue-too-long"),
        pytest.param(P(0, 0.81), [], id="cache-too-full"),
    ],
)
def test_capacity(pod: PodLoad, want: list[int]) -> None:
    assert kept(has_capacity(5, 0.8), make_table([pod])) == want


LOADED, ROOM, FULL = (
    P(active={"ad"}, max_adapters=2),
    P(active={"x"}, max_adapters=2),
    P(active={"x", "y"}, max_adapters=2),
)


@pytest.mark.parametrize(
    ("pods", "draw", "want", "draws"),
    [
        pytest.param([LOADED, ROOM, FULL], 0.998, [0], 1, id="both-below-threshold"),
        pytest.param([LOADED, ROOM, FULL], 0.999, [1], 1, id="both-at-threshold-explores"),
        pytest.param([LOADED, FULL], 0.9999, [0], 0, id="only-loaded"),
        pytest.param([ROOM, FULL], 0.0, [0], 0, id="only-room"),
        pytest.param([FULL, FULL], 0.0, [], 0, id="neither-fails"),
        pytest.param([P(), P()], 0.0, [], 0, id="no-lora-fails"),
        pytest.param(
            [P(waiting_adapters={"ad"}, max_adapters=1), FULL], 0.5, [0], 0, id="waiting-counts"
        ),
        pytest.param(
            [P(active={"x"}, waiting_adapters={"x"}, max_adapters=2), FULL],
            0.5,
            [0],
            0,
            id="an-adapter-in-both-lists-takes-one-slot",
        ),
        pytest.param(
            [P(active={"x"}, waiting_adapters={"y"}, max_adapters=2), ROOM],
            0.5,
            [1],
            0,
            id="waiting-takes-a-slot",
        ),
    ],
)
def test_lora_affinity(pods: list[PodLoad], draw: float, want: list[int], draws: int) -> None:
    source = OneDraw(draw)

    got = kept(lora_affinity(0.999, strict=False), make_table(pods), draw=source)

    assert got == want
    assert source.draws == draws


@pytest.mark.parametrize(
    ("strict", "want"),
    [pytest.param(False, [0, 1], id="ours-has-room"), pytest.param(True, [0], id="v0.3-no-slot")],
)
def test_a_server_that_has_not_reported_its_slots(strict: bool, want: list[int]) -> None:
    table = make_table([ROOM, P(), FULL])

    assert kept(lora_affinity(0.999, strict=strict), table) == want


def test_scrapes_that_fail_are_seen_and_stale_ones_are_not() -> None:
    table = make_table([P(), P(failing=True), P(fresh=False), P(known=False)])

    assert kept(healthy_scrapes, table) == [0, 2, 3]


@pytest.mark.parametrize(
    ("critical", "want"),
    [pytest.param(True, [0, 1], id="critical"), pytest.param(False, [], id="other")],
)
def test_critical_predicate(critical: bool, want: list[int]) -> None:
    assert kept(critical_request, make_table([P(), P()]), critical=critical) == want


def test_drop_keeps_nobody() -> None:
    assert kept(drop, make_table([P()])) == []


def test_a_loaded_adapter_counts_where_nobody_reports_slots() -> None:
    table = make_table([P(active={"ad"}), P()])
    cycle = Cycle(InferenceRequest(request_id="r", target_model="ad"), random.Random(1))

    kept, _ = lora_affinity(1.0, strict=True)(cycle, table, table.all_rows())

    assert kept.tolist() == [True, False]
