"""What a profile's filters leave behind: masks that only shrink, and steps that tell the truth."""

import contextlib
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from epp.backend.endpoint_table import EndpointTable, Mask
from epp.scheduling.filters.low_latency import LowLatencyFilter
from epp.scheduling.framework import Cycle, TypedName
from epp.scheduling.pickers.random_picker import RandomPicker
from epp.scheduling.profile import SchedulerProfile, WeightedScorer
from epp.scheduling.types import InferenceRequest, ProfileRunResult
from epp.testing.builders import P, make_table

SIZE = 4
FLAGS = st.lists(st.booleans(), min_size=SIZE, max_size=SIZE)
NUMBERS = st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=SIZE, max_size=SIZE)


class Keeps:
    """A filter that answers these flags, whatever it is given."""

    typed_name = TypedName("keeps", "keeps")

    def __init__(self, flags: list[bool]) -> None:
        self._flags = np.array(flags)

    def filter(self, _cycle: Cycle, _table: EndpointTable, _candidates: Mask) -> Mask:
        return self._flags


class Says:
    """A scorer that answers these numbers."""

    typed_name = TypedName("says", "says")

    def __init__(self, numbers: list[float]) -> None:
        self.numbers = np.array(numbers)

    def score(self, _cycle: Cycle, _table: EndpointTable, _candidates: Mask) -> Any:
        return self.numbers


class FailsHalfWay(LowLatencyFilter):
    """A tree that raises after its last node."""

    def filter(self, cycle: Cycle, table: EndpointTable, candidates: Mask) -> Mask:
        super().filter(cycle, table, candidates)
        raise RuntimeError("defect")


def no_timer(_point: str, _name: TypedName) -> Any:
    return contextlib.nullcontext()


def run(
    candidates: list[bool], *, filters: Sequence[Any] = (), scorers: Sequence[Says] = ()
) -> ProfileRunResult:
    profile = SchedulerProfile(
        name="default",
        filters=filters,
        scorers=[WeightedScorer(scorer=scorer) for scorer in scorers],
        picker=RandomPicker(max_endpoints=SIZE),
    )
    table = make_table(P() for _ in range(SIZE))
    cycle = Cycle(InferenceRequest(request_id="r"), random.Random(1))
    return profile.run(cycle, table, np.array(candidates), no_timer)


@given(FLAGS.filter(any), st.lists(FLAGS, max_size=4))
def test_filters_only_ever_take_away(candidates: list[bool], answers: list[list[bool]]) -> None:
    result = run(candidates, filters=[Keeps(flags) for flags in answers])

    left = np.array(candidates)
    for step, flags in zip(result.filters, answers, strict=False):
        assert list(step.before) == list(left)
        left = left & np.array(flags)
        assert list(step.after) == list(left)
    assert set(result.picks) == set(np.flatnonzero(left))


@given(FLAGS.filter(any), st.lists(NUMBERS, min_size=1, max_size=3))
def test_whatever_scorers_say_totals_are_finite_for_those_who_are_left(
    candidates: list[bool], said: list[list[float]]
) -> None:
    result = run(candidates, scorers=[Says(numbers) for numbers in said])

    assert list(np.isfinite(result.totals)) == candidates
    assert all(((step.raw >= 0) & (step.raw <= 1)).all() for step in result.scorers)
    assert set(result.picks) == set(np.flatnonzero(candidates))


def test_clamping_leaves_the_scorers_own_numbers_alone() -> None:
    scorer = Says([7.0, -3.0, 0.5, np.inf])

    run([True] * SIZE, scorers=[scorer])

    assert scorer.numbers.tolist() == [7.0, -3.0, 0.5, np.inf]


def test_a_tree_that_fails_on_its_way_leaves_one_step() -> None:
    result = run([True] * SIZE, filters=[FailsHalfWay(name="tree")])

    assert [step.name for step in result.filters] == ["tree"]
    assert len(result.picks) == SIZE
