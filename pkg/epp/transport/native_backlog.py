"""What waits for its turn, and what it weighs meanwhile."""

from dataclasses import dataclass

from epp.transport.http2 import DataReceived, Event, RequestReceived, TrailersReceived

EVENT_BYTES = 256
"""What an event takes besides its content."""

HEADER_BYTES = 128
"""What a header field takes besides its content."""


@dataclass(slots=True)
class Rest:
    """Messages of a stream that have arrived and did not fit into a turn.

    Attributes:
        stream_id: Of the stream, which has them.
        end_stream: The peer's side of the stream ends behind them.
        data: Nothing new.
    """

    stream_id: int
    end_stream: bool
    data: bytes = b""


@dataclass(slots=True)
class Stalled:
    """A stream that had made no progress when it was looked after.

    Attributes:
        stream_id: Of the stream.
        limit: It is stalled if it has made none since then.
    """

    stream_id: int
    limit: float


Waiting = Event | Rest | Stalled


def weight(event: Waiting) -> int:
    """Bytes that an event keeps; our own are nothing beside what they are about."""
    if isinstance(event, DataReceived):
        return EVENT_BYTES + len(event.data)
    if isinstance(event, RequestReceived | TrailersReceived):
        fields = event.headers
        return EVENT_BYTES + sum(len(n) + len(v) + HEADER_BYTES for n, v in fields)
    return EVENT_BYTES if isinstance(event, Event) else 0
