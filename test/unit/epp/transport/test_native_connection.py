"""One connection without sockets: turns, room, deadlines, on a clock of the test."""

import gzip
import tracemalloc
from typing import Any

import pytest

from epp.testing.bare_connection import PATH, SHUT, WIDE, BareConnection
from epp.testing.raw_http2 import data, message, request, reset, window_update
from epp.transport.http2 import Http2Error
from epp.transport.limits import Rate, TransportLimits
from epp.transport.stream import CloseReason, StatusCode, StreamSender


def test_a_turn_ends_when_its_time_is_up_and_the_rest_waits(tally: Any) -> None:
    def slowly(_sender: StreamSender, _payload: bytes) -> None:
        bench.now += 0.001

    service = tally(slowly)
    bench = BareConnection(service, TransportLimits(turn_seconds=0.002))

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


def test_a_turn_ends_within_a_frame_that_is_full_of_messages(tally: Any) -> None:
    """As many as one frame holds; the handler takes 20 µs for each, a turn has 1 ms."""
    told: list[bytes | CloseReason] = []

    def slowly(_sender: StreamSender, payload: bytes) -> None:
        told.append(payload)
        bench.now += 20e-6

    service = tally(slowly)
    bench = BareConnection(service, TransportLimits(turn_seconds=0.001))
    payloads = [b"%d" % number for number in range(1_000)]

    bench.hear(WIDE, request(1, PATH), data(1, b"".join(map(message, payloads)), end=True))
    first, ends_then = len(told), [list(ends) for ends in service.ends]
    bench.connection.receive(request(3, PATH) + reset(1))
    turns = bench.work_off()

    assert 50 <= first <= 50 + 3 * 16
    assert ends_then == [[]]
    assert turns >= 10
    assert told == payloads
    assert service.ends == [[CloseReason.FINISHED], []]
    assert bench.connection.pending_bytes == bench.connection.engine.queued_bytes()


def test_what_is_left_of_a_frame_is_not_served_once_its_stream_has_ended(tally: Any) -> None:
    def finish(sender: StreamSender, _payload: bytes) -> None:
        bench.now += 1
        sender.finish()

    service = tally(finish)
    bench = BareConnection(service)
    timeout = [(b"grpc-timeout", b"1S")]
    whole = message(b"x") * 100
    bench.hear(WIDE, request(1, PATH), data(1, whole, end=True))

    service.on_message = lambda _sender, _payload: setattr(bench, "now", bench.now + 1)
    bench.hear(request(3, PATH, extra=timeout), data(3, whole))
    waits = bench.connection.ready
    bench.timers[0].call()
    bench.work_off()

    assert waits
    assert service.messages == 1 + 16
    assert service.ends == [[CloseReason.FINISHED], [CloseReason.CANCELLED]]
    assert bench.connection.pending_bytes == bench.connection.engine.queued_bytes()


def test_a_turn_ends_after_a_message_that_took_long_to_inflate(tally: Any) -> None:
    """The test's clock moves with each message, as if inflating had taken the time."""

    def slowly(_sender: StreamSender, _payload: bytes) -> None:
        bench.now += 1

    service = tally(slowly)
    bench = BareConnection(service)
    compressed = b"\x01" + message(gzip.compress(b"x" * 100))[1:]

    bench.hear(WIDE, request(1, PATH, extra=[(b"grpc-encoding", b"gzip")]))
    per_turn = []
    bench.connection.receive(data(1, compressed * 3) + data(1, compressed))
    while bench.connection.ready:
        before = service.messages
        bench.connection.work()
        per_turn.append(service.messages - before)

    assert service.messages == 4
    assert max(per_turn) == 1


def test_the_headers_of_a_request_are_gone_once_there_is_a_handler(tally: Any) -> None:
    """A few bytes on the wire can be made to mean many of them."""
    seen: list[dict[str, str | bytes]] = []

    def factory(sender: StreamSender) -> Any:
        seen.append(dict(sender.metadata))
        return service(sender)

    service = tally()
    bench = BareConnection(factory)
    extra = [(b"h%d" % n, b"x" * 90) for n in range(100)]
    bench.hear(WIDE, request(1, PATH, extra=extra), data(1, message(b"x")))
    bench.output()

    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for stream_id in range(3, 203, 2):
            bench.hear(request(stream_id, PATH, extra=extra), data(stream_id, message(b"x")))
            seen.clear()
        bench.output()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert bench.connection.open_streams == 101
    assert (after - before) / 100 < 8_000  # the headers alone take 28,000
    assert service.handlers[0].sender.metadata == ()


def test_what_waits_is_weighed_and_weighs_nothing_once_dealt_with(tally: Any) -> None:
    def slowly(_sender: StreamSender, _payload: bytes) -> None:
        bench.now += 1

    bench = BareConnection(tally(slowly))
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
    bench = BareConnection(service, TransportLimits(max_connection_bytes=5_000))

    bench.hear(SHUT, request(1, PATH))
    for _ in range(100):
        bench.hear(data(1, message(b"x")))

    assert service.messages == 5
    assert bench.connection.pending_bytes == 5 * 1005
    assert not bench.connection.ready


