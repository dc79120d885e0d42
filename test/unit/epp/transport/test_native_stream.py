"""Streams of one connection without sockets: ends, books, memory, and what is refused."""

import gzip
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from epp.testing.raw_http2 import (
    END_HEADERS,
    END_STREAM,
    PREFACE,
    Frame,
    Kind,
    data,
    frame,
    hpack,
    message,
    request,
    reset,
    settings,
    window_update,
)
from epp.transport.grpc_framing import Deframer, GrpcError
from epp.transport.limits import TransportLimits
from epp.transport.native_connection import NativeConnection
from epp.transport.stats import TransportStats
from epp.transport.stream import CloseReason, StatusCode, StreamSender

PATH = b"/test.Service/Talk"
WIDE = PREFACE + settings({4: 0x7FFFFFFF}) + window_update(0, 0x7FFF0000)
KIB, MIB = 1 << 10, 1 << 20


@dataclass
class Timer:
    call: Callable[[], None]

    def cancel(self) -> None:
        """Only the test fires it."""


@dataclass
class Bench:
    """A connection that has been greeted; time stands still."""

    service: Any
    limits: TransportLimits = field(default_factory=TransportLimits)
    timers: list[Timer] = field(default_factory=list)
    when_flushed: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        self.stats = TransportStats()
        self.connection = NativeConnection(
            {PATH.decode(): self.service},
            self.limits,
            self.stats,
            clock=lambda: 1000.0,
            call_later=self._call_later,
            flush=lambda: self.when_flushed(),
            complain=lambda _kind: None,
        )
        self.hear(WIDE)

    def _call_later(self, _seconds: float, call: Callable[[], None]) -> Timer:
        self.timers.append(Timer(call))
        return self.timers[-1]

    def hear(self, *parts: bytes) -> list[Frame]:
        """What is said to this."""
        self.connection.receive(b"".join(parts))
        self.connection.work()
        return self.said()

    def said(self) -> list[Frame]:
        out, frames, at = b"", [], 0
        while part := self.connection.output(1 << 20):
            out += part
        while at < len(out):
            end = at + 9 + int.from_bytes(out[at : at + 3], "big")
            stream_id = int.from_bytes(out[at + 5 : at + 9], "big")
            frames.append(Frame(out[at + 3], out[at + 4], stream_id, out[at + 9 : end]))
            at = end
        return frames


def kinds(frames: list[Frame]) -> list[int]:
    return [found.kind for found in frames]


def finish(sender: StreamSender, _payload: bytes) -> None:
    sender.finish()


def test_trailers_of_the_peer_are_a_half_close(tally: Any) -> None:
    service = tally()
    bench = Bench(service)
    bench.hear(request(1, PATH), data(1, message(b"x")))
    ends_before = [list(ends) for ends in service.ends]

    block = hpack([(b"checksum", b"1")])
    said = bench.hear(frame(Kind.HEADERS, END_HEADERS | END_STREAM, 1, block))

    assert ends_before == [[]]
    assert service.ends == [[CloseReason.FINISHED]]
    assert [(f.kind, f.flags & END_STREAM) for f in said] == [(Kind.HEADERS, END_STREAM)]


@pytest.mark.parametrize(
    "asked",
    [
        pytest.param(request(1, b"/test.Service/Other"), id="unknown-method"),
        pytest.param(request(1, PATH, extra=[(b"grpc-timeout", b"soon")]), id="bad-timeout"),
        pytest.param(request(1, PATH, extra=[(b"grpc-encoding", b"br")]), id="unknown-encoding"),
        pytest.param(request(1, PATH, extra=[(b"h%d" % n, b"") for n in range(130)]), id="headers"),
    ],
)
def test_a_refused_stream_is_reset_after_its_answer(tally: Any, asked: bytes) -> None:
    """Its peer has not ended it, and would leave it open for ever."""
    bench = Bench(tally())

    said = bench.hear(asked)

    assert kinds(said) == [Kind.HEADERS, Kind.RST_STREAM]
    assert said[0].flags & END_STREAM
    assert said[1].code == 0
    assert bench.connection.quiet


def test_the_window_opens_again_for_what_a_finished_stream_is_sent(tally: Any) -> None:
    """Its peer may not know yet; what is on the way would be lost to the connection's window."""
    window = 64 * KIB
    limits = TransportLimits(connection_window_bytes=window, stream_window_bytes=4 * MIB)
    bench = Bench(tally(finish), limits)
    bench.hear(request(1, PATH), data(1, message(b"x")))

    opened = 0
    for _ in range(40):
        for said in bench.hear(data(1, b"y" * 16_000)):
            if (said.kind, said.stream_id) == (Kind.WINDOW_UPDATE, 0):
                opened += said.code

    assert 40 * 16_000 - opened < window


