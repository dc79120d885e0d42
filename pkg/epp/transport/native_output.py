"""Output: what leaves a connection, and what waits until it has left."""

from collections.abc import Callable

from epp.transport.http2 import NO_ERROR, Http2
from epp.transport.stats import TransportStats


class Output:
    """The way out of one engine.

    Args:
        engine: Has what is to be sent.
        stats: Counts the time for which the peer's windows keep it back.
        clock: Monotonic seconds.
    """

    __slots__ = ("_blocked_since", "_clock", "_engine", "_stats", "_to_reset")

    def __init__(self, engine: Http2, stats: TransportStats, clock: Callable[[], float]) -> None:
        self._engine = engine
        self._stats = stats
        self._clock = clock
        self._to_reset: list[int] = []
        self._blocked_since: float | None = None

    def take(self, amount: int) -> bytes:
        """Bytes for the peer, at most so many; empty when there are none now."""
        engine = self._engine
        data = engine.data_to_send(amount)
        if data or not (self._to_reset or self._blocked_since or engine.queued_bytes()):
            return data
        if engine.queued_bytes():
            if self._blocked_since is None:
                self._blocked_since = self._clock()
            return data
        self.unblock()
        for stream_id in self._to_reset:
            engine.reset(stream_id, NO_ERROR)
        self._to_reset.clear()
        return engine.data_to_send(amount)

    def reset_later(self, stream_id: int) -> None:
        """Reset an answered stream once everything has been sent."""
        self._to_reset.append(stream_id)

    def unblock(self) -> None:
        """Nothing is kept back any more."""
        if self._blocked_since is not None:
            self._stats.blocked_seconds += self._clock() - self._blocked_since
            self._blocked_since = None
