"""In-flight accounting: which routed requests have not finished, per endpoint.

A routing is counted once when it is made and uncounted once, whatever ends it and however often
its end is reported. Owned by the director.
"""

from epp.backend.endpoint_rows import EndpointRows
from epp.requestcontrol.types import RoutingDecision


class InFlight:
    """Open routings, by identity.

    Args:
        rows: Where the per-endpoint counts are kept.
    """

    def __init__(self, rows: EndpointRows) -> None:
        self._rows = rows
        self._open: dict[int, RoutingDecision] = {}

    def __len__(self) -> int:
        """Routed requests that have not finished."""
        return len(self._open)

    def begin(self, routing: RoutingDecision) -> None:
        """Count a routing."""
        self._open[id(routing)] = routing
        self._rows.add_in_flight(routing.endpoint.key, 1)

    def end(self, routing: RoutingDecision) -> bool:
        """Uncount a routing; False when that has been done before."""
        if self._open.pop(id(routing), None) is None:
            return False
        self._rows.add_in_flight(routing.endpoint.key, -1)
        return True
