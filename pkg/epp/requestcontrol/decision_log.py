"""The latest decisions, and how to read them. Records are kept as they are, formatted when read."""

import math
from collections import deque
from collections.abc import Sequence
from typing import Any

from epp.backend.endpoint_table import Mask
from epp.requestcontrol.types import RoutingDecision
from epp.scheduling.types import Decision, FilterStep, ProfileRunResult

DEFAULT_KEPT = 1000


class DecisionLog:
    """A ring of routings, newest first when read."""

    def __init__(self, kept: int = DEFAULT_KEPT) -> None:
        self._ring: deque[RoutingDecision] = deque(maxlen=kept)

    def add(self, routing: RoutingDecision) -> None:
        """Remember a routing; the oldest goes."""
        self._ring.append(routing)

    def latest(self, count: int) -> Sequence[RoutingDecision]:
        """Up to ``count`` routings, newest first."""
        return [self._ring[-n] for n in range(1, min(count, len(self._ring)) + 1)]

    def find(self, request_id: str) -> Sequence[RoutingDecision]:
        """Routings of a request id, newest first; a client may use an id twice."""
        return [r for r in reversed(self._ring) if r.request.request_id == request_id]


def explain(decision: Decision) -> str:
    """One line: the pick's load, then each step that narrowed the choice, then the picker."""
    run = decision.result
    if not run.picks:
        return "nobody was left"
    row, table = run.picks[0], decision.table
    parts = [_load(decision, row)]
    parts += [_narrowed(step) for step in run.filters if _narrows(step)]
    left = int(run.filters[-1].after.sum()) if run.filters else int(decision.candidates.sum())
    if run.scorers:
        parts.append(f"highest score {run.totals[row]:.2f} of {left}")
    elif left > 1:
        parts.append(f"random of {left}")
    elif len(table) == 1:
        parts.append("the only endpoint")
    return "; ".join(parts)


def breakdown(decision: Decision) -> dict[str, Any]:
    """Everything about a decision, ready for JSON."""
    table = decision.table
    names = [endpoint.name for endpoint in table.endpoints]
    return {
        "candidates": _names(names, decision.candidates),
        "endpoints": {
            name: {
                "address": endpoint.target,
                "waiting": float(table.waiting[row]),
                "running": float(table.running[row]),
                "kv_usage": float(table.kv_usage[row]),
                "in_flight": int(table.in_flight[row]),
                "age_seconds": _finite(float(table.age_seconds[row])),
                "known": bool(table.known[row]),
                "failing": bool(table.failing[row]),
            }
            for row, (name, endpoint) in enumerate(zip(names, table.endpoints, strict=True))
        },
        "profiles": [_profile(names, run) for run in decision.profiles],
        "primary": decision.primary,
    }


def _profile(names: Sequence[str], run: ProfileRunResult) -> dict[str, Any]:
    scored = [row for row, total in enumerate(run.totals.tolist()) if math.isfinite(total)]
    return {
        "profile": run.profile,
        "filters": [
            {
                "name": step.name,
                "note": step.note,
                "kept": _names(names, step.after),
                "dropped": _names(names, step.before & ~step.after),
            }
            for step in run.filters
        ],
        "scorers": [
            {
                "name": step.name,
                "weight": step.weight,
                "scores": {names[row]: float(step.raw[row]) for row in scored},
            }
            for step in run.scorers
        ],
        "totals": {names[row]: float(run.totals[row]) for row in scored},
        "picker": run.picker,
        "picks": [names[row] for row in run.picks],
    }


def _names(names: Sequence[str], mask: Mask) -> list[str]:
    return [name for name, kept in zip(names, mask.tolist(), strict=True) if kept]


def _load(decision: Decision, row: int) -> str:
    table = decision.table
    if not table.known[row]:
        return "never scraped, taken for average"
    text = f"waiting {table.waiting[row]:.0f}, kv {table.kv_usage[row]:.0%}"
    return f"{text}, its scrapes fail" if table.failing[row] else text


def _narrows(step: FilterStep) -> bool:
    """A step that failed, or kept everybody, decided nothing."""
    kept = int(step.after.sum())
    return 0 < kept < int(step.before.sum())


def _narrowed(step: FilterStep) -> str:
    what = f"{step.name} ({step.note})" if step.note else step.name
    return f"{what}: {int(step.after.sum())} of {int(step.before.sum())}"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
