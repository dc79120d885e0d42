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
    DataReceived,
    Header,
    Http2,
    Http2Error,
    RequestReceived,
    StreamClosed,
    StreamReset,
    TrailersReceived,
)
from epp.transport.limits import Meters, TransportLimits
from epp.transport.native_backlog import Rest, Stalled, Waiting, weight
from epp.transport.native_control import ControlFrames
from epp.transport.native_deframers import MESSAGES_AT_ONCE, inflating_deframer
from epp.transport.native_ending import Ending
from epp.transport.native_output import Output
from epp.transport.native_status import LATE, STALLED, TOO_MUCH, UNAVAILABLE
from epp.transport.native_stream import BEGUN, ENDED, MORE, OWED, Cancellable, NativeStream
from epp.transport.stats import TransportStats
from epp.transport.stream import CloseReason, Services, StatusCode

_CLOCK_EVERY = 4
"""Events between two looks at the clock."""

_OUR_RESETS = frozenset({NO_ERROR, CANCEL})
"""The codes with which we end streams; the engine has others for what it finds."""


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
        wary: The peer has sent headers that were refused.
        control: What the peer has said about the connection itself.
        output: Called with a number, returns so many bytes for the peer, or what there is.
        last_stream_id: The latest stream that the peer opened.
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
        self.wary = False
        self._services = services
        self._clock = clock
        self._call_later = call_later
        self._flush = flush
        self._complain = complain
        self._streams: dict[int, NativeStream] = {}
        self._incomplete: dict[int, float] = {}
        self._now = 0.0
        self._backlog: deque[Waiting] = deque()
        self._backlog_bytes = 0
        self._held_bytes = 0
        self._working = False
        self.last_stream_id = 0
        self._reset_id = 0
        self._ending: Ending | None = None
        self._output = Output(self.engine, stats, clock)
        self.output = self._output.take
        self.used_at = now = clock()
        self._meters = Meters(limits, now)
        self.control = ControlFrames(self._meters, clock)
        self._handlers: dict[type[Any], Callable[[Any], bool | None]] = {
            RequestReceived: self._on_request,
            DataReceived: self._on_data,
            Rest: self._on_data,
            TrailersReceived: lambda event: self._on_half_close(event.stream_id),
            StreamReset: self._on_reset,
            StreamClosed: self._on_closed,
            Stalled: self._on_stalled,
            **self.control.handlers,
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
        queued, most = self.engine.queued_bytes, self.limits.max_connection_bytes
        self._now = clock()
        until = self._now + self.limits.turn_seconds
        weighed = bool(self._backlog_bytes)
        self._working = True
        try:
            count = 0
            while backlog and queued() + self.unsent_bytes + self._held_bytes <= most:
                count += 1
                if not count % _CLOCK_EVERY and clock() > until:
                    break
                event = backlog.popleft()
                if weighed:
                    self._backlog_bytes -= weight(event)
                handle = handlers.get(type(event))
                if handle is not None and handle(event) and clock() > until:
                    break
        finally:
            self._working = False
        if backlog and not weighed:  # only what has to wait is weighed
            self._backlog_bytes = sum(map(weight, backlog))

    def sweep(self) -> None:
        """Find streams that have made no progress for too long; ``work`` ends them."""
        if self.crowded:  # what they wait for may have arrived
            return
        limit = self._clock() - self.limits.stalled_stream_seconds
        stalled = [stream_id for stream_id, since in self._incomplete.items() if since < limit]
        self._backlog.extend(Stalled(stream_id, limit) for stream_id in stalled)

    def shut_down(self) -> None:
        """End every stream with UNAVAILABLE: the server goes away. Nothing else is dealt with."""
        self._end_all(CloseReason.SHUTDOWN, UNAVAILABLE)

    def lost(self) -> None:
        """The connection is gone, and every stream with it."""
        self._output.unblock()
        self._end_all(CloseReason.CANCELLED, None)

    @property
    def ending(self) -> bool:
        """Streams wait to be told of the end: ``go_on_ending``."""
        return self._ending is not None

    def go_on_ending(self) -> None:
        """End more streams, for the length of a turn."""
        self._now = self._clock()
        self._working = True
        if self._ending is not None and self._ending.run(self._now + self.limits.turn_seconds):
            self._ending = None
        self._working = False

    def release(self) -> None:
        """Let go of the owner, as the last call: without a cycle, memory is freed at once."""
        self._handlers.clear()
        self.control.release()
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

    def refused(self) -> None:
        """An answer is a refusal. Raises Http2Error when there are too many."""
        if not self._meters.refusals.take(self._now):
            raise Http2Error.flood("refused requests")

    # What the peer did

    def _on_request(self, event: RequestReceived) -> None:
        stream_id = self.last_stream_id = event.stream_id
        self.stats.streams += 1
        limits = self.limits
        try:
            check_size(event.headers, limits.max_header_bytes, limits.max_header_count)
            head = parse_head(event.headers)
        except GrpcError as exc:
            if exc.code is StatusCode.RESOURCE_EXHAUSTED:
                self.wary = True
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
        if head.gzip:
            deframer = inflating_deframer(limits, self._meters.inflated, self._clock)
        else:
            deframer = Deframer(limits.max_message_bytes, at_once=MESSAGES_AT_ONCE)
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

    def _on_data(self, event: DataReceived | Rest) -> bool:
        """Serve the messages in it; tell whether it is time to look at the clock."""
        stream_id, data, owes = event.stream_id, event.data, ENDED
        stream = self._streams.get(stream_id)
        if stream is not None and (data or type(event) is Rest):
            owes = stream.receive(data)
            if owes == OWED:  # what has come buys the time that it may take
                bought = len(data) / self.limits.slowest_message_bytes_per_second
                since = self._incomplete.get(stream_id, self._now) + bought
                self._incomplete[stream_id] = min(since, self._now)
            elif owes == BEGUN:
                self._incomplete[stream_id] = self._now
            elif owes != ENDED:
                self._incomplete.pop(stream_id, None)
            if self._held_bytes > self.limits.max_connection_bytes:
                self._refuse_more(stream)
        if data:
            self.engine.acknowledge(stream_id, len(data))
        elif type(event) is DataReceived and not event.end_stream:
            self._on_empty_frame()
        if owes == MORE:
            self._backlog.appendleft(Rest(stream_id, event.end_stream))
            return True
        if event.end_stream:
            self._on_half_close(stream_id)
        return False

    def _on_empty_frame(self) -> None:
        if not self._meters.empty_frames.take(self._now):
            raise Http2Error.flood("empty frames")

    def _on_stalled(self, event: Stalled) -> None:
        stream_id = event.stream_id
        since = self._incomplete.get(stream_id)
        if since is None or since >= event.limit:  # what it waited for was on its way
            return
        del self._incomplete[stream_id]
        stream = self._streams.get(stream_id)
        if stream is None:
            self.engine.reset(stream_id, CANCEL)
        else:
            self.limit_reached("stalled stream")
            stream.end(CloseReason.CANCELLED, STALLED)

    def _on_half_close(self, stream_id: int) -> None:
        self._incomplete.pop(stream_id, None)
        stream = self._streams.get(stream_id)
        if stream is not None:
            stream.half_close()

    def _on_reset(self, event: StreamReset) -> None:
        self._reset_id = event.stream_id
        self.stats.resets += 1
        if not self._meters.resets.take(self._now):
            raise Http2Error.flood("resets")

    def _on_closed(self, event: StreamClosed) -> None:
        stream_id = event.stream_id
        stream = self._streams.get(stream_id)
        if stream is not None:
            stream.end(CloseReason.CANCELLED)
        self._incomplete.pop(stream_id, None)
        if event.error_code not in _OUR_RESETS and stream_id != self._reset_id:
            self.wary = True
            self.limit_reached("stream")  # the engine found it malformed
            self.refused()

    def _refuse(self, stream_id: int, trailers: Sequence[Header]) -> None:
        self.engine.respond(stream_id, [*TRAILERS_ONLY_HEADERS, *trailers], end_stream=True)
        self._leave(stream_id)

    def _leave(self, stream_id: int) -> None:
        """Reset an answered stream without a handler once its answer is out, or at a sweep."""
        self._output.reset_later(stream_id)
        self._incomplete[stream_id] = self._now
        self.refused()

    def _refuse_more(self, stream: NativeStream) -> None:
        self.limit_reached("too much memory")
        stream.end(CloseReason.CANCELLED, TOO_MUCH)
        self.refused()

    def _end_all(self, reason: CloseReason, status: Sequence[Header] | None) -> None:
        self._backlog.clear()
        self._backlog_bytes = 0
        self._ending = Ending(self._streams.values(), reason, status, self._clock)
        self.go_on_ending()


def _do_nothing(*_: object) -> None:
    """Stand in for an owner that is gone."""
