import random
from collections import Counter
from typing import Any

import numpy as np
import pytest

from epp.scheduling.framework import Cycle
from epp.scheduling.pickers.max_score_picker import MaxScorePicker
from epp.scheduling.pickers.random_picker import RandomPicker
from epp.scheduling.pickers.weighted_random_picker import WeightedRandomPicker
from epp.scheduling.types import InferenceRequest
from epp.testing.builders import P, make_table

TABLE = make_table([P(), P(), P(), P()])
DRAWS = 4000
PICKERS = [RandomPicker, MaxScorePicker, WeightedRandomPicker]


def shares(picker: Any, totals: list[float], rows: list[int]) -> dict[int, float]:
    """Share of first picks by row."""
    cycle = Cycle(InferenceRequest(request_id="r"), random.Random(3))
    mask, values = TABLE.mask_of(rows), np.array(totals)
    counts = Counter(picker.pick(cycle, TABLE, mask, values)[0] for _ in range(DRAWS))
    return {row: count / DRAWS for row, count in sorted(counts.items())}


@pytest.mark.parametrize(
    ("picker", "totals", "rows", "want"),
    [
        pytest.param(RandomPicker(), [9, 0, 0, 0], [0, 1], {0: 0.5, 1: 0.5}, id="random-uniform"),
        pytest.param(MaxScorePicker(), [1, 3, 3, 9], [0, 1, 2], {1: 0.5, 2: 0.5}, id="max-tie"),
        pytest.param(MaxScorePicker(), [1, 3, 2, 9], [0, 1, 2], {1: 1.0}, id="max-best"),
        pytest.param(MaxScorePicker(), [0, 0, 0, 0], [2, 3], {2: 0.5, 3: 0.5}, id="max-zeros"),
        pytest.param(
            WeightedRandomPicker(), [3, 1, 0, 9], [0, 1, 2], {0: 0.75, 1: 0.25}, id="weighted"
        ),
        pytest.param(
            WeightedRandomPicker(), [0, 0, 0, 9], [0, 1], {0: 0.5, 1: 0.5}, id="weighted-zeros"
        ),
        pytest.param(
            WeightedRandomPicker(), [-1, 2, 0, 0], [0, 1], {1: 1.0}, id="weighted-negative"
        ),
    ],
)
def test_shares_of_first_picks(
    picker: Any, totals: list[float], rows: list[int], want: dict[int, float]
) -> None:
    assert shares(picker, totals, rows) == pytest.approx(want, abs=0.03)


@pytest.mark.parametrize("kind", PICKERS)
@pytest.mark.parametrize("count", [1, 2, 3, 9])
def test_several_picks_are_different_candidates(kind: Any, count: int) -> None:
    cycle = Cycle(InferenceRequest(request_id="r"), random.Random(3))
    mask = TABLE.mask_of([0, 1, 3])

    picks = kind(max_endpoints=count).pick(cycle, TABLE, mask, np.array([0.1, 0.3, 9.0, 0.2]))

    assert len(picks) == len(set(picks)) == min(count, 3)
    assert set(picks) <= {0, 1, 3}


def test_the_best_totals_come_first() -> None:
    cycle = Cycle(InferenceRequest(request_id="r"), random.Random(3))
    picker = MaxScorePicker(max_endpoints=3)

    picks = picker.pick(cycle, TABLE, TABLE.all_rows(), np.array([0.1, 0.3, 0.9, 0.2]))

    assert list(picks) == [2, 1, 3]
