"""In-flight accounting: which routed requests have not finished, per endpoint.

A routing is counted once when it is made and uncounted once, whatever ends it and however often
its end is reported. An endpoint that leaves takes its count along: when one of the same name comes
back, the ends of requests to the old one do not count against the new one. Owned by the director.
"""

from epp.backend.endpoint_rows import EndpointRows
from epp.backend.live_columns import EndpointRow
from epp.requestcontrol.types import RoutingDecision


class InFlight:
    """Open routings, by identity.

    Args:
        rows: Where the per-endpoint counts are kept.
    """

    def __init__(self, rows: EndpointRows) -> None:
        self._rows = rows
        self._open: dict[int, tuple[RoutingDecision, EndpointRow | None]] = {}

    def __len__(self) -> int:
        """Routed requests that have not finished."""
        return len(self._open)

    def begin(self, routing: RoutingDecision) -> None:
        """Count a routing."""
        key = routing.endpoint.key
        self._open[id(routing)] = (routing, self._rows.get(key))
        self._rows.add_in_flight(key, 1)

    def end(self, routing: RoutingDecision) -> bool:
        """Uncount a routing; False when that has been done before."""
        opened = self._open.pop(id(routing), None)
        if opened is None:
            return False
        key = routing.endpoint.key
        if opened[1] is self._rows.get(key):
            self._rows.add_in_flight(key, -1)
        return True