def test_everything_is_counted(tally: Any) -> None:
    service = tally(lambda sender, payload: [sender.send(payload), sender.send(b"and")])
    bench = Bench(service)

    bench.hear(request(1, PATH), data(1, message(b"12345")), data(1, message(b"6"), end=True))
    bench.hear(request(3, PATH), data(3, message(b"123")), reset(3))
    bench.hear(request(5, PATH), data(5, b"\x07" + message(b"odd")[1:]))
    bench.hear(request(7, b"/nowhere"))
    stats = bench.stats

    assert (stats.streams, stats.resets, stats.refused_messages) == (4, 1, 1)
    assert (stats.messages_received, stats.bytes_received) == (3, 5 + 1 + 3)
    assert (stats.messages_sent, stats.bytes_sent) == (6, 5 + 1 + 3 + 3 * 3)
    assert stats.errors == {"message": 1}


def test_an_answer_above_the_limit_ends_its_stream_instead_of_being_sent(tally: Any) -> None:
    service = tally(lambda sender, payload: sender.send(payload * 10))
    bench = Bench(service, TransportLimits(max_send_bytes=100))

    fits = bench.hear(request(1, PATH), data(1, message(b"x" * 10)))
    refused = bench.hear(request(3, PATH), data(3, message(b"x" * 11)))

    assert kinds(fits) == [Kind.HEADERS, Kind.DATA]
    assert kinds(refused)[0] == Kind.HEADERS
    assert Kind.DATA not in kinds(refused)
    assert service.ends == [[], [CloseReason.FINISHED]]
    assert bench.stats.messages_sent == 1


def test_messages_that_are_not_complete_count_as_kept_and_have_a_bound(tally: Any) -> None:
    service = tally()
    bench = Bench(service, TransportLimits(max_connection_bytes=100 * KIB))
    begun = b"\0\0\x10\0\0" + b"x" * 8_187  # 8 KiB of a message of 1 MiB

    for stream_id in range(1, 25, 2):
        bench.hear(request(stream_id, PATH), data(stream_id, begun))
    kept, errors = bench.connection.pending_bytes, dict(bench.stats.errors)
    bench.hear(request(25, PATH), data(25, begun))
    refused = dict(bench.stats.errors)
    for stream_id in range(1, 25, 2):
        bench.hear(reset(stream_id))

    assert (kept, errors) == (12 * 8_192, {})
    assert refused == {"too much memory": 1}
    assert service.ends == [[CloseReason.CANCELLED]] * 13
    assert bench.connection.pending_bytes == 0


def test_inflating_stops_at_the_limit() -> None:
    """50 MB of a bomb of 50 KB would be there for as long as it takes to refuse them."""
    limit, bomb = 64 * KIB, gzip.compress(bytes(50_000_000))
    deframer = Deframer(limit, gzip=True)
    wire = b"\x01" + message(bomb)[1:]

    tracemalloc.start()
    try:
        with pytest.raises(GrpcError) as caught:
            deframer.feed(wire)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert caught.value.code is StatusCode.RESOURCE_EXHAUSTED
    assert peak < 4 * limit + len(wire)


def test_a_connection_that_ends_while_an_answer_is_written_tells_its_handlers_once(
    tally: Any,
) -> None:
    service = tally(lambda _sender, _payload: None)
    bench = Bench(service)
    bench.hear(request(1, PATH), data(1, message(b"wait")))
    bench.when_flushed = bench.connection.lost

    service.handlers[0].sender.finish()

    assert service.ends == [[CloseReason.CANCELLED]]
    assert bench.connection.open_streams == 0


def test_a_bad_message_behind_one_that_finishes_the_stream_changes_nothing(tally: Any) -> None:
    def keep_and_finish(sender: StreamSender, payload: bytes) -> None:
        sender.hold(len(payload))
        sender.finish(StatusCode.UNAVAILABLE, "enough")

    service = tally(keep_and_finish)
    bench = Bench(service)

    said = bench.hear(request(1, PATH), data(1, message(b"good") + b"\x07\0\0\0\0"))

    assert [(f.kind, f.flags & END_STREAM) for f in said] == [(Kind.HEADERS, END_STREAM)]
    assert service.ends == [[CloseReason.FINISHED]]
    assert bench.connection.pending_bytes == 0


def test_a_deadline_that_is_late_itself_changes_nothing(tally: Any) -> None:
    service = tally(lambda sender, payload: sender.hold(len(payload)))
    bench = Bench(service)
    late = [(b"grpc-timeout", b"1S")]
    bench.hear(request(1, PATH, extra=late), data(1, message(b"kept")))

    bench.timers[0].call()
    bench.timers[0].call()

    assert service.ends == [[CloseReason.CANCELLED]]
    assert bench.connection.pending_bytes == 0
