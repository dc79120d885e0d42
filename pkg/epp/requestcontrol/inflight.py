"""In-flight accounting: which routed requests have not finished, per server.

A routing is counted once when it is made and uncounted once, whatever ends it and however often
its end is reported. Counts belong to servers, not to rows of the table: an endpoint that comes back
under the same key and the same address is the same server, was unready for a moment, and still
runs what it was given; under another address it is a new pod, which runs nothing of the old one's.
Owned by the director.
"""

from epp.backend.endpoint import Endpoint, EndpointKey
from epp.backend.endpoint_rows import EndpointRows
from epp.requestcontrol.types import RoutingDecision


class InFlight:
    """Open routings, by identity, and their number per server.

    Args:
        rows: Where the counts of present endpoints are shown; asks here whenever an endpoint comes
            or changes its address.
    """

    def __init__(self, rows: EndpointRows) -> None:
        self._rows = rows
        self._open: dict[int, RoutingDecision] = {}
        self._counts: dict[tuple[EndpointKey, str], int] = {}
        rows.count_in_flight_with(self.count)

    def __len__(self) -> int:
        """Routed requests that have not finished."""
        return len(self._open)

    def count(self, endpoint: Endpoint) -> int:
        """Requests that this server has not finished."""
        return self._counts.get((endpoint.key, endpoint.target), 0)

    def begin(self, routing: RoutingDecision) -> None:
        """Count a routing."""
        self._open[id(routing)] = routing
        self._add(routing.endpoint, 1)

    def end(self, routing: RoutingDecision) -> bool:
        """Uncount a routing; False when that has been done before."""
        if self._open.pop(id(routing), None) is None:
            return False
        self._add(routing.endpoint, -1)
        return True

    def _add(self, endpoint: Endpoint, delta: int) -> None:
        server = (endpoint.key, endpoint.target)
        count = self._counts.get(server, 0) + delta
        if count:
            self._counts[server] = count
        else:
            del self._counts[server]
        row = self._rows.get(endpoint.key)
        if row is not None and row.endpoint.target == endpoint.target:
            self._rows.add_in_flight(endpoint.key, delta)
