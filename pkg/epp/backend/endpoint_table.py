"""EndpointTable: the pool as a decision sees it, one numpy column per metric, a row per endpoint.

A table is immutable. Rows are sorted by endpoint key, so equal pools give equal tables and ties
break the same way everywhere. Unknown load (never scraped) is imputed with the median of the
known rows, so that a new endpoint looks average, not idle. Built by ``EndpointRows``.
"""

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from epp.backend.endpoint import Endpoint, EndpointKey

Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

STALE_AFTER_SECONDS = 0.2
"""How late a scrape may be against its own schedule before its row is stale (design: 5)."""


class EndpointColumns(msgspec.Struct, frozen=True, kw_only=True):
    """The columns of a table; shared by every table taken between two changes.

    Attributes:
        generation: Changes when endpoints come, go or move; not when metrics change.
        endpoints: Row order of every column.
        waiting: Queued requests, imputed where unknown.
        running: Running requests, imputed where unknown.
        kv_usage: 0 to 1, imputed where unknown.
        in_flight: Requests that this EPP has sent there and that have not finished.
        max_adapters: Adapter slots.
        used_adapters: Size of the union of running and waiting adapters.
        active_adapters: Adapters with running requests, per row.
        waiting_adapters: Adapters that wait, per row.
        known: At least one scrape succeeded.
        failing: The last scrape failed.
        updated_at: Monotonic seconds of the last good scrape; NaN when there was none.
        due_at: Monotonic seconds by which the next scrape is expected to have finished.
        block_size_tokens: KV block size; 0 when unknown.
        num_blocks: KV blocks; 0 when unknown.
        index: Row of each endpoint key.
        row_of_target: Row of each ``ip:port``.
    """

    generation: int
    endpoints: tuple[Endpoint, ...]
    waiting: Floats
    running: Floats
    kv_usage: Floats
    in_flight: Ints
    max_adapters: Ints
    used_adapters: Ints
    active_adapters: tuple[frozenset[str], ...]
    waiting_adapters: tuple[frozenset[str], ...]
    known: Mask
    failing: Mask
    updated_at: Floats
    due_at: Floats
    block_size_tokens: Ints
    num_blocks: Ints
    index: Mapping[EndpointKey, int]
    row_of_target: Mapping[str, int]
    adapter_rows: dict[tuple[str, bool], Mask] = msgspec.field(default_factory=dict)
    """Memo of ``EndpointTable.has_adapter``; the only thing that grows in here."""


class EndpointTable:
    """A snapshot of the pool at one instant: shared columns and the time it was taken.

    Args:
        columns: Shared, immutable.
        taken_at: Monotonic seconds; ages and staleness are relative to it.
    """

    __slots__ = ("columns", "taken_at")

    def __init__(self, columns: EndpointColumns, taken_at: float) -> None:
        self.columns = columns
        self.taken_at = taken_at

    def __len__(self) -> int:
        return len(self.columns.endpoints)

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """Endpoints in row order."""
        return self.columns.endpoints

    @property
    def waiting(self) -> Floats:
        """Queued requests per row."""
        return self.columns.waiting

    @property
    def running(self) -> Floats:
        """Running requests per row."""
        return self.columns.running

    @property
    def kv_usage(self) -> Floats:
        """Used share of the KV cache per row, 0 to 1."""
        return self.columns.kv_usage

    @property
    def in_flight(self) -> Ints:
        """Our own unfinished requests per row."""
        return self.columns.in_flight

    @property
    def known(self) -> Mask:
        """Rows with at least one good scrape."""
        return self.columns.known

    @property
    def failing(self) -> Mask:
        """Rows whose last scrape failed: last choice, not first."""
        return self.columns.failing

    @property
    def age_seconds(self) -> Floats:
        """Seconds since the last good scrape; NaN where there was none."""
        return self.taken_at - self.columns.updated_at

    @property
    def stale(self) -> Mask:
        """Rows never scraped, failing, or late by more than 200 ms against their own schedule."""
        columns = self.columns
        late = self.taken_at > columns.due_at + STALE_AFTER_SECONDS
        return late | columns.failing | ~columns.known

    def all_rows(self) -> Mask:
        """A fresh mask of every row."""
        return np.ones(len(self.columns.endpoints), dtype=np.bool_)

    def has_adapter(self, adapter: str, *, include_waiting: bool = True) -> Mask:
        """Rows where a LoRA adapter is running (or waiting). Do not write to the result."""
        memo = self.columns.adapter_rows
        mask = memo.get((adapter, include_waiting))
        if mask is None:
            mask = self._adapter_mask(adapter, include_waiting=include_waiting)
            if len(memo) < MAX_ADAPTER_MEMO:
                memo[adapter, include_waiting] = mask
        return mask

    def _adapter_mask(self, adapter: str, *, include_waiting: bool) -> Mask:
        columns = self.columns
        hits = [adapter in names for names in columns.active_adapters]
        mask = np.array(hits, dtype=np.bool_)
        if include_waiting:
            mask |= np.array([adapter in names for names in columns.waiting_adapters], np.bool_)
        return mask

    def mask_of(self, rows: Sequence[int]) -> Mask:
        """Mask with exactly these rows set."""
        mask = np.zeros(len(self.columns.endpoints), dtype=np.bool_)
        mask[list(rows)] = True
        return mask


MAX_ADAPTER_MEMO = 256
"""Adapters remembered per set of columns; more are computed each time."""
