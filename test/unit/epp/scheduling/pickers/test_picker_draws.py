"""Ends of the random source, and ties among fall-backs."""

import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.scheduling.framework import Cycle
from epp.scheduling.pickers.max_score_picker import MaxScorePicker
from epp.scheduling.pickers.weighted_random_picker import WeightedRandomPicker
from epp.scheduling.types import InferenceRequest
from epp.testing.builders import P, make_table

ALMOST_ONE = 1.0 - 2.0**-53


class Fixed:
    """A random source that always says the same."""

    def __init__(self, share: float) -> None:
        self._share = share

    def random(self) -> float:
        return self._share

    def randrange(self, stop: int, /) -> int:
        return int(self._share * stop)


def weighted(totals: list[float], share: float, count: int = 1) -> list[int]:
    table = make_table(P() for _ in totals)
    cycle = Cycle(InferenceRequest(request_id="r"), Fixed(share))
    picker = WeightedRandomPicker(max_endpoints=count)
    return list(picker.pick(cycle, table, table.all_rows(), np.array(totals)))


@pytest.mark.parametrize(
    ("totals", "share", "want"),
    [
        pytest.param([0.1, 0.2, 0.0], ALMOST_ONE, 1, id="the-last-weight-that-is-one"),
        pytest.param([0.3, 0.1, 0.6, 0.0], ALMOST_ONE, 2, id="rounded-past-every-weight"),
        pytest.param([0.0, 0.2, 0.1], 0.0, 1, id="the-first-weight-that-is-one"),
    ],
)
def test_a_zero_weight_is_not_drawn_at_the_ends(
    totals: list[float], share: float, want: int
) -> None:
    assert weighted(totals, share) == [want]


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=6),
    st.floats(0, 1, exclude_max=True),
    st.integers(1, 7),
)
def test_rounding_never_draws_nobody_or_the_same_twice(
    totals: list[float], share: float, count: int
) -> None:
    picks = weighted(totals, share, count)

    assert len(picks) == len(set(picks)) == min(count, len(totals))


def test_equal_totals_take_turns_in_front_of_their_fall_backs() -> None:
    table = make_table([P(), P(), P()])
    cycle = Cycle(InferenceRequest(request_id="r"), random.Random(2))
    picker = MaxScorePicker(max_endpoints=2)

    seen = Counter(
        tuple(picker.pick(cycle, table, table.all_rows(), np.array([0.7, 0.1, 0.7])))
        for _ in range(2_000)
    )

    assert set(seen) == {(0, 2), (2, 0)}
    assert seen[0, 2] == pytest.approx(1_000, rel=0.1)
