"""EndpointRows: the one mutable copy of what is known of every endpoint.

Written by three parties on the one event loop: the datastore (endpoints come and go), the
collector (scrapes), request control (in-flight counts). Read by everyone through ``snapshot``.
Rows stay sorted by endpoint key.

Only a change of the set of endpoints builds the columns anew (``live_columns``).
"""

from collections.abc import Callable, Iterable

from epp.backend.endpoint import Endpoint, EndpointKey
from epp.backend.endpoint_table import EndpointColumns, EndpointTable
from epp.backend.live_columns import EndpointRow, LiveColumns
from epp.backend.metrics_state import MetricsState


class EndpointRows:
    """Rows by endpoint key, and snapshots of them as tables."""

    def __init__(self) -> None:
        self._rows: dict[EndpointKey, EndpointRow] = {}
        self._generation = 0
        self._live: LiveColumns | None = None
        self._columns: EndpointColumns | None = None
        self._in_flight_of: Callable[[Endpoint], int] | None = None

    def count_in_flight_with(self, count: Callable[[Endpoint], int]) -> None:
        """Ask for the in-flight count of every endpoint that comes, or changes its address.

        Without it an endpoint that comes starts at 0, and one that moves keeps its count.
        """
        self._in_flight_of = count

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
        moved = row is None or row.endpoint.target != endpoint.target
        in_flight = self._in_flight_of(endpoint) if moved and self._in_flight_of else None
        if row is None:
            self._rows[endpoint.key] = EndpointRow(endpoint, in_flight=in_flight or 0)
            self._rows = dict(sorted(self._rows.items()))
        elif row.endpoint == endpoint:
            return False
        else:
            row.endpoint = endpoint
            row.in_flight = row.in_flight if in_flight is None else in_flight
        self._endpoints_changed()
        return row is None

    def remove(self, key: EndpointKey) -> bool:
        """Forget an endpoint. Removing twice is harmless."""
        if self._rows.pop(key, None) is None:
            return False
        self._endpoints_changed()
        return True

    def publish(self, key: EndpointKey, state: MetricsState, *, now: float, due_at: float) -> None:
        """Store a good scrape. Ignored when the endpoint is gone."""
        row = self._rows.get(key)
        if row is None:
            return
        row.state, row.known, row.failing = state, True, False
        row.updated_at, row.due_at = now, due_at
        self._scrape_changed(key, row)

    def fail(self, key: EndpointKey, *, due_at: float) -> None:
        """Note that a scrape failed: old values stay, the row becomes last choice."""
        row = self._rows.get(key)
        if row is None:
            return
        row.failing, row.due_at = True, due_at
        self._scrape_changed(key, row)

    def reschedule(self, key: EndpointKey, *, due_at: float) -> None:
        """Tell when the next scrape is due, e.g. after its interval changed."""
        row = self._rows.get(key)
        if row is None or row.due_at == due_at:
            return
        row.due_at = due_at
        self._scrape_changed(key, row)

    def add_in_flight(self, key: EndpointKey, delta: int) -> None:
        """Count a request that was sent to an endpoint (+1) or finished (-1)."""
        row = self._rows.get(key)
        if row is None:
            return
        row.in_flight = max(0, row.in_flight + delta)
        if self._live is not None:
            self._live.write_in_flight(key, row.in_flight)
            self._columns = None

    def snapshot(self, now: float) -> EndpointTable:
        """The pool as it is now (monotonic seconds)."""
        if self._columns is None:
            if self._live is None:
                self._live = LiveColumns(self._generation, list(self._rows.values()))
            self._columns = self._live.freeze()
        return EndpointTable(self._columns, now)

    def _endpoints_changed(self) -> None:
        self._generation += 1
        self._live = None
        self._columns = None

    def _scrape_changed(self, key: EndpointKey, row: EndpointRow) -> None:
        if self._live is not None:
            self._live.write_scrape(key, row)
            self._columns = None
