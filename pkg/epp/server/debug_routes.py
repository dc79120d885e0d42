"""The debug views: the pool as the EPP sees it, and why each of the latest requests went where.

Read-only, built on demand from snapshots; served beside the metrics.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from epp.backend.endpoint_table import EndpointTable
from epp.datastore.endpoint_pool import EndpointPool
from epp.requestcontrol.decision_log import DecisionLog, breakdown, explain
from epp.requestcontrol.types import RoutingDecision
from epp_api.v1alpha2.inferencemodel_types import InferenceModel
from epp_api.v1alpha2.inferencemodelrewrite_types import (
    InferenceModelRewrite,
    InferenceModelRewriteRule,
)
from epp_api.v1alpha2.inferenceobjective_types import InferenceObjective

DEFAULT_LIMIT = 20
Query = Mapping[str, str]


class PoolState(Protocol):
    """What the pool view needs of the datastore."""

    def pool_get(self) -> EndpointPool | None:
        """The pool, None when there is none."""
        ...

    def endpoint_table(self) -> EndpointTable:
        """Snapshot of the endpoints."""
        ...

    def model_list(self) -> Sequence[InferenceModel]:
        """Active models."""
        ...

    def objective_list(self) -> Sequence[InferenceObjective]:
        """Objectives of the pool."""
        ...

    def rewrite_list(self) -> Sequence[InferenceModelRewrite]:
        """Rewrites of the pool."""
        ...


class Totals(Protocol):
    """Counts since the start."""

    @property
    def routed(self) -> int:
        """Requests that got an endpoint."""
        ...

    @property
    def refused(self) -> int:
        """Requests that were answered with an error."""
        ...

    @property
    def without_epp(self) -> int:
        """Requests that the gateway served on its own."""
        ...


def pool_route(
    state: PoolState, totals: Totals, open_streams: Callable[[], int]
) -> Callable[[str, Query], object]:
    """``/debug/pool``: pool, endpoints with their load, models, objectives, rewrites, totals."""

    def handle(_path: str, _query: Query) -> object:
        pool = state.pool_get()
        return {
            "process_id": os.getpid(),
            "pool": None if pool is None else _pool(pool),
            "endpoints": _endpoints(state.endpoint_table()),
            "models": [_model(model) for model in state.model_list()],
            "objectives": [
                {"object": str(objective.metadata.key), "priority": objective.priority}
                for objective in state.objective_list()
            ],
            "rewrites": [
                {
                    "object": str(rewrite.metadata.key),
                    "rules": [_rule(rule) for rule in rewrite.spec.rules],
                }
                for rewrite in state.rewrite_list()
            ],
            "totals": {
                "routed": totals.routed,
                "refused": totals.refused,
                "without_epp": totals.without_epp,
                "open_streams": open_streams(),
            },
        }

    return handle


def decisions_route(log: DecisionLog) -> Callable[[str, Query], object | None]:
    """``/debug/decisions?request_id=ID`` (whole breakdown) or ``?limit=N`` (newest first)."""

    def handle(_path: str, query: Query) -> object | None:
        request_id = query.get("request_id")
        if request_id is not None:
            return [
                {**_decision(d), "breakdown": breakdown(d.decision)} for d in log.find(request_id)
            ]
        limit = query.get("limit", str(DEFAULT_LIMIT))
        if not limit.isdigit():
            return {"error": f"limit: not a number (got {limit!r})"}
        return [_decision(decision) for decision in log.latest(int(limit))]

    return handle


def _pool(pool: EndpointPool) -> dict[str, Any]:
    return {
        "namespace": pool.namespace,
        "name": pool.name,
        "selector": dict(pool.selector),
        "target_ports": list(pool.target_ports),
        "failure_mode": pool.failure_mode,
    }


def _endpoints(table: EndpointTable) -> list[dict[str, Any]]:
    ages, stale = table.age_seconds, table.stale
    columns = table.columns
    return [
        {
            "name": endpoint.name,
            "pod": endpoint.pod_name,
            "address": endpoint.target,
            "waiting": float(columns.waiting[row]),
            "running": float(columns.running[row]),
            "kv_usage": float(columns.kv_usage[row]),
            "active_adapters": sorted(columns.active_adapters[row]),
            "in_flight": int(columns.in_flight[row]),
            "known": bool(columns.known[row]),
            "failing": bool(columns.failing[row]),
            "stale": bool(stale[row]),
            "age_seconds": float(ages[row]) if columns.known[row] else None,
        }
        for row, endpoint in enumerate(table.endpoints)
    ]


def _model(model: InferenceModel) -> dict[str, Any]:
    spec = model.spec
    return {
        "model_name": spec.model_name,
        "object": str(model.metadata.key),
        "criticality": spec.criticality,
        "targets": [{"name": t.name, "weight": t.weight} for t in spec.target_models],
    }


def _rule(rule: InferenceModelRewriteRule) -> dict[str, Any]:
    return {
        "models": [match.model.value for match in rule.matches if match.model is not None],
        "targets": [{"name": t.model_rewrite, "weight": t.weight} for t in rule.targets],
    }


def _decision(routing: RoutingDecision) -> dict[str, Any]:
    return {
        "request_id": routing.request.request_id,
        "model": routing.request.model,
        "target_model": routing.target_model,
        "endpoint": routing.endpoint.name,
        "pod": routing.endpoint.pod_name,
        "targets": list(routing.targets),
        "why": explain(routing.decision),
    }
