"""Ending: all streams of a connection end for one reason, a turn at a time."""

from collections.abc import Callable, Iterable, Sequence

from epp.transport.http2 import Header
from epp.transport.native_stream import NativeStream
from epp.transport.stream import CloseReason

_CLOCK_EVERY = 4
"""Streams between two looks at the clock."""


class Ending:
    """Streams that wait for their end, in the order in which they were opened.

    Args:
        streams: All of them.
        reason: For their handlers.
        status: For the peer; None when there is no peer any more.
        clock: Monotonic seconds.
    """

    __slots__ = ("_clock", "_reason", "_status", "_streams")

    def __init__(
        self,
        streams: Iterable[NativeStream],
        reason: CloseReason,
        status: Sequence[Header] | None,
        clock: Callable[[], float],
    ) -> None:
        self._streams = list(streams)
        self._streams.reverse()
        self._reason = reason
        self._status = status
        self._clock = clock

    def run(self, until: float) -> bool:
        """End streams until then; tell whether these were the last ones. Never raises."""
        streams, count = self._streams, 0
        while streams:
            streams.pop().end(self._reason, self._status)
            count += 1
            if not count % _CLOCK_EVERY and self._clock() > until:
                break
        return not streams
