"""SchedulerProfile: filters, then weighted scorers, then a picker; every step is kept.

A plugin that raises is contained here: a filter keeps what it was given, a scorer scores 0, a
picker is replaced by the best total. The observer's timer sees the exception and counts it.
Reference: llm-d-router pkg/epp/scheduling/scheduler_profile.go; departs from it in the containment.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from epp.backend.endpoint_table import EndpointTable, Floats, Mask
from epp.scheduling.framework import Cycle, Filter, Picker, PluginObserver, Scorer
from epp.scheduling.types import FilterStep, ProfileRunResult, ScorerStep

NO_TOTALS: Floats = np.empty(0, dtype=np.float64)


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightedScorer:
    """A scorer and what its word is worth."""

    scorer: Scorer
    weight: float = 1.0


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
        first = len(cycle.steps)
        kept = candidates
        for plugin in self.filters:
            kept = _filter(plugin, cycle, table, kept, observe)
            if not kept.any():
                break
        filters = tuple(cycle.steps[first:])
        if not kept.any():
            return self._result(filters, (), NO_TOTALS, ())
        steps = tuple(_score(entry, cycle, table, kept, observe) for entry in self.scorers)
        totals = np.zeros(len(table), dtype=np.float64)
        for step in steps:
            totals += step.weight * step.raw
        picks = _pick(self.picker, cycle, table, kept, totals, observe)
        if steps:
            totals[~kept] = np.nan
        return self._result(filters, steps, totals if steps else NO_TOTALS, picks)

    def _result(
        self,
        filters: tuple[FilterStep, ...],
        scorers: tuple[ScorerStep, ...],
        totals: Floats,
        picks: tuple[int, ...],
    ) -> ProfileRunResult:
        return ProfileRunResult(
            profile=self.name,
            filters=filters,
            scorers=scorers,
            totals=totals,
            picker=self.picker.typed_name.name,
            picks=picks,
        )


def _filter(
    plugin: Filter, cycle: Cycle, table: EndpointTable, before: Mask, observe: PluginObserver
) -> Mask:
    steps = len(cycle.steps)
    name = plugin.typed_name
    try:
        with observe("Filter", name):
            after = plugin.filter(cycle, table, before) & before
    except Exception as exc:
        del cycle.steps[steps:]
        cycle.steps.append(FilterStep(name.name, before, before, f"failed: {exc!r}"))
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
            raw = entry.scorer.score(cycle, table, candidates)
            raw = np.clip(np.nan_to_num(raw, nan=0.0, posinf=1.0, neginf=0.0), 0.0, 1.0)
            if raw.shape != (len(table),):
                raise ValueError(f"{name.name}: {raw.shape} scores for {len(table)} endpoints")
    except Exception:
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
    try:
        with observe("Picker", picker.typed_name):
            picks = tuple(int(row) for row in picker.pick(cycle, table, candidates, totals))
            if not picks or not all(candidates[row] for row in picks):
                raise ValueError(f"{picker.typed_name.name}: picked {picks}, not all candidates")
            return picks
    except Exception:
        rows = np.flatnonzero(candidates)
        return (int(rows[int(np.argmax(totals[rows]))]),)
