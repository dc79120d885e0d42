"""The seam between gRPC servers and what they serve: bytes in, bytes out, synchronously.

A transport owns connections and framing. For every stream it asks the service registered under
the request path for a ``StreamHandler`` and then calls it, from the event loop, never
concurrently for one stream:

``on_message`` zero or more times, at most one ``on_half_close``, and **exactly one**
``on_closed`` as the last call, whatever happened. Answers go through the ``StreamSender`` given
at creation; they may be sent from inside a call or later (a request that had to wait).
After ``on_closed`` or ``finish`` a ``send`` is ignored.

A handler that raises ends its stream with INTERNAL; one that keeps what it was given (a body that
is not complete) says so with ``hold``, so that a connection's memory has a bound.

No domain words here: a message is the payload of one gRPC message.
"""

from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Protocol


class CloseReason(Enum):
    """Why a stream ended."""

    FINISHED = "finished"  # our own finish(), after or before the peer's half-close
    CANCELLED = "cancelled"  # reset or cancelled by the peer, or its connection went away
    ERROR = "error"  # a handler raised; the transport answered INTERNAL
    SHUTDOWN = "shutdown"  # we are going away


class StatusCode(Enum):
    """gRPC status codes that we use."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    RESOURCE_EXHAUSTED = 8
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14


Metadata = Sequence[tuple[str, str | bytes]]
"""Names in lower case; a name that ends in ``-bin`` has bytes, any other text."""


class StreamSender(Protocol):
    """Our side of one stream."""

    @property
    def metadata(self) -> Metadata:
        """What the peer sent along with the request; for the factory, later it may be gone."""
        ...

    def hold(self, change_bytes: int) -> None:
        """Say that the handler keeps this many bytes more (or, negative, fewer) than before."""
        ...

    def send(self, payload: bytes) -> None:
        """Send one message, in order. Never blocks."""
        ...

    def finish(
        self,
        code: StatusCode = StatusCode.OK,
        details: str = "",
        *,
        metadata: Metadata = (),
    ) -> None:
        """End the stream after everything sent so far. The second call is ignored.

        The metadata goes with the status, in the trailers.
        """
        ...


class StreamHandler(Protocol):
    """What serves one stream."""

    def on_message(self, payload: bytes) -> None:
        """Handle one message of the peer."""
        ...

    def on_half_close(self) -> None:
        """The peer will send no more. The stream stays open until ``finish``."""
        ...

    def on_closed(self, reason: CloseReason) -> None:
        """Release everything; called exactly once."""
        ...


StreamFactory = Callable[[StreamSender], StreamHandler]
Services = Mapping[str, StreamFactory]
"""Full method path (``/package.Service/Method``) to factory."""


class Transport(Protocol):
    """A listening gRPC server."""

    async def start(self) -> int:
        """Bind and serve; return the port (useful with port 0). Raises TransportError."""
        ...

    def announce_shutdown(self) -> None:
        """Ask peers to open their next streams elsewhere, where that can be said; serve on.

        Who connects afterwards is asked by the next call.
        """
        ...

    async def stop(self, grace_seconds: float) -> None:
        """Refuse new streams, let open ones finish for at most the grace time, then end."""
        ...

    @property
    def open_streams(self) -> int:
        """Streams open right now."""
        ...
