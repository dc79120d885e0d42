"""One connection without sockets: turns, room, deadlines, on a clock of the test."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from epp.testing.raw_http2 import PREFACE, data, message, request, reset, settings, window_update
from epp.transport.http2 import Http2Error
from epp.transport.limits import Rate, TransportLimits
from epp.transport.native_connection import NativeConnection
from epp.transport.stats import TransportStats
from epp.transport.stream import CloseReason, StatusCode, StreamSender

PATH = b"/test.Service/Talk"
WIDE = PREFACE + settings({4: 0x7FFFFFFF}) + window_update(0, 0x7FFF0000)
SHUT = PREFACE + settings({4: 0})


@dataclass
class Timer:
    seconds: float
    call: Callable[[], None]
    cancelled: bool = False

    def cancel(self) -> None:
        self.cancelled = True


@dataclass
class Bench:
    """A connection, its clock, and what it asked of its owner."""

    service: Any
    limits: TransportLimits = field(default_factory=TransportLimits)
    now: float = 1000.0
    timers: list[Timer] = field(default_factory=list)
    flushes: int = 0
    complaints: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.stats = TransportStats()
        self.connection = NativeConnection(
            {PATH.decode(): self.service},
            self.limits,
            self.stats,
            clock=lambda: self.now,
            call_later=self._call_later,
            flush=self._flush,
            complain=self.complaints.append,
        )

    def _call_later(self, seconds: float, call: Callable[[], None]) -> Timer:
        self.timers.append(Timer(seconds, call))
        return self.timers[-1]

    def _flush(self) -> None:
        self.flushes += 1

    def hear(self, *parts: bytes) -> None:
        self.connection.receive(b"".join(parts))
        self.connection.work()

    def output(self) -> bytes:
        parts = []
        while part := self.connection.output(1 << 20):
            parts.append(part)
        return b"".join(parts)


def test_a_turn_ends_when_its_time_is_up_and_the_rest_waits(tally: Any) -> None:
    def slowly(_sender: StreamSender, _payload: bytes) -> None:
        bench.now += 0.001

    service = tally(slowly)
    bench = Bench(service, TransportLimits(turn_seconds=0.002))

    bench.hear(WIDE, request(1, PATH), *[data(1, message(b"x"))] * 100)
    first = service.messages
    waits = bench.connection.ready
    turns = 1
    while bench.connection.ready:
        bench.connection.work()
        turns += 1

    assert 1 <= first <= 8
    assert waits
    assert service.messages == 100
    assert turns > 10


def test_what_waits_is_weighed_and_weighs_nothing_once_dealt_with(tally: Any) -> None:
    def slowly(_sender: StreamSender, _payload: bytes) -> None:
        bench.now += 1

    bench = Bench(tally(slowly))
    bench.hear(WIDE, request(1, PATH), *[data(1, message(b"x" * 1000))] * 50)
    waiting = bench.connection._backlog_bytes
    bench.connection.receive(request(3, PATH, extra=[(b"a", b"y" * 5000)]))
    more = bench.connection._backlog_bytes

    while bench.connection.ready:
        bench.connection.work()

    assert waiting > 40 * 1000
    assert more > waiting + 5000
    assert bench.connection._backlog_bytes == 0


def test_no_message_is_served_beyond_the_bound_whatever_arrives(tally: Any) -> None:
    service = tally(lambda sender, payload: sender.send(payload * 1000))
    bench = Bench(service, TransportLimits(max_connection_bytes=5_000))

    bench.hear(SHUT, request(1, PATH))
    for _ in range(100):
        bench.hear(data(1, message(b"x")))

    assert service.messages == 5
    assert bench.connection.pending_bytes == 5 * 1005
    assert not bench.connection.ready


def test_a_window_that_opens_makes_a_crowded_connection_ready(tally: Any) -> None:
    service = tally(lambda sender, payload: sender.send(payload * 1000))
    bench = Bench(service, TransportLimits(max_connection_bytes=5_000))
    bench.hear(SHUT, request(1, PATH), *[data(1, message(b"x"))] * 20)

    bench.connection.receive(window_update(1, 1 << 20))
    bench.connection.work()
    before = bench.connection.ready
    bench.output()

    assert not before
    assert bench.connection.ready


def test_a_handler_that_lets_go_makes_a_crowded_connection_go_on(tally: Any) -> None:
    service = tally(lambda sender, payload: sender.hold(len(payload)))
    bench = Bench(service, TransportLimits(max_connection_bytes=5_000))
    bench.hear(SHUT, request(1, PATH), data(1, message(b"x" * 3000)))
    service.on_message = lambda sender, payload: sender.send(payload * 3000)
    bench.hear(request(3, PATH), data(3, message(b"x")), data(3, message(b"y")))
    flushes, served = bench.flushes, service.messages

    service.handlers[0].sender.hold(-3000)

    assert served == 2
    assert bench.flushes == flushes + 1
    assert bench.connection.ready


def test_what_a_handler_keeps_is_forgotten_with_its_stream(tally: Any) -> None:
    service = tally(lambda sender, payload: sender.hold(len(payload)))
    bench = Bench(service)
    bench.hear(WIDE, request(1, PATH), data(1, message(b"x" * 3000)))
    before = bench.connection.pending_bytes

    bench.hear(reset(1))
    service.handlers[0].sender.hold(-3000)

    assert before == 3000
    assert bench.connection.pending_bytes == 0


def test_a_stream_is_swept_only_when_it_owes_something(tally: Any) -> None:
    service = tally()
    bench = Bench(service, TransportLimits(stalled_stream_seconds=10))
    bench.hear(WIDE, request(1, PATH), request(3, PATH), request(5, PATH))
    bench.hear(data(1, message(b"whole")), data(3, b"\0\0\0\0\x05ab"))
    bench.now += 9
    bench.hear(data(3, b"c"))
    bench.now += 2

    bench.connection.sweep()
    first = [list(ends) for ends in service.ends]
    bench.now += 10
    bench.connection.sweep()

    assert first == [[], [], [CloseReason.CANCELLED]]  # it never sent a message
    assert service.ends == [[], [CloseReason.CANCELLED], [CloseReason.CANCELLED]]
    assert bench.stats.errors == {"stalled stream": 2}
    assert bench.complaints == ["stalled stream"] * 2


def test_a_deadline_is_a_timer_that_ends_with_its_stream(tally: Any) -> None:
    service = tally()
    bench = Bench(service)
    timeout = [(b"grpc-timeout", b"1500m")]
    bench.hear(WIDE, request(1, PATH, extra=timeout), request(3, PATH, extra=timeout))
    bench.hear(data(1, message(b"x"), end=True))

    bench.timers[1].call()
    bench.timers[1].call()

    assert [timer.seconds for timer in bench.timers] == [1.5, 1.5]
    assert bench.timers[0].cancelled
    assert service.ends == [[CloseReason.FINISHED], [CloseReason.CANCELLED]]
    assert bench.connection.open_streams == 0


def test_an_answer_for_a_stream_that_has_gone_hurts_nobody(tally: Any) -> None:
    """Its reset has arrived, and waits behind the message that is answered."""
    service = tally()
    bench = Bench(service)

    bench.hear(
        WIDE,
        request(1, PATH) + data(1, message(b"a")) + reset(1),
        request(3, PATH) + data(3, message(b"b")),
    )
    out = bench.output()

    assert service.ends == [[CloseReason.CANCELLED], []]
    assert message(b"b") in out
    assert message(b"a") not in out


def test_a_send_of_one_stream_from_within_the_call_of_another_is_written_once(tally: Any) -> None:
    def cross(sender: StreamSender, payload: bytes) -> None:
        for handler in service.handlers:
            handler.sender.send(payload)

    service = tally(cross)
    bench = Bench(service)

    bench.hear(WIDE, request(1, PATH), request(3, PATH), data(3, message(b"both")))
    out = bench.output()

    assert out.count(message(b"both")) == 2
    assert bench.flushes == 0


def test_a_handler_that_finishes_another_stream_within_its_call_is_safe(tally: Any) -> None:
    def finish_all(_sender: StreamSender, _payload: bytes) -> None:
        for handler in service.handlers:
            handler.sender.finish(StatusCode.UNAVAILABLE, "all of you")

    service = tally(finish_all)
    bench = Bench(service)

    bench.hear(WIDE, *(request(n, PATH) for n in (1, 3, 5)), data(3, message(b"x")))
    bench.hear(data(1, message(b"late")), data(5, b"\0\0"))

    assert service.ends == [[CloseReason.FINISHED]] * 3
    assert service.messages == 1


def test_the_events_of_a_failed_read_are_lost_but_its_streams_are_told(tally: Any) -> None:
    service = tally()
    bench = Bench(service, TransportLimits(resets=Rate(burst=3, per_second=0)))
    bench.hear(WIDE, request(1, PATH))

    with pytest.raises(Http2Error) as caught:
        bench.hear(*(request(n, PATH) + reset(n) for n in range(3, 21, 2)))
    bench.connection.lost()

    assert caught.value.kind == "flood"
    assert {tuple(ends) for ends in service.ends} == {(CloseReason.CANCELLED,)}
    assert bench.connection.open_streams == 0
