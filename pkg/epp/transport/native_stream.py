"""NativeStream: one gRPC stream of the native transport; sender for its handler.

It is alive until exactly one of these happens, and then tells its handler once: we finish, the
peer or its connection goes away, the handler raises, the deadline passes, the server shuts down.
"""

from collections.abc import Sequence
from typing import Protocol

from epp.logs import get_logger
from epp.transport.grpc_framing import (
    PREFIX_BYTES,
    RESPONSE_HEADERS,
    TRAILERS_ONLY_HEADERS,
    Deframer,
    GrpcError,
    frame,
    metadata_of,
    status_trailers,
)
from epp.transport.http2 import Header, Http2
from epp.transport.limits import TransportLimits
from epp.transport.stats import TransportStats
from epp.transport.stream import CloseReason, Metadata, StatusCode, StreamFactory, StreamHandler

log = get_logger(__name__)

WHOLE = 0
"""Every message that has begun is complete."""

BEGUN = 1
"""The peer owes the rest of a message that it has just begun."""

OWED = 2
"""The peer owes the rest of a message, of which there is more now."""

MORE = 3
"""There are complete messages left."""

ENDED = 4
"""Nothing is owed any more."""


class Cancellable(Protocol):
    """A timer."""

    def cancel(self) -> None:
        """Never fire."""
        ...


class StreamOwner(Protocol):
    """What a stream needs of its connection."""

    @property
    def engine(self) -> Http2:
        """Where answers go."""
        ...

    @property
    def stats(self) -> TransportStats:
        """Counters."""
        ...

    @property
    def limits(self) -> TransportLimits:
        """Limits."""
        ...

    def answered(self) -> None:
        """Something was queued: it must be written at the end of this turn, or now."""
        ...

    def stream_ended(self, stream: "NativeStream") -> None:
        """Nothing more will be asked of the stream."""
        ...

    def held(self, change_bytes: int) -> None:
        """The memory that incomplete requests take changed by this much."""
        ...

    def limit_reached(self, kind: str) -> None:
        """The peer asked for more than a stream may have, or for nonsense."""
        ...

    def refused(self) -> None:
        """An answer is a refusal. Raises Http2Error when there are too many."""
        ...


