"""NativeProtocol: one connection on asyncio; reads, works, writes, in one call where it can.

It owns the socket's two valves. Reading stops while the peer does not take what we write (the
transport's watermark), a turn did not suffice for what has arrived, or more waits than may (a
crowded connection is read on, for what makes room); writing stops at the watermark, so
that answers queue in one place, where they are counted.
"""

import asyncio
import ssl
from collections.abc import Callable
from typing import Protocol, cast

from epp.logs import get_logger
from epp.transport.http2 import (
    ENHANCE_YOUR_CALM,
    INTERNAL_ERROR,
    KEEPALIVE_PING,
    NO_ERROR,
    NOTICE_PING,
    Http2Error,
    last_words,
)
from epp.transport.limits import TransportLimits
from epp.transport.native_connection import NativeConnection
from epp.transport.stats import TransportStats
from epp.transport.stream import Services

log = get_logger(__name__)

READ_BYTES = 16 << 10
"""Given to the engine at a time, which nothing interrupts: in the smallest frames, a quarter of a
millisecond; in headers that mean as much as they can, some ten."""

WARY_READ_BYTES = 2 << 10
"""The same once a peer has sent headers that we refuse."""

WRITE_BYTES = 256 << 10
"""Handed to the socket at a time."""

HIGH_WATER_BYTES = 1 << 20
"""Unsent bytes at which writing and reading stop until half of them are gone."""

CLOSE_SECONDS = 1.0
"""How long the last bytes may take before a connection is cut."""

STRANGERS = frozenset({"not http/2", "no preface"})
"""Kinds of errors that TLS clients and scanners make on a plaintext port; they are no news."""


class Connections(Protocol):
    """The server, as its connections see it."""

    def opened(self, protocol: "NativeProtocol") -> bool:
        """A connection arrived; False when there is no room for it."""
        ...

    def closed(self, protocol: "NativeProtocol") -> None:
        """A connection is gone."""
        ...


