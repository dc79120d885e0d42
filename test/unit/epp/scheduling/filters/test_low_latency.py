"""The tree as a whole: what holds for every pool, and what its steps tell.

The published vectors run through the director, in ``requestcontrol/test_director_vectors.py``.
"""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from epp.backend.endpoint_table import EndpointTable, Mask
from epp.errors import ConfigError
from epp.scheduling.filters.low_latency import LowLatencyFilter, LowLatencySettings
from epp.scheduling.framework import Cycle
from epp.scheduling.types import InferenceRequest
from epp.testing.builders import P, make_table

ANY_FLOAT = st.floats(allow_nan=True, allow_infinity=True)
ADAPTERS = st.frozensets(st.sampled_from(["ad", "x", "y", "z"]), max_size=3)


@st.composite
def pools(draw: st.DrawFn, load: st.SearchStrategy[float] = ANY_FLOAT) -> EndpointTable:
    pods = [
        P(
            active=draw(ADAPTERS),
            waiting_adapters=draw(ADAPTERS),
            max_adapters=draw(st.integers(0, 4)),
            known=draw(st.booleans()),
            failing=draw(st.booleans()),
        )
        for _ in range(draw(st.integers(1, 8)))
    ]
    table = make_table(pods)
    values = st.lists(load, min_size=len(pods), max_size=len(pods))
    columns = replace(
        table.columns, waiting=np.array(draw(values)), kv_usage=np.array(draw(values))
    )
    return EndpointTable(columns, table.taken_at)


def run(
    table: EndpointTable,
    candidates: Mask,
    *,
    settings: LowLatencySettings | None = None,
    critical: bool = True,
    seed: int = 1,
) -> tuple[Mask, Cycle]:
    request = InferenceRequest(request_id="r", target_model="ad", critical=critical)
    cycle = Cycle(request, random.Random(seed))
    return LowLatencyFilter(settings).filter(cycle, table, candidates), cycle


@given(data=st.data(), strict=st.booleans(), critical=st.booleans())
def test_the_result_is_among_the_candidates_and_critical_requests_always_get_one(
    data: st.DataObject, strict: bool, critical: bool
) -> None:
    table = data.draw(pools())
    flags = st.lists(st.booleans(), min_size=len(table), max_size=len(table)).filter(any)
    candidates = np.array(data.draw(flags))

    kept, cycle = run(
        table, candidates, settings=LowLatencySettings(strict_v03=strict), critical=critical
    )

    assert not (kept & ~candidates).any()
    assert kept.any() or (strict and not critical)
    assert not cycle.failures


@given(
    data=st.data(), seed=st.integers(0, 2**32), edges=st.tuples(st.floats(0, 1), st.floats(0, 1))
)
def test_a_higher_affinity_threshold_never_loses_affinity(
    data: st.DataObject, seed: int, edges: tuple[float, float]
) -> None:
    table = data.draw(pools(load=st.just(0.0)))
    low, high = (LowLatencySettings(lora_affinity_threshold=edge) for edge in sorted(edges))
    loaded = table.has_adapter("ad")

    at_low, _ = run(table, table.all_rows(), settings=low, seed=seed)
    at_high, _ = run(table, table.all_rows(), settings=high, seed=seed)

    if (at_low & loaded).any() and not (at_low & ~loaded).any():
        assert np.array_equal(at_high, at_low)


def test_the_share_of_affinity_is_the_threshold() -> None:
    table = make_table([P(active={"ad"}, max_adapters=2), P(max_adapters=2)])
    tree = LowLatencyFilter(LowLatencySettings(lora_affinity_threshold=0.9))
    request = InferenceRequest(request_id="r", target_model="ad")
    cycle = Cycle(request, random.Random(7))

    hits = sum(bool(tree.filter(cycle, table, table.all_rows())[0]) for _ in range(5000))

    assert hits / 5000 == pytest.approx(0.9, abs=0.02)


@pytest.mark.parametrize(
    ("waiting", "want"),
    [
        pytest.param(
            3,
            ["healthy scrapes", "low queue", "LoRA affinity", "least queue", "least KV cache"],
            id="low-queue",
        ),
        pytest.param(
            200,
            ["healthy scrapes", "low queue", "least queue", "LoRA affinity", "least KV cache"],
            id="high-queue",
        ),
    ],
)
def test_the_steps_follow_the_tree(waiting: int, want: list[str]) -> None:
    _, cycle = run(make_table([P(waiting)]), np.array([True]))

    assert [step.name for step in cycle.steps] == want


@pytest.mark.parametrize(
    ("critical", "pod", "want"),
    [
        pytest.param(
            True,
            P(3),
            ["critical request", "low queue", "LoRA affinity", "least queue", "least KV cache"],
            id="critical",
        ),
        pytest.param(
            False,
            P(3),
            ["critical request", "has capacity", "least queue", "LoRA affinity", "least KV cache"],
            id="capacity",
        ),
        pytest.param(False, P(6), ["critical request", "has capacity", "drop"], id="dropped"),
    ],
)
def test_the_steps_follow_the_strict_tree(critical: bool, pod: object, want: list[str]) -> None:
    _, cycle = run(
        make_table([pod]),  # type: ignore[list-item]  # PodLoad, through parametrize
        np.array([True]),
        settings=LowLatencySettings(strict_v03=True),
        critical=critical,
    )

    assert [step.name for step in cycle.steps] == want


def test_failing_scrapes_are_last_choice_even_if_they_look_idle() -> None:
    table = make_table([P(0, 0.0, failing=True), P(9, 0.9)])

    assert list(run(table, table.all_rows())[0]) == [False, True]
    assert list(run(table, table.mask_of([0]))[0]) == [True, False]


def test_a_new_endpoint_looks_average_and_strictly_v03_idle() -> None:
    table = make_table([P(0, 0.1), P(8, 0.5), P(9, 0.5), P(known=False)])

    ours, _ = run(table, table.all_rows())
    strict, _ = run(table, table.all_rows(), settings=LowLatencySettings(strict_v03=True))

    assert list(np.flatnonzero(ours)) == [0]
    assert list(np.flatnonzero(strict)) == [3]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        pytest.param("low_queue_threshold", -1, id="negative-low-queue"),
        pytest.param("queue_threshold", -1, id="negative-queue"),
        pytest.param("lora_affinity_threshold", 1.1, id="share-above-one"),
        pytest.param("kv_cache_threshold", float("nan"), id="share-is-nan"),
    ],
)
def test_settings_that_mean_nothing_are_refused_by_name(field: str, value: float) -> None:
    with pytest.raises(ConfigError, match=field):
        LowLatencySettings(**{field: value})  # type: ignore[arg-type]  # on purpose
