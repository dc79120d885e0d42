"""Deframers of streams whose messages may be compressed."""

from collections.abc import Callable

from epp.transport.grpc_framing import Deframer
from epp.transport.http2 import Http2Error
from epp.transport.limits import TokenBucket, TransportLimits
from epp.transport.native_stream import MESSAGES_AT_ONCE


def inflating_deframer(
    limits: TransportLimits, bucket: TokenBucket, clock: Callable[[], float]
) -> Deframer:
    """Make one; what it inflates is taken from the bucket, and Http2Error raised at its end."""

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