class NativeStream:
    """One stream.

    What the handler sends during a call leaves when the call returns, in one piece; a call that
    raises has sent nothing.

    Args:
        owner: Its connection.
        stream_id: HTTP/2 stream.
        headers: Of the request; kept until there is a handler.
        deframer: Cuts its body.
    """

    __slots__ = (
        "_calling",
        "_deframer",
        "_handler",
        "_headers",
        "_headers_sent",
        "_held",
        "_outbox",
        "_owner",
        "_status",
        "closed",
        "deadline",
        "peer_is_done",
        "stream_id",
    )

    def __init__(
        self, owner: StreamOwner, stream_id: int, headers: Sequence[Header], deframer: Deframer
    ) -> None:
        self.stream_id = stream_id
        self.closed = False
        self.deadline: Cancellable | None = None
        self.peer_is_done = False
        self._handler: StreamHandler | None = None
        self._owner = owner
        self._headers = headers
        self._deframer = deframer
        self._calling = True
        self._headers_sent = False
        self._held = 0
        self._outbox: list[bytes] = []
        self._status: Sequence[Header] | None = None

    # What the handler calls

    @property
    def metadata(self) -> Metadata:
        """What the peer sent along with the request; for the factory, nothing after it."""
        return metadata_of(self._headers)

    def hold(self, change_bytes: int) -> None:
        """The handler keeps more, or less."""
        if not self.closed:
            self._hold(change_bytes)

    def send(self, payload: bytes) -> None:
        """Send one message, in order. Never blocks."""
        if self._status is not None or self.closed:
            return
        limit = self._owner.limits.max_send_bytes
        if limit is not None and len(payload) > limit:
            self.finish(
                StatusCode.RESOURCE_EXHAUSTED,
                f"an answer of {len(payload)} bytes is larger than {limit}",
            )
            return
        self._outbox.append(frame(payload))
        if not self._calling:
            self._deliver()

    def finish(
        self,
        code: StatusCode = StatusCode.OK,
        details: str = "",
        *,
        metadata: Metadata = (),
    ) -> None:
        """End the stream after everything sent so far. The second call is ignored."""
        if self._status is not None or self.closed:
            return
        self._status = status_trailers(code, details, metadata)
        if not self._calling:
            self._deliver()

    # What the connection calls

    def open(self, factory: StreamFactory) -> None:
        """Make the handler."""
        try:
            self._handler = factory(self)
        except Exception as exc:
            self._fail(exc)
            return
        finally:
            self._headers = ()
        self._calling = False
        if self._outbox or self._status is not None:
            self._deliver()

    def receive(self, data: bytes) -> int:
        """Body bytes of the peer; tell what it owes now.

        Raises:
            Http2Error: Too much was refused, or inflated.
        """
        deframer = self._deframer
        before = deframer.buffered_bytes
        try:
            messages = deframer.feed(data)
        except GrpcError as exc:
            for payload in exc.before:
                self._on_message(payload)
            self._refuse_message(exc)
            return ENDED
        buffered = deframer.buffered_bytes
        if buffered != before:
            self._hold(buffered - before)
        for payload in messages:
            self._on_message(payload)
        if self.closed:
            return ENDED
        if deframer.more:
            return MORE
        if not buffered:
            return WHOLE
        return BEGUN if messages or not before else OWED

    def half_close(self) -> None:
        """The peer will send no more. Raises Http2Error: too much was refused."""
        self.peer_is_done = True
        handler = self._handler
        if self.closed or self._status is not None or handler is None:
            return
        if self._deframer.buffered_bytes:
            self._refuse_message(
                GrpcError(StatusCode.INTERNAL, "the request ends within a message")
            )
            return
        self._calling = True
        try:
            handler.on_half_close()
        except Exception as exc:
            self._fail(exc)
            return
        self._calling = False
        if self._outbox or self._status is not None:
            self._deliver()

    def end(self, reason: CloseReason, status: Sequence[Header] | None = None) -> None:
        """End the stream for another reason than ``finish``; what was not sent is dropped.

        Args:
            reason: For the handler.
            status: For the peer; None when there is no peer any more.
        """
        if self.closed:
            return
        self._outbox.clear()
        if status is not None:
            self._status = status
            self._send_status(status)
            self._owner.answered()
        self._close(reason)

    def _refuse_message(self, error: GrpcError) -> None:
        if self.closed:
            return
        self._owner.stats.refused_messages += 1
        self._owner.limit_reached("message")
        self.end(CloseReason.CANCELLED, status_trailers(error.code, str(error)))
        self._owner.refused()

    def _on_message(self, payload: bytes) -> None:
        handler, stats = self._handler, self._owner.stats
        if self._status is not None or self.closed or handler is None:
            return
        stats.messages_received += 1
        stats.bytes_received += len(payload)
        self._calling = True
        try:
            handler.on_message(payload)
        except Exception as exc:
            self._fail(exc)
            return
        self._calling = False
        if self._outbox or self._status is not None:
            self._deliver()

    def _deliver(self) -> None:
        """Hand everything to the engine, in order, and end the stream if it is finished."""
        if self.closed:
            return
        outbox, engine = self._outbox, self._owner.engine
        if outbox:
            data = outbox[0] if len(outbox) == 1 else b"".join(outbox)
            stats = self._owner.stats
            stats.messages_sent += len(outbox)
            stats.bytes_sent += len(data) - PREFIX_BYTES * len(outbox)
            outbox.clear()
            if not self._headers_sent:
                self._headers_sent = True
                engine.respond(self.stream_id, RESPONSE_HEADERS, end_stream=False)
            engine.send(self.stream_id, data)
        status = self._status
        if status is not None:
            self._send_status(status)
        self._owner.answered()
        if status is not None:
            self._close(CloseReason.FINISHED)

    def _send_status(self, trailers: Sequence[Header]) -> None:
        engine = self._owner.engine
        if self._headers_sent:
            engine.send_trailers(self.stream_id, trailers)
        else:
            engine.respond(self.stream_id, [*TRAILERS_ONLY_HEADERS, *trailers], end_stream=True)

    def _fail(self, error: Exception) -> None:
        log.error("stream handler failed", error=error)
        status = status_trailers(StatusCode.INTERNAL, "internal error")
        self.end(CloseReason.ERROR, status)

    def _hold(self, change_bytes: int) -> None:
        self._held += change_bytes
        self._owner.held(change_bytes)

    def _close(self, reason: CloseReason) -> None:
        self.closed = True
        if self.deadline is not None:
            self.deadline.cancel()
            self.deadline = None
        if self._held:
            self._owner.held(-self._held)
        self._deframer = _DONE
        self._owner.stream_ended(self)
        handler, self._handler = self._handler, None
        if handler is None:
            return
        try:
            handler.on_closed(reason)
        except Exception as error:  # nobody is left to answer to
            log.error("stream handler failed while closing", error=error)


_DONE = Deframer(0)
"""Stands in for the deframer of a stream that is over, to let its buffer go."""
