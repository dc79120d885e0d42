"""A profile's run: order, arithmetic, and what a broken plugin can do (nothing)."""

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from epp.errors import ConfigError
from epp.scheduling.framework import Cycle, TypedName
from epp.scheduling.pickers.max_score_picker import MaxScorePicker
from epp.scheduling.profile import SchedulerProfile, WeightedScorer
from epp.scheduling.types import InferenceRequest, ProfileRunResult
from epp.testing.builders import P, make_table

TABLE = make_table([P(), P(), P()])


class Timer:
    """A plugin observer that remembers what it saw."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []
        self.errors: list[str] = []

    def __call__(self, point: str, name: TypedName) -> "Timer":
        self.calls.append((point, name.name))
        return self

    def __enter__(self) -> None: ...

    def __exit__(self, *exc_info: object) -> None:
        if exc_info[0] is not None:
            self.errors.append(str(exc_info[0]))


class Plugin:
    """A plugin of every kind that answers, or raises, what a test says."""

    def __init__(self, name: str, answer: Any) -> None:
        self.typed_name = TypedName("fake", name)
        self._answer = answer

    def _do(self, *args: Any) -> Any:
        return self._answer(*args) if callable(self._answer) else self._answer

    def filter(self, _cycle: Cycle, _table: Any, candidates: Any) -> Any:
        return self._do(candidates)

    def score(self, _cycle: Cycle, _table: Any, candidates: Any) -> Any:
        return self._do(candidates)

    def pick(self, _cycle: Cycle, _table: Any, candidates: Any, totals: Any) -> Any:
        return self._do(candidates, totals)


def fail(*_args: object) -> Any:
    raise RuntimeError("defect")


def run(
    *,
    filters: Sequence[Plugin] = (),
    scorers: Sequence[WeightedScorer] = (),
    picker: Any = None,
    timer: Timer | None = None,
    seed: int = 1,
) -> ProfileRunResult:
    profile = SchedulerProfile(
        name="p", filters=filters, scorers=scorers, picker=picker or MaxScorePicker()
    )
    cycle = Cycle(InferenceRequest(request_id="r"), random.Random(seed))
    return profile.run(cycle, TABLE, TABLE.all_rows(), timer or Timer())


def scorer(name: str, answer: Any, weight: float = 1.0) -> WeightedScorer:
    return WeightedScorer(scorer=Plugin(name, answer), weight=weight)


def test_filters_then_scorers_then_the_picker_are_observed_and_kept() -> None:
    timer = Timer()

    result = run(
        filters=[Plugin("f", np.array([False, True, True]))],
        scorers=[scorer("s", np.array([1.0, 0.2, 0.4])), scorer("w", np.array([0, 1, 0.5]), 2)],
        timer=timer,
    )

    assert [name for _, name in timer.calls] == ["f", "s", "w", "max-score-picker"]
    assert result.picks == (1,)
    assert np.isnan(result.totals[0])
    assert list(result.totals[1:]) == [2.2, 1.4]
    assert list(result.filters[0].after) == [False, True, True]
    assert [step.weight for step in result.scorers] == [1, 2]
    assert not result.failures


def test_scores_are_clamped_and_nan_counts_as_zero() -> None:
    result = run(scorers=[scorer("s", np.array([np.nan, -np.inf, 7.0]))])

    assert list(result.scorers[0].raw) == [0, 0, 1]
    assert result.picks == (2,)


def test_totals_are_not_normalised() -> None:
    result = run(scorers=[scorer("s", np.array([1.0, 0.5, 0.0]), 3)])

    assert list(result.totals) == [3, 1.5, 0]


def test_the_first_filter_that_leaves_nobody_ends_the_run() -> None:
    timer = Timer()

    result = run(
        filters=[Plugin("none", np.zeros(3, np.bool_)), Plugin("never", fail)],
        scorers=[scorer("s", fail)],
        timer=timer,
    )

    assert result.picks == ()
    assert [name for _, name in timer.calls] == ["none"]


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(fail, id="raises"),
        pytest.param(np.array([0, 1, 1]), id="integers"),
        pytest.param(np.ones(2, np.bool_), id="wrong-length"),
        pytest.param(np.ones(1, np.bool_), id="broadcastable"),
        pytest.param(None, id="nothing"),
        pytest.param(lambda mask: mask.fill(False), id="writes-to-its-input"),
    ],
)
def test_a_broken_filter_keeps_everybody(answer: Any) -> None:
    timer = Timer()

    result = run(filters=[Plugin("bad", answer)], timer=timer)

    assert len(result.picks) == 1
    assert list(result.filters[0].after) == [True, True, True]
    assert result.filters[0].note.startswith("failed: ")
    assert [failure.name for failure in result.failures] == ["bad"]
    assert len(timer.errors) == 1


def test_a_filter_cannot_bring_back_what_another_dropped() -> None:
    result = run(
        filters=[Plugin("f", np.array([True, False, False])), Plugin("all", np.ones(3, np.bool_))]
    )

    assert result.picks == (0,)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(fail, id="raises"),
        pytest.param(np.ones(2), id="wrong-length"),
        pytest.param(0.5, id="a-number"),
        pytest.param(np.array(["a", "b", "c"]), id="text"),
        pytest.param(lambda mask: mask.fill(False), id="writes-to-its-input"),
    ],
)
def test_a_broken_scorer_scores_zero_and_the_others_decide(answer: Any) -> None:
    timer = Timer()

    result = run(
        scorers=[scorer("bad", answer), scorer("good", np.array([0, 0, 1.0]))], timer=timer
    )

    assert result.picks == (2,)
    assert list(result.scorers[0].raw) == [0, 0, 0]
    assert [failure.name for failure in result.failures] == ["bad"]
    assert len(timer.errors) == 1


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(fail, id="raises"),
        pytest.param([], id="nobody"),
        pytest.param([0], id="no-candidate"),
        pytest.param([3], id="beyond-the-table"),
        pytest.param([-1], id="negative"),
        pytest.param([1, 1], id="twice"),
        pytest.param(["x"], id="no-row"),
        pytest.param(lambda _mask, totals: totals.fill(0), id="writes-to-the-totals"),
    ],
)
def test_a_broken_picker_is_replaced_by_the_best_total(answer: Any) -> None:
    timer = Timer()

    result = run(
        filters=[Plugin("f", np.array([False, True, True]))],
        scorers=[scorer("s", np.array([1.0, 0.1, 0.2]))],
        picker=Plugin("bad", answer),
        timer=timer,
    )

    assert result.picks == (2,)
    assert [failure.extension_point for failure in result.failures] == ["Picker"]
    assert len(timer.errors) == 1


def test_a_broken_picker_without_scorers_is_replaced_by_a_draw_among_the_candidates() -> None:
    kept = Plugin("f", np.array([False, True, True]))

    picks = {run(filters=[kept], picker=Plugin("bad", fail), seed=n).picks for n in range(30)}

    assert picks == {(1,), (2,)}


def test_without_scorers_the_picker_sees_zeros_and_the_totals_stay_empty() -> None:
    seen: list[list[float]] = []

    def note(_mask: Any, totals: Any) -> list[int]:
        seen.append(totals.tolist())
        return [0]

    result = run(picker=Plugin("p", note))

    assert seen == [[0, 0, 0]]
    assert result.totals.size == 0


@pytest.mark.parametrize("weight", [float("nan"), float("inf")])
def test_a_weight_is_a_finite_number(weight: float) -> None:
    with pytest.raises(ConfigError, match="weight"):
        scorer("s", np.ones(3), weight)


def test_error_texts_are_kept_short() -> None:
    def shout(*_args: object) -> None:
        raise RuntimeError("x" * 10_000)

    answer: Callable[..., None] = shout

    assert len(run(scorers=[scorer("s", answer)]).failures[0].error) <= 200
