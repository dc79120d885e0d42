"""What the streams of a connection are cut with, where that is bounded per connection."""

from collections.abc import Callable

from epp.transport.grpc_framing import Deframer
from epp.transport.http2 import Http2Error
from epp.transport.limits import TokenBucket, TransportLimits

MESSAGES_AT_ONCE = 16
"""Served of one stream before it is time to look at the clock."""


def inflating_deframer(
    limits: TransportLimits, bucket: TokenBucket, clock: Callable[[], float]
) -> Deframer:
    """Make the deframer of a stream whose messages may be compressed.

    Args:
        limits: Of the connection.
        bucket: What the connection may still have inflated; Http2Error is raised at its end.
        clock: Monotonic seconds.
    """

    def take(amount: int) -> None:
        if not bucket.take(clock(), amount):
            raise Http2Error.flood("compressed bytes")

    return Deframer(
        limits.max_message_bytes,
        gzip=True,
        max_inflated_bytes=limits.max_inflated_bytes,
        on_inflated=take,
        at_once=MESSAGES_AT_ONCE,
    )
