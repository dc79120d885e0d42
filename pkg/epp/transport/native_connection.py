"""NativeConnection: the gRPC streams of one HTTP/2 connection, sans-I/O.

Bytes in (``receive``), work (``work``), bytes out (``output``); the asyncio side is in
``native_protocol``. Everything runs on one event loop.

How pressure works. The engine takes in whatever arrives, so that window updates and resets always
count; what it makes of it waits in the backlog until there is time (a turn is bounded) and room
(the peer takes its answers). Windows open again only for data that was dealt with, so a backlog
has a bound, and a peer that does not read stops being served, not being heard. Whatever makes
room again (the peer reads, a handler lets go) ends in ``flush``, after which ``ready`` says whether
to go on.

Invariant: a stream is in ``_streams`` from its request until its handler was told the end.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from epp.logs import get_logger
from epp.transport.grpc_framing import (
    TRAILERS_ONLY_HEADERS,
    UNSUPPORTED_MEDIA_TYPE,
    UNSUPPORTED_MEDIA_TYPE_BODY,
    Deframer,
    GrpcError,
    check_size,
    parse_head,
    status_trailers,
)
from epp.transport.http2 import (
    CANCEL,
    NO_ERROR,
    NOTICE_PING,
    DataReceived,
    Event,
    GoAwayReceived,
    Header,
    Http2,
    Http2Error,
    PingAcknowledged,
    PingReceived,
    PriorityUpdateReceived,
    RequestReceived,
    SettingsReceived,
    StreamClosed,
    StreamReset,
    TrailersReceived,
    WindowUpdated,
)
from epp.transport.limits import Meters, TransportLimits
from epp.transport.native_backlog import weight
from epp.transport.native_status import LATE, STALLED, TOO_MUCH, UNAVAILABLE
from epp.transport.native_stream import Cancellable, NativeStream
from epp.transport.stats import TransportStats
from epp.transport.stream import CloseReason, Services, StatusCode

log = get_logger(__name__)

_CLOCK_EVERY = 4
"""Events between two looks at the clock."""


class NativeConnection:
    """Streams and their handlers.

    Args:
        services: Factory of handlers by method path.
        limits: What the peer may use.
        stats: Counters of the server.
        clock: Monotonic seconds.
        call_later: Starts a timer, for deadlines.
        flush: Called when there is something to write, or room again, outside of ``work``.
        complain: Called with what a peer did wrong when that ends a stream.

    Attributes:
        unsent_bytes: What the transport has not got rid of; its owner keeps it up to date.
        answered_pings: Answers to our pings.
        greeted: The peer has shown that it speaks HTTP/2.
        notice_heard: The peer knows that we are shutting down.
        used_at: When the connection was made or its latest stream ended.
    """

    def __init__(
        self,
        services: Services,
        limits: TransportLimits,
        stats: TransportStats,
        *,
        clock: Callable[[], float],
        call_later: Callable[[float, Callable[[], None]], Cancellable],
        flush: Callable[[], None],
        complain: Callable[[str], None],
    ) -> None:
        self.engine = Http2(limits)
        self.limits = limits
        self.stats = stats
        self.unsent_bytes = 0
        self.answered_pings = 0
        self.greeted = False
        self.notice_heard = False
        self._services = services
        self._clock = clock
        self._call_later = call_later
        self._flush = flush
        self._complain = complain
        self._streams: dict[int, NativeStream] = {}
        self._incomplete: dict[int, float] = {}
        self._to_reset: list[int] = []
        self._now = 0.0
        self._backlog: deque[Event] = deque()
        self._backlog_bytes = 0
        self._held_bytes = 0
        self._working = False
        self._last_stream_id = 0
        self._blocked_since: float | None = None
        self.used_at = now = clock()
        self._meters = Meters(limits, now)
        self._handlers: dict[type[Event], Callable[[Any], None]] = {
            RequestReceived: self._on_request,
            DataReceived: self._on_data,
            TrailersReceived: self._on_trailers,
            StreamReset: self._on_reset,
            StreamClosed: self._on_closed,
            PingReceived: self._on_control_frame,
            SettingsReceived: self._on_settings,
            GoAwayReceived: self._on_control_frame,
            PriorityUpdateReceived: self._on_control_frame,
            WindowUpdated: self._on_window_update,
            PingAcknowledged: self._on_ping_acknowledged,
        }

    @property
    def open_streams(self) -> int:
        """Streams whose handlers have not been told the end."""
        return len(self._streams)

    @property
    def quiet(self) -> bool:
        """No stream is open and nothing waits to be sent."""
        return not self._streams and not self._backlog and not self.engine.queued_bytes()

    @property
    def last_stream_id(self) -> int:
        """The latest stream that the peer opened."""
        return self._last_stream_id

    @property
    def overfull(self) -> bool:
        """More waits than should: the socket is not to be read."""
        return self._backlog_bytes > self.limits.max_backlog_bytes

    @property
    def pending_bytes(self) -> int:
        """What we keep for the peer: answers that it has not taken, and unfinished requests."""
        return self.engine.queued_bytes() + self.unsent_bytes + self._held_bytes

    @property
    def crowded(self) -> bool:
        """The peer does not take its answers."""
        return self.pending_bytes > self.limits.max_connection_bytes

    @property
    def ready(self) -> bool:
        """Something waits that can be dealt with now."""
        return bool(self._backlog) and not self.crowded

    def receive(self, data: bytes) -> None:
        """Take in what the peer sent; ``work`` deals with it. Raises Http2Error."""
        events = self.engine.receive(data)
        if self._backlog:
            self._backlog_bytes += sum(map(weight, events))
        self._backlog.extend(events)

    def work(self) -> None:
        """Deal with what waits, for the length of a turn, as long as there is room.

        Raises:
            Http2Error: The peer asks for too much.
        """
        backlog, clock, handlers = self._backlog, self._clock, self._handlers
        if not backlog:
            return
        self._now = clock()
        until = self._now + self.limits.turn_seconds
        weighed = bool(self._backlog_bytes)
        self._working = True
        try:
            count = 0
            while backlog and not self.crowded:
                count += 1
                if not count % _CLOCK_EVERY and clock() > until:
                    break
                event = backlog.popleft()
                if weighed:
                    self._backlog_bytes -= weight(event)
                handle = handlers.get(type(event))
                if handle is not None:
                    handle(event)
        finally:
            self._working = False
        if backlog and not weighed:  # only what has to wait is weighed
            self._backlog_bytes = sum(map(weight, backlog))

    def output(self, amount: int) -> bytes:
        """Bytes for the peer, at most so many; empty when there are none now."""
        engine = self.engine
        data = engine.data_to_send(amount)
        if data or not (self._to_reset or self._blocked_since or engine.queued_bytes()):
            return data
        if engine.queued_bytes():
            if self._blocked_since is None:
                self._blocked_since = self._clock()
            return data
        self._unblock()
        for stream_id in self._to_reset:
            engine.reset(stream_id, NO_ERROR)
        self._to_reset.clear()
        return engine.data_to_send(amount)

    def sweep(self) -> None:
        """End streams that have made no progress for too long."""
        if self.crowded:  # what they wait for may have arrived
            return
        self._now = self._clock()
        limit = self._now - self.limits.stalled_stream_seconds
        stalled = [stream_id for stream_id, since in self._incomplete.items() if since < limit]
        for stream_id in stalled:
            del self._incomplete[stream_id]
            stream = self._streams.get(stream_id)
            if stream is None:
                self.engine.reset(stream_id, CANCEL)
            else:
                self.limit_reached("stalled stream")
                stream.end(CloseReason.CANCELLED, STALLED)

    def shut_down(self) -> None:
        """End every stream with UNAVAILABLE: the server goes away."""
        self._end_all(CloseReason.SHUTDOWN, UNAVAILABLE)

    def lost(self) -> None:
        """The connection is gone, and every stream with it."""
        self._backlog.clear()
        self._backlog_bytes = 0
        self._unblock()
        self._end_all(CloseReason.CANCELLED, None)

    def release(self) -> None:
        """Let go of the owner, as the last call: without a cycle, memory is freed at once."""
        self._handlers.clear()
        self._flush = _do_nothing
        self._complain = _do_nothing

    # What a stream calls

    def answered(self) -> None:
        """Something was queued: written at the end of this turn, or now."""
        if not self._working:
            self._flush()

    def stream_ended(self, stream: NativeStream) -> None:
        """Nothing more will be asked of the stream; its peer still owes the end of its side."""
        if self._streams.pop(stream.stream_id, None) is None:
            return
        self.used_at = now = self._now if self._working else self._clock()
        if stream.peer_is_done:
            self._incomplete.pop(stream.stream_id, None)
        else:
            self._incomplete[stream.stream_id] = now

    def held(self, change_bytes: int) -> None:
        """The memory that incomplete requests take changed by this much."""
        self._held_bytes += change_bytes
        if change_bytes < 0 and self._backlog and not self._working:
            self._flush()

    def limit_reached(self, kind: str) -> None:
        """Count what ended a stream, and say so once per connection."""
        self.stats.errors[kind] += 1
        self._complain(kind)

    # What the peer did

    def _on_request(self, event: RequestReceived) -> None:
        stream_id = self._last_stream_id = event.stream_id
        self.stats.streams += 1
        limits = self.limits
        try:
            check_size(event.headers, limits.max_header_bytes, limits.max_header_count)
            head = parse_head(event.headers)
        except GrpcError as exc:
            if exc.code is StatusCode.RESOURCE_EXHAUSTED:
                self.limit_reached("headers")
            self._refuse(stream_id, status_trailers(exc.code, str(exc)))
            return
        if head is None:
            self.engine.respond(stream_id, UNSUPPORTED_MEDIA_TYPE, end_stream=False)
            self.engine.send(stream_id, UNSUPPORTED_MEDIA_TYPE_BODY, end_stream=True)
            self._leave(stream_id)
            return
        factory = self._services.get(head.path)
        if factory is None:
            what = f"no method {head.path[:200]!r} here"
            self._refuse(stream_id, status_trailers(StatusCode.UNIMPLEMENTED, what))
            return
        deframer = Deframer(limits.max_message_bytes, gzip=head.gzip)
        stream = NativeStream(self, stream_id, event.headers, deframer)
        self._streams[stream_id] = stream
        self._incomplete[stream_id] = self._now
        if head.timeout_seconds is not None:
            stream.deadline = self._call_later(
                head.timeout_seconds, lambda: stream.end(CloseReason.CANCELLED, LATE)
            )
        stream.open(factory)
        if event.end_stream:
            stream.half_close()

    def _on_data(self, event: DataReceived) -> None:
        stream_id, data = event.stream_id, event.data
        stream = self._streams.get(stream_id)
        if data:
            if stream is not None:
                stream.receive(data)
                if stream.waits_for_peer:
                    self._incomplete[stream_id] = self._now
                elif not stream.closed:
                    self._incomplete.pop(stream_id, None)
                if self._held_bytes > self.limits.max_connection_bytes:
                    self._refuse_more(stream)
            self.engine.acknowledge(stream_id, len(data))
        elif not event.end_stream and not self._meters.empty_frames.take(self._now):
            raise Http2Error.flood("empty frames")
        if event.end_stream:
            self._on_half_close(stream_id)

    def _on_trailers(self, event: TrailersReceived) -> None:
        self._on_half_close(event.stream_id)

    def _on_half_close(self, stream_id: int) -> None:
        self._incomplete.pop(stream_id, None)
        stream = self._streams.get(stream_id)
        if stream is not None:
            stream.half_close()

    def _on_reset(self, _event: StreamReset) -> None:
        self.stats.resets += 1
        if not self._meters.resets.take(self._now):
            raise Http2Error.flood("resets")

    def _on_closed(self, event: StreamClosed) -> None:
        stream_id = event.stream_id
        stream = self._streams.get(stream_id)
        if stream is not None:
            stream.end(CloseReason.CANCELLED)
        self._incomplete.pop(stream_id, None)

    def _on_control_frame(self, _event: Event) -> None:
        if not self._meters.control_frames.take(self._now):
            raise Http2Error.flood("control frames")

    def _on_settings(self, event: SettingsReceived) -> None:
        self.greeted = True
        self._on_control_frame(event)

    def _on_window_update(self, _event: WindowUpdated) -> None:
        if not self._meters.window_updates.take(self._now):
            raise Http2Error.flood("WINDOW_UPDATE frames")

    def _on_ping_acknowledged(self, event: PingAcknowledged) -> None:
        self.answered_pings += 1
        if event.opaque_data == NOTICE_PING:
            self.notice_heard = True
        self._on_control_frame(event)

    def _refuse(self, stream_id: int, trailers: Sequence[Header]) -> None:
        self.engine.respond(stream_id, [*TRAILERS_ONLY_HEADERS, *trailers], end_stream=True)
        self._leave(stream_id)

    def _leave(self, stream_id: int) -> None:
        """Reset an answered stream without a handler once its answer is out, or at a sweep."""
        self._to_reset.append(stream_id)
        self._incomplete[stream_id] = self._now

    def _refuse_more(self, stream: NativeStream) -> None:
        self.limit_reached("too much memory")
        stream.end(CloseReason.CANCELLED, TOO_MUCH)

    def _end_all(self, reason: CloseReason, status: Sequence[Header] | None) -> None:
        self._now = self._clock()
        for stream in list(self._streams.values()):
            stream.end(reason, status)

    def _unblock(self) -> None:
        if self._blocked_since is not None:
            self.stats.blocked_seconds += self._clock() - self._blocked_since
            self._blocked_since = None


def _do_nothing(*_: object) -> None:
    """Stand in for an owner that is gone."""
