"""What an event weighs while it waits for its turn."""

from epp.transport.http2 import DataReceived, Event, RequestReceived, TrailersReceived

EVENT_BYTES = 256
"""What an event takes besides its content."""

HEADER_BYTES = 128
"""What a header field takes besides its content."""


def weight(event: Event) -> int:
    """Bytes that an event keeps."""
    if isinstance(event, DataReceived):
        return EVENT_BYTES + len(event.data)
    if isinstance(event, RequestReceived | TrailersReceived):
        fields = event.headers
        return EVENT_BYTES + sum(len(n) + len(v) + HEADER_BYTES for n, v in fields)
    return EVENT_BYTES
