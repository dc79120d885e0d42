"""How streams end that do not end by themselves, as their peers are told."""

from epp.transport.grpc_framing import status_trailers
from epp.transport.stream import StatusCode

UNAVAILABLE = status_trailers(StatusCode.UNAVAILABLE, "the server is shutting down")
STALLED = status_trailers(StatusCode.DEADLINE_EXCEEDED, "the request makes no progress")
LATE = status_trailers(StatusCode.DEADLINE_EXCEEDED, "the deadline has passed")
TOO_MUCH = status_trailers(
    StatusCode.RESOURCE_EXHAUSTED, "the requests of this connection take too much memory"
)
