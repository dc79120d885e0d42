"""EndpointRows: the one mutable copy of what is known of every endpoint.

Written by three parties on the one event loop: the datastore (endpoints come and go), the
collector (scrapes), request control (in-flight counts). Read by everyone through ``snapshot``,
which copies only after a change. Rows stay sorted by endpoint key.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from epp.backend.endpoint import Endpoint, EndpointKey
from epp.backend.endpoint_table import EndpointColumns, EndpointTable, Floats, Mask
from epp.backend.metrics_state import UNKNOWN_STATE, MetricsState

_NEVER = float("nan")


@dataclass(slots=True)
class EndpointRow:
    """Everything about one endpoint; mutable, private to the event loop."""

    endpoint: Endpoint
    state: MetricsState = UNKNOWN_STATE
    known: bool = False
    failing: bool = False
    updated_at: float = _NEVER
    due_at: float = _NEVER
    in_flight: int = 0


class EndpointRows:
    """Rows by endpoint key, and snapshots of them as tables."""

    def __init__(self) -> None:
        self._rows: dict[EndpointKey, EndpointRow] = {}
        self._generation = 0
        self._columns: EndpointColumns | None = None

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, key: EndpointKey) -> bool:
        return key in self._rows

    def keys(self) -> Iterable[EndpointKey]:
        """Endpoint keys, sorted."""
        return self._rows.keys()

    def get(self, key: EndpointKey) -> EndpointRow | None:
        """The row of an endpoint, for reading; None when it is gone."""
        return self._rows.get(key)

    def put(self, endpoint: Endpoint) -> bool:
        """Add an endpoint, or change its address and labels, keeping its metrics.

        Returns:
            True when the endpoint is new.
        """
        row = self._rows.get(endpoint.key)
        if row is None:
            self._rows[endpoint.key] = EndpointRow(endpoint)
            self._rows = dict(sorted(self._rows.items()))
        elif row.endpoint == endpoint:
            return False
        else:
            row.endpoint = endpoint
        self._generation += 1
        self._columns = None
        return row is None

    def remove(self, key: EndpointKey) -> bool:
        """Forget an endpoint. Removing twice is harmless."""
        if self._rows.pop(key, None) is None:
            return False
        self._generation += 1
        self._columns = None
        return True

    def publish(self, key: EndpointKey, state: MetricsState, *, now: float, due_at: float) -> None:
        """Store a good scrape. Ignored when the endpoint is gone."""
        row = self._rows.get(key)
        if row is None:
            return
        row.state, row.known, row.failing = state, True, False
        row.updated_at, row.due_at = now, due_at
        self._columns = None

    def fail(self, key: EndpointKey, *, due_at: float) -> None:
        """Note that a scrape failed: old values stay, the row becomes last choice."""
        row = self._rows.get(key)
        if row is None:
            return
        row.failing, row.due_at = True, due_at
        self._columns = None

    def reschedule(self, key: EndpointKey, *, due_at: float) -> None:
        """Tell when the next scrape is due, e.g. after its interval changed."""
        row = self._rows.get(key)
        if row is None or row.due_at == due_at:
            return
        row.due_at = due_at
        self._columns = None

    def add_in_flight(self, key: EndpointKey, delta: int) -> None:
        """Count a request that was sent to an endpoint (+1) or finished (-1)."""
        row = self._rows.get(key)
        if row is None:
            return
        row.in_flight = max(0, row.in_flight + delta)
        self._columns = None

    def snapshot(self, now: float) -> EndpointTable:
        """The pool as it is now (monotonic seconds)."""
        if self._columns is None:
            self._columns = _build_columns(self._generation, list(self._rows.values()))
        return EndpointTable(self._columns, now)


def _build_columns(generation: int, rows: list[EndpointRow]) -> EndpointColumns:
    states = [row.state for row in rows]
    known = np.array([row.known for row in rows], dtype=np.bool_)
    return EndpointColumns(
        generation=generation,
        endpoints=tuple(row.endpoint for row in rows),
        waiting=_impute(np.array([s.waiting_requests for s in states], np.float64), known),
        running=_impute(np.array([s.running_requests for s in states], np.float64), known),
        kv_usage=_impute(np.array([s.kv_usage for s in states], np.float64), known),
        in_flight=np.array([row.in_flight for row in rows], np.int64),
        max_adapters=np.array([s.max_adapters for s in states], np.int64),
        used_adapters=np.array([_used_adapters(s) for s in states], np.int64),
        active_adapters=tuple(s.active_adapters for s in states),
        waiting_adapters=tuple(s.waiting_adapters for s in states),
        known=known,
        failing=np.array([row.failing for row in rows], dtype=np.bool_),
        updated_at=np.array([row.updated_at for row in rows], np.float64),
        due_at=np.array([row.due_at for row in rows], np.float64),
        block_size_tokens=np.array([s.block_size_tokens for s in states], np.int64),
        num_blocks=np.array([s.num_blocks for s in states], np.int64),
        index={row.endpoint.key: i for i, row in enumerate(rows)},
        row_of_target={row.endpoint.target: i for i, row in enumerate(rows)},
    )


def _used_adapters(state: MetricsState) -> int:
    if not state.waiting_adapters:
        return len(state.active_adapters)
    return len(state.active_adapters | state.waiting_adapters)


def _impute(values: Floats, known: Mask) -> Floats:
    if known.all() or not known.any():
        return values
    values[~known] = np.median(values[known])
    return values