class NativeProtocol(asyncio.Protocol):
    """One accepted connection.

    Args:
        server: Told of the beginning and the end.
        services: Factory of handlers by method path.
        limits: What the peer may use.
        stats: Counters.
        loop: The event loop.
        clock: Monotonic seconds; None is the loop's, which has milliseconds on uvloop.

    Attributes:
        connection: Its streams, once there is one: TLS handshakes may come to nothing.
        closing: Nothing that the peer says counts any more.
    """

    connection: NativeConnection

    def __init__(
        self,
        server: Connections,
        services: Services,
        limits: TransportLimits,
        stats: TransportStats,
        loop: asyncio.AbstractEventLoop,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._server = server
        self._services = services
        self._limits = limits
        self._stats = stats
        self._loop = loop
        self._clock = clock or loop.time
        self.heard_at = self._made_at = self._moved_at = self._clock()
        self.closing = False
        self._announced = False
        self._transport: asyncio.Transport | None = None
        self._writable = True
        self._reading = True
        self._turn_scheduled = False
        self._unread, self._unread_at = b"", 0
        self._complained = False
        self._cutting: asyncio.TimerHandle | None = None
        self._pending_bytes = 0
        self._pinged_at: float | None = None
        self._answered_pings = 0

    # asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A peer connected."""
        # uvloop's transports are of no asyncio class
        self._transport = stream = cast("asyncio.Transport", transport)
        stream.set_write_buffer_limits(high=HIGH_WATER_BYTES)
        self.connection = NativeConnection(
            self._services,
            self._limits,
            self._stats,
            clock=self._clock,
            call_later=self._loop.call_later,
            flush=self._flush,
            complain=self._complain,
        )
        self.heard_at = self._made_at = self._moved_at = self.connection.used_at
        self._stats.connections += 1
        if not self._server.opened(self):
            self.fail("connections", "too many connections")
            return
        self._flush()

    def data_received(self, data: bytes) -> None:
        """Bytes of the peer: take in, work, answer."""
        self.heard_at = self._clock()
        if self.closing:
            return
        if self._turn_scheduled:  # one turn at a time; an event loop may read on before it
            self._unread = self._unread[self._unread_at :] + data
            self._unread_at = 0
            self._set_reading()
            return
        size = len(data)
        if size > WARY_READ_BYTES and (size > READ_BYTES or self.connection.wary):
            self._unread, self._unread_at = data, 0
            data = self._next_piece()
        try:
            self.connection.receive(data)
        except Http2Error as exc:
            self.fail(exc.kind, str(exc), exc.code)
            return
        self._turn()

    def eof_received(self) -> bool:
        """The peer will write no more, and HTTP/2 has no half-open connections."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone, whoever ended it."""
        self.closing = True
        self._transport = None
        self._unread = b""
        if exc is not None and not isinstance(exc, OSError | ssl.SSLError):
            log.debug("connection lost", error=exc)
        if self._cutting is not None:
            self._cutting.cancel()
        self.connection.lost()
        self._see_to_the_end()

    def pause_writing(self) -> None:
        """The peer does not take what we write."""
        self._writable = False
        self._set_reading()

    def resume_writing(self) -> None:
        """The peer took half of it."""
        self.heard_at = self._clock()
        self._writable = True
        self._turn()

    # The server calls

    @property
    def idle(self) -> bool:
        """No stream is open."""
        return self.connection.open_streams == 0

    def announce_shutdown(self) -> None:
        """Ask the peer, once, to go elsewhere, and find out when it has heard."""
        if self.closing or self._announced:
            return
        self._announced = True
        self.connection.engine.announce_shutdown()
        self._flush()  # the engine sends pings first
        self.connection.engine.ping(NOTICE_PING)
        self._flush()

    def go_away(self) -> None:
        """Take no more streams; close once there is none."""
        if self.closing:
            return
        self.connection.engine.go_away()
        self._flush()
        self.close_if_quiet()

    def close_if_quiet(self) -> bool:
        """Close a connection that has nothing left to do."""
        transport = self._transport
        if not self.connection.quiet or transport is None or transport.get_write_buffer_size():
            return False
        self._close()
        return True

    def shut_down(self) -> None:
        """End what is open with UNAVAILABLE, and the connection after it."""
        if self.closing:
            return
        self.closing = True
        self.connection.shut_down()
        self._see_to_the_end()

    def abort(self) -> None:
        """Cut the connection."""
        self.closing = True
        if self._transport is not None:
            self._transport.abort()

    def check(self, now: float) -> None:
        """Look after the connection, every second or so: stalled streams, keep-alive, idleness."""
        if self.closing:
            return
        limits, connection = self._limits, self.connection
        connection.sweep()
        self._note_movement(now)
        silent = now - self.heard_at
        if not connection.control.greeted:
            if now - self._made_at > limits.preface_seconds:
                self.fail("no preface", "the peer does not speak HTTP/2")
        elif now - self._moved_at > limits.crowded_seconds:
            self.fail("crowded", "the peer takes no answers", ENHANCE_YOUR_CALM)
        elif self._pinged_at is not None:
            self._check_ping(now)
        elif silent > limits.keepalive_seconds:
            self._pinged_at, self._answered_pings = now, connection.control.answered_pings
            connection.engine.ping(KEEPALIVE_PING)
        elif self.idle and now - connection.used_at > limits.idle_seconds:
            self.go_away()
            return
        self._flush()

    def fail(self, kind: str, why: str, code: int | None = None) -> None:
        """End the connection because of what the peer did; one log line, one count."""
        if self.closing:
            return
        if not self.connection.control.greeted and kind == "protocol":
            kind = "not http/2"
        self._stats.errors[kind] += 1
        say = log.debug if kind in STRANGERS or self._complained else log.warning
        self._complained = True
        say("connection ended", kind=kind, reason=why, peer=self._peer())
        if code is not None and self._transport is not None:
            self._transport.write(last_words(code, self.connection.last_stream_id))
        self.closing = True
        self.connection.lost()
        self._close()
        self._see_to_the_end()

    # Inside

    def _see_to_the_end(self) -> None:
        """End the streams, a turn at a time, and then what is left of the connection."""
        connection, transport = self.connection, self._transport
        if transport is not None and not transport.is_closing():
            self._write(transport)
        if connection.ending:
            self._loop.call_soon(self._go_on_ending)
        elif transport is not None:
            self._close()
        else:
            connection.release()
            self._server.closed(self)

    def _go_on_ending(self) -> None:
        self.connection.go_on_ending()
        self._see_to_the_end()

    def _engine_ended(self) -> None:
        """Close a connection that is over for the engine, which has said so to the peer."""
        code, why = self.connection.engine.why_closed()
        if code == NO_ERROR:
            self._close()
        else:
            flood = code in {ENHANCE_YOUR_CALM, INTERNAL_ERROR}  # the latter for resets
            self.fail("flood" if flood else "protocol", why or f"http/2 error {code}")

    def _note_movement(self, now: float) -> None:
        pending = self.connection.pending_bytes
        if pending < self._pending_bytes or not self.connection.crowded:
            self._moved_at = now
        self._pending_bytes = pending

    def _complain(self, kind: str) -> None:
        """Say what a peer did to a stream, once per connection."""
        if not self._complained:
            self._complained = True
            log.warning("stream ended by a limit", kind=kind, peer=self._peer())

    def _check_ping(self, now: float) -> None:
        if self.connection.control.answered_pings != self._answered_pings or (
            self._pinged_at is not None and self.heard_at > self._pinged_at
        ):
            self._pinged_at = None
        elif self._pinged_at is not None and (
            now - self._pinged_at > self._limits.keepalive_timeout_seconds
        ):
            self.fail("keep-alive", "the peer does not answer")
            self.abort()

    def _turn(self) -> None:
        """Deal with what arrived, answer, and come back soon if there is more."""
        self._turn_scheduled = False
        if self.closing:
            return
        try:
            if self._unread:
                self._work_and_read_on()
            else:
                self.connection.work()
        except Http2Error as exc:
            self.fail(exc.kind, str(exc), exc.code)
            return
        self._flush()
        self._set_reading()

    def _work_and_read_on(self) -> None:
        """Take in what a large read has left, while the turn lasts. Raises Http2Error."""
        connection, until = self.connection, self._clock() + self._limits.turn_seconds
        worked = connection.ready
        connection.work()
        while self._can_read_on and not (worked and self._clock() > until):
            worked = True
            connection.receive(self._next_piece())
            connection.work()

    def _next_piece(self) -> bytes:
        """Of what has been read, as much as the engine is given at a time."""
        unread, start = self._unread, self._unread_at
        end = start + (WARY_READ_BYTES if self.connection.wary else READ_BYTES)
        self._unread_at = end
        if end >= len(unread):
            self._unread, self._unread_at = b"", 0
        return unread[start:end]

    @property
    def _can_read_on(self) -> bool:
        return bool(self._unread) and not (self.connection.ready or self.connection.overfull)

    def _flush(self) -> None:
        transport, connection = self._transport, self.connection
        if transport is None or self.closing:
            return
        self._write(transport)
        if not connection.engine.usable:
            self._engine_ended()
        elif (connection.ready or self._can_read_on) and not self._turn_scheduled:
            self._turn_scheduled = True
            self._loop.call_soon(self._turn)

    def _write(self, transport: asyncio.Transport) -> None:
        connection = self.connection
        while self._writable:
            data = connection.output(WRITE_BYTES)
            if not data:
                break
            transport.write(data)
        connection.unsent_bytes = transport.get_write_buffer_size()

    def _set_reading(self) -> None:
        transport = self._transport
        busy = self._turn_scheduled or bool(self._unread) or self.connection.overfull
        wanted = self._writable and not busy
        if transport is None or wanted == self._reading or transport.is_closing():
            return
        self._reading = wanted
        if wanted:
            transport.resume_reading()
        else:
            transport.pause_reading()

    def _close(self) -> None:
        """Close after the last bytes; a peer that does not take them is cut off."""
        self.closing = True
        transport = self._transport
        if transport is not None and not transport.is_closing():
            transport.close()
            self._cutting = self._loop.call_later(CLOSE_SECONDS, self.abort)

    def _peer(self) -> str:
        peer = self._transport.get_extra_info("peername") if self._transport else None
        return f"{peer[0]}:{peer[1]}" if peer else "unknown"
