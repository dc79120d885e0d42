"""LiveColumns: the columns of one set of endpoints, written in place and frozen on demand.

Every request changes an in-flight count and every scrape a few cells of one row, so the values
are kept as columns from the start. Freezing copies the columns that changed since the last time;
what is frozen never changes again. Owned by ``EndpointRows``.
"""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from epp.backend.endpoint import Endpoint, EndpointKey
from epp.backend.endpoint_table import EndpointColumns, Floats, Ints, Mask
from epp.backend.metrics_state import UNKNOWN_STATE, MetricsState

N = TypeVar("N", bound=np.generic)

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


class _ScrapeColumns(Struct, frozen=True, kw_only=True):
    """Immutable copies of what scrapes write."""

    waiting: Floats
    running: Floats
    kv_usage: Floats
    max_adapters: Ints
    used_adapters: Ints
    block_size_tokens: Ints
    num_blocks: Ints
    known: Mask
    failing: Mask
    updated_at: Floats
    due_at: Floats
    active_adapters: tuple[frozenset[str], ...]
    waiting_adapters: tuple[frozenset[str], ...]
    adapter_rows: dict[tuple[str, bool], Mask]


class LiveColumns:
    """The columns of one set of endpoints.

    Values of one type are the rows of one matrix, so that one copy freezes many columns.

    Args:
        generation: Changes with the set of endpoints.
        rows: In table order.
    """

    def __init__(self, generation: int, rows: list[EndpointRow]) -> None:
        n = len(rows)
        self._generation = generation
        self._endpoints = tuple(row.endpoint for row in rows)
        self._index = {row.endpoint.key: i for i, row in enumerate(rows)}
        self._row_of_target = {row.endpoint.target: i for i, row in enumerate(rows)}
        self._floats: Floats = np.empty((5, n), np.float64)
        self._ints: Ints = np.empty((4, n), np.int64)
        self._flags: Mask = np.empty((2, n), np.bool_)
        self._active = [UNKNOWN_STATE.active_adapters] * n
        self._waiting = [UNKNOWN_STATE.waiting_adapters] * n
        self._in_flight: Ints = np.array([row.in_flight for row in rows], np.int64)
        self._scraped: _ScrapeColumns | None = None
        for row in rows:
            self.write_scrape(row.endpoint.key, row)

    def write_scrape(self, key: EndpointKey, row: EndpointRow) -> None:
        """Take over what is known from scrapes."""
        i, state = self._index[key], row.state
        self._floats[:, i] = (
            state.waiting_requests,
            state.running_requests,
            state.kv_usage,
            row.updated_at,
            row.due_at,
        )
        self._ints[:, i] = (
            state.max_adapters,
            _used_adapters(state),
            state.block_size_tokens,
            state.num_blocks,
        )
        self._flags[:, i] = (row.known, row.failing)
        self._active[i], self._waiting[i] = state.active_adapters, state.waiting_adapters
        self._scraped = None

    def write_in_flight(self, key: EndpointKey, in_flight: int) -> None:
        """Take over the count of unfinished requests."""
        self._in_flight[self._index[key]] = in_flight

    def freeze(self) -> EndpointColumns:
        """Immutable columns; those that scrapes write are shared until the next scrape."""
        if self._scraped is None:
            self._scraped = self._freeze_scraped()
        scraped = self._scraped
        return EndpointColumns(
            generation=self._generation,
            endpoints=self._endpoints,
            index=self._index,
            row_of_target=self._row_of_target,
            in_flight=_frozen(self._in_flight.copy()),
            waiting=scraped.waiting,
            running=scraped.running,
            kv_usage=scraped.kv_usage,
            max_adapters=scraped.max_adapters,
            used_adapters=scraped.used_adapters,
            block_size_tokens=scraped.block_size_tokens,
            num_blocks=scraped.num_blocks,
            known=scraped.known,
            failing=scraped.failing,
            updated_at=scraped.updated_at,
            due_at=scraped.due_at,
            active_adapters=scraped.active_adapters,
            waiting_adapters=scraped.waiting_adapters,
            adapter_rows=scraped.adapter_rows,
        )

    def _freeze_scraped(self) -> _ScrapeColumns:
        floats, ints, flags = self._floats.copy(), self._ints.copy(), self._flags.copy()
        _impute(floats[:3], flags[0])
        waiting, running, kv_usage, updated_at, due_at = _frozen(floats)
        max_adapters, used_adapters, block_size_tokens, num_blocks = _frozen(ints)
        known, failing = _frozen(flags)
        return _ScrapeColumns(
            waiting=waiting,
            running=running,
            kv_usage=kv_usage,
            max_adapters=max_adapters,
            used_adapters=used_adapters,
            block_size_tokens=block_size_tokens,
            num_blocks=num_blocks,
            known=known,
            failing=failing,
            updated_at=updated_at,
            due_at=due_at,
            active_adapters=tuple(self._active),
            waiting_adapters=tuple(self._waiting),
            adapter_rows={},
        )


def _used_adapters(state: MetricsState) -> int:
    if not state.waiting_adapters:
        return len(state.active_adapters)
    return len(state.active_adapters | state.waiting_adapters)


def _impute(loads: Floats, known: Mask) -> None:
    """Give unknown endpoints the median of the known ones, column by column."""
    if not known.all() and known.any():
        loads[:, ~known] = np.median(loads[:, known], axis=1, keepdims=True)


def _frozen(values: NDArray[N]) -> NDArray[N]:
    values.setflags(write=False)
    return values