def test_a_window_that_opens_makes_a_crowded_connection_ready(tally: Any) -> None:
    service = tally(lambda sender, payload: sender.send(payload * 1000))
    bench = BareConnection(service, TransportLimits(max_connection_bytes=5_000))
    bench.hear(SHUT, request(1, PATH), *[data(1, message(b"x"))] * 20)

    bench.connection.receive(window_update(1, 1 << 20))
    bench.connection.work()
    before = bench.connection.ready
    bench.output()

    assert not before
    assert bench.connection.ready


def test_a_handler_that_lets_go_makes_a_crowded_connection_go_on(tally: Any) -> None:
    service = tally(lambda sender, payload: sender.hold(len(payload)))
    bench = BareConnection(service, TransportLimits(max_connection_bytes=5_000))
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
    bench = BareConnection(service)
    bench.hear(WIDE, request(1, PATH), data(1, message(b"x" * 3000)))
    before = bench.connection.pending_bytes

    bench.hear(reset(1))
    service.handlers[0].sender.hold(-3000)

    assert before == 3000
    assert bench.connection.pending_bytes == 0


def test_the_time_that_windows_keep_answers_back_is_counted_however_short_it_is(
    tally: Any,
) -> None:
    bench = BareConnection(tally())
    bench.hear(SHUT, request(1, PATH), data(1, message(b"x")))
    bench.output()

    bench.now += 0.0003
    bench.hear(window_update(1, 100))
    bench.output()

    assert bench.stats.blocked_seconds == pytest.approx(0.0003)


def test_all_streams_end_a_turn_at_a_time_in_order_and_once(tally: Any) -> None:
    order: list[int] = []

    class Slow:
        def __init__(self, sender: StreamSender) -> None:
            self.number = len(handlers)
            self.sender = sender
            handlers.append(self)

        def on_message(self, payload: bytes) -> None:
            """Nothing to do."""

        def on_half_close(self) -> None:
            """Nothing to do."""

        def on_closed(self, reason: CloseReason) -> None:
            order.append(self.number)
            bench.now += 20e-6

    handlers: list[Slow] = []
    bench = BareConnection(Slow, TransportLimits(turn_seconds=0.001))
    late = [(b"grpc-timeout", b"1S")]
    bench.hear(WIDE, *(request(n, PATH, extra=late) for n in range(1, 1_001, 2)))
    bench.work_off()

    bench.connection.lost()
    first, left = len(order), bench.connection.open_streams
    handlers[200].sender.finish()
    bench.timers[300].call()
    turns = 1
    while bench.connection.ending:
        bench.connection.go_on_ending()
        turns += 1

    assert 50 <= first <= 60
    assert left == 500 - first
    assert turns >= 8
    assert sorted(order) == list(range(500))
    assert [n for n in order if n not in {200, 300}] == [
        n for n in range(500) if n not in {200, 300}
    ]
    assert bench.connection.open_streams == 0


def test_what_is_left_of_a_shutdown_ends_with_a_connection_that_goes_away(tally: Any) -> None:
    service = tally()
    bench = BareConnection(service, TransportLimits(turn_seconds=0.001))
    bench.hear(WIDE, *(request(n, PATH) for n in (1, 3, 5, 7, 9, 11, 13, 15, 17)))
    bench.tick = 1.0

    bench.connection.shut_down()
    first = [list(ends) for ends in service.ends]
    bench.connection.lost()
    while bench.connection.ending:
        bench.connection.go_on_ending()

    told = [ends[0] for ends in service.ends]
    assert [CloseReason.SHUTDOWN] in first
    assert [] in first
    assert set(told) == {CloseReason.SHUTDOWN, CloseReason.CANCELLED}
    assert bench.flushes == 0  # the owner writes once for all
    assert [len(ends) for ends in service.ends] == [1] * 9


def test_a_deadline_is_a_timer_that_ends_with_its_stream(tally: Any) -> None:
    service = tally()
    bench = BareConnection(service)
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
    bench = BareConnection(service)

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
    bench = BareConnection(service)

    bench.hear(WIDE, request(1, PATH), request(3, PATH), data(3, message(b"both")))
    out = bench.output()

    assert out.count(message(b"both")) == 2
    assert bench.flushes == 0


def test_a_handler_that_finishes_another_stream_within_its_call_is_safe(tally: Any) -> None:
    def finish_all(_sender: StreamSender, _payload: bytes) -> None:
        for handler in service.handlers:
            handler.sender.finish(StatusCode.UNAVAILABLE, "all of you")

    service = tally(finish_all)
    bench = BareConnection(service)

    bench.hear(WIDE, *(request(n, PATH) for n in (1, 3, 5)), data(3, message(b"x")))
    bench.hear(data(1, message(b"late")), data(5, b"\0\0"))

    assert service.ends == [[CloseReason.FINISHED]] * 3
    assert service.messages == 1


def test_the_events_of_a_failed_read_are_lost_but_its_streams_are_told(tally: Any) -> None:
    service = tally()
    bench = BareConnection(service, TransportLimits(resets=Rate(burst=3, per_second=0)))
    bench.hear(WIDE, request(1, PATH))

    with pytest.raises(Http2Error) as caught:
        bench.hear(*(request(n, PATH) + reset(n) for n in range(3, 21, 2)))
    bench.connection.lost()

    assert caught.value.kind == "flood"
    assert {tuple(ends) for ends in service.ends} == {(CloseReason.CANCELLED,)}
    assert bench.connection.open_streams == 0
