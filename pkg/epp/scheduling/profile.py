"""SchedulerProfile: filters, then weighted scorers, then a picker; every step is kept.

A plugin that raises, or answers what its contract forbids, is contained here: a filter keeps what
it was given, a scorer scores 0, a picker gives way to a draw among the best totals. The observer's
timer sees the exception and counts it; the result names it. Arrays that a plugin gets are
read-only, so a plugin that writes harms nobody but itself.
Reference: llm-d-router pkg/epp/scheduling/scheduler_profile.go; departs from it in the containment.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from epp.backend.endpoint_table import EndpointTable, Floats, Mask
from epp.errors import ConfigError
from epp.scheduling.framework import Cycle, Filter, Picker, PluginObserver, Scorer, TypedName
from epp.scheduling.types import (
    FilterStep,
    PluginFailure,
    ProfileRunResult,
    ScorerStep,
    error_text,
)

N = TypeVar("N", bound=np.generic)

NO_TOTALS: Floats = np.empty(0, dtype=np.float64)


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightedScorer:
    """A scorer and what its word is worth."""

    scorer: Scorer
    weight: float = 1.0

    def __post_init__(self) -> None:
        """Raise ConfigError for a weight that is no finite number."""
        if not math.isfinite(self.weight):
            raise ConfigError("must be a finite number", field="weight", value=self.weight)


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerProfile:
    """A named way to choose.

    Attributes:
        name: Of the profile.
        filters: Run in order until one leaves nobody.
        scorers: Summed; order does not matter.
        picker: Chooses among what is left.
    """

    name: str
    filters: Sequence[Filter] = ()
    scorers: Sequence[WeightedScorer] = ()
    picker: Picker

    def run(
        self, cycle: Cycle, table: EndpointTable, candidates: Mask, observe: PluginObserver
    ) -> ProfileRunResult:
        """Run on the candidates; ``picks`` is empty when the filters leave nobody."""
        first_step, first_failure = len(cycle.steps), len(cycle.failures)
        kept = _read_only(candidates.view())
        left = np.count_nonzero(kept)
        for plugin in self.filters:
            kept = _filter(plugin, cycle, table, kept, observe)
            left = np.count_nonzero(kept)
            if not left:
                break
        scorers: tuple[ScorerStep, ...] = ()
        totals = NO_TOTALS
        picks: tuple[int, ...] = ()
        if left:
            scorers = tuple([_score(entry, cycle, table, kept, observe) for entry in self.scorers])
            sums = _weighted_sum(scorers, len(table))
            picks = _pick(self.picker, cycle, table, kept, sums, observe)
            totals = np.where(kept, sums, np.nan) if scorers else NO_TOTALS
        return ProfileRunResult(
            profile=self.name,
            filters=tuple(cycle.steps[first_step:]),
            scorers=scorers,
            totals=totals,
            picker=self.picker.typed_name.name,
            picks=picks,
            failures=tuple(cycle.failures[first_failure:]),
        )


def _filter(
    plugin: Filter, cycle: Cycle, table: EndpointTable, before: Mask, observe: PluginObserver
) -> Mask:
    steps = len(cycle.steps)
    name = plugin.typed_name
    try:
        with observe("Filter", name):
            after = _checked_mask(plugin.filter(cycle, table, before), before)
    except Exception as exc:
        del cycle.steps[steps:]
        failure = _failed(cycle, "Filter", name, exc)
        cycle.steps.append(FilterStep(name.name, before, before, f"failed: {failure.error}"))
        return before
    if len(cycle.steps) == steps:  # a tree leaves its own steps
        cycle.steps.append(FilterStep(name.name, before, after))
    return after


def _score(
    entry: WeightedScorer,
    cycle: Cycle,
    table: EndpointTable,
    candidates: Mask,
    observe: PluginObserver,
) -> ScorerStep:
    name = entry.scorer.typed_name
    try:
        with observe("Scorer", name):
            raw = _checked_scores(entry.scorer.score(cycle, table, candidates), len(table))
    except Exception as exc:
        _failed(cycle, "Scorer", name, exc)
        raw = np.zeros(len(table), dtype=np.float64)
    return ScorerStep(name.name, entry.weight, raw)


def _pick(
    picker: Picker,
    cycle: Cycle,
    table: EndpointTable,
    candidates: Mask,
    totals: Floats,
    observe: PluginObserver,
) -> tuple[int, ...]:
    name = picker.typed_name
    try:
        with observe("Picker", name):
            return _checked_picks(picker.pick(cycle, table, candidates, totals), candidates)
    except Exception as exc:
        _failed(cycle, "Picker", name, exc)
        rows = np.flatnonzero(candidates)
        best = rows[totals[rows] == totals[rows].max()]
        return (int(best[cycle.random.randrange(len(best))]),)


def _weighted_sum(steps: Sequence[ScorerStep], rows: int) -> Floats:
    totals = np.zeros(rows, dtype=np.float64)
    for step in steps:
        totals += step.weight * step.raw
    return _read_only(totals)


def _checked_mask(answer: Mask, before: Mask) -> Mask:
    if answer.dtype != np.bool_ or answer.shape != before.shape:
        raise ValueError(f"{answer.dtype}{answer.shape} is no mask of {before.size} endpoints")
    return _read_only(answer & before)


def _checked_scores(answer: Floats, rows: int) -> Floats:
    if answer.shape != (rows,):
        raise ValueError(f"{answer.shape} scores for {rows} endpoints")
    above = np.fmax(answer, 0.0, dtype=np.float64)  # the other one where one is NaN
    return np.fmin(above, 1.0, out=above)


def _checked_picks(answer: Sequence[int], candidates: Mask) -> tuple[int, ...]:
    picks = tuple([int(row) for row in answer])
    rows = candidates.size
    if len(picks) != 1 and (not picks or len(set(picks)) < len(picks)):
        raise ValueError(f"picked {picks}")
    for row in picks:
        if not 0 <= row < rows or not candidates[row]:
            raise ValueError(f"picked {picks}, not all of them candidates")
    return picks


def _failed(cycle: Cycle, point: str, name: TypedName, error: Exception) -> PluginFailure:
    failure = PluginFailure(
        extension_point=point, type=name.type, name=name.name, error=error_text(error)
    )
    cycle.failures.append(failure)
    return failure


def _read_only(values: NDArray[N]) -> NDArray[N]:
    values.setflags(write=False)
    return values
