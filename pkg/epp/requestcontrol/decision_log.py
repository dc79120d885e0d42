"""The latest decisions, and how to read them. Formatted when read.

What is kept of a request is who and where, never what: prompts would fill the memory, and headers
carry secrets. Tables are bounded too, by the number of their rows.
"""

import math
from collections import deque
from collections.abc import Sequence
from typing import Any

from epp.backend.endpoint_table import Mask
from epp.requestcontrol.types import RoutingDecision
from epp.scheduling.types import Decision, FilterStep, InferenceRequest, ProfileRunResult

DEFAULT_KEPT = 1000
DEFAULT_MAX_ROWS = 200_000
"""Endpoints of all kept tables together: about 25 MB when no two decisions share a table."""


class DecisionLog:
    """A ring of routings, newest first when read.

    Args:
        kept: Routings, >= 1.
        max_rows: Rows of their tables together; the newest routing stays whatever its table.
    """

    def __init__(self, kept: int = DEFAULT_KEPT, max_rows: int = DEFAULT_MAX_ROWS) -> None:
        self._ring: deque[RoutingDecision] = deque()
        self._kept = kept
        self._max_rows = max_rows
        self._rows = 0

    def __len__(self) -> int:
        """Routings that can be read."""
        return len(self._ring)

    def add(self, routing: RoutingDecision) -> None:
        """Remember a routing without its body and headers; the oldest go."""
        self._ring.append(routing.without_content())
        self._rows += len(routing.decision.table)
        while len(self._ring) > self._kept or (self._rows > self._max_rows and len(self._ring) > 1):
            self._rows -= len(self._ring.popleft().decision.table)

    def latest(self, count: int) -> Sequence[RoutingDecision]:
        """Up to ``count`` routings, newest first."""
        return [self._ring[-n] for n in range(1, min(count, len(self._ring)) + 1)]

    def find(self, request_id: str) -> Sequence[RoutingDecision]:
        """Routings of a request id, newest first; a client may use an id twice."""
        return [r for r in reversed(self._ring) if r.request.request_id == request_id]


def explain(decision: Decision) -> str:
    """One line: the pick's load, each step that narrowed the choice, the picker, what failed.

    At the end: what gave target and priority, where it was no InferenceModel.
    """
    run = decision.result
    if not run.picks:
        return "nobody was left"
    row, table = run.picks[0], decision.table
    parts = [_load(decision, row)]
    parts += [_narrowed(step) for step in run.filters if _narrows(step)]
    left = int(run.filters[-1].after.sum()) if run.filters else int(decision.candidates.sum())
    if run.scorers:
        parts.append(f"score {run.totals[row]:.2f}, {run.picker} of {left}")
    elif left > 1:
        parts.append(f"random of {left}")
    elif len(table) == 1:
        parts.append("the only endpoint")
    parts += [f"{failure.name} failed" for failure in run.failures]
    parts += _named(decision.request)
    return "; ".join(parts)


def _named(request: InferenceRequest) -> list[str]:
    parts = []
    if request.rewrite:
        parts.append(f"model {request.target_model} by {request.rewrite}")
    if request.objective:
        parts.append(f"priority {request.priority} by objective {request.objective}")
    return parts


def breakdown(decision: Decision) -> dict[str, Any]:
    """Everything about a decision, ready for JSON."""
    table, request = decision.table, decision.request
    names = [endpoint.name for endpoint in table.endpoints]
    ages, stale = table.age_seconds, table.stale
    return {
        "request": {
            "request_id": request.request_id,
            "model": request.model,
            "target_model": request.target_model,
            "priority": request.priority,
            "rewrite": request.rewrite,
            "objective": request.objective,
            "critical": request.critical,
            "size_bytes": request.size_bytes,
        },
        "candidates": _names(names, decision.candidates),
        "endpoints": {
            name: {
                "address": endpoint.target,
                "waiting": _finite(float(table.waiting[row])),
                "running": _finite(float(table.running[row])),
                "kv_usage": _finite(float(table.kv_usage[row])),
                "in_flight": int(table.in_flight[row]),
                "age_seconds": _finite(float(ages[row])),
                "known": bool(table.known[row]),
                "failing": bool(table.failing[row]),
                "stale": bool(stale[row]),
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
        "failures": [
            {"plugin": failure.name, "at": failure.extension_point, "error": failure.error}
            for failure in run.failures
        ],
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
