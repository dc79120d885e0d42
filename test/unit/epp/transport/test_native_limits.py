"""What a connection's peer may ask for, without sockets, on a clock of the test."""

import gzip
from collections.abc import Callable
from typing import Any

import pytest

from epp.testing.bare_connection import PATH, WIDE, BareConnection
from epp.testing.raw_http2 import Kind, data, frame, hpack, message, request, reset, settings
from epp.transport.http2 import Http2Error
from epp.transport.limits import Rate, TransportLimits
from epp.transport.stream import CloseReason


def test_compressed_messages_have_a_rate(tally: Any) -> None:
    service = tally()
    limits = TransportLimits(inflated=Rate(burst=1_000, per_second=100))
    bench = BareConnection(service, limits)
    compressed = b"\x01" + message(gzip.compress(bytes(400)))[1:]
    bench.hear(WIDE, request(1, PATH, extra=[(b"grpc-encoding", b"gzip")]))

    bench.hear(data(1, compressed), data(1, compressed))
    bench.now += 2
    bench.hear(data(1, compressed))
    with pytest.raises(Http2Error, match="compressed") as caught:
        bench.hear(data(1, compressed))

    assert service.messages == 3
    assert caught.value.kind == "flood"


def test_one_mebibyte_of_compressed_json_is_served(tally: Any) -> None:
    """As gRPC clients send it that compress."""
    service = tally(lambda sender, payload: sender.send(b"%d" % len(payload)))
    bench = BareConnection(service)
    body = b'{"model": "m", "prompt": "%s"}' % (b"once upon a time " * 61_680)
    wire = b"\x01" + message(gzip.compress(body))[1:]

    bench.hear(WIDE, request(1, PATH, extra=[(b"grpc-encoding", b"gzip")]), data(1, wire))

    assert len(body) > 1 << 20
    assert message(b"%d" % len(body)) in bench.output()


def test_a_stream_is_swept_only_when_it_owes_something(tally: Any) -> None:
    service = tally()
    bench = BareConnection(service, TransportLimits(stalled_stream_seconds=10))
    bench.hear(WIDE, request(1, PATH), request(3, PATH), request(5, PATH))
    bench.hear(data(1, message(b"whole")), data(3, b"\0\0\0\0\x05ab"))
    bench.now += 9
    bench.hear(data(3, b"cde" + message(b"next")[:-1]))
    bench.now += 2

    bench.sweep()
    first = [list(ends) for ends in service.ends]
    bench.now += 10
    bench.sweep()

    assert first == [[], [], [CloseReason.CANCELLED]]  # it never sent a message
    assert service.ends == [[], [CloseReason.CANCELLED], [CloseReason.CANCELLED]]
    assert bench.stats.errors == {"stalled stream": 2}
    assert bench.complaints == ["stalled stream"] * 2


@pytest.mark.parametrize(
    ("drop_bytes", "ends"),
    [
        pytest.param(1, True, id="a-byte-a-second"),
        pytest.param(16_000, True, id="a-quarter-of-the-rate"),
        pytest.param(66_000, False, id="a-bit-more-than-the-rate"),
    ],
)
def test_a_message_in_drops_is_stalled_unless_they_are_large(
    tally: Any, drop_bytes: int, ends: bool
) -> None:
    service = tally()
    limits = TransportLimits(stalled_stream_seconds=10, slowest_message_bytes_per_second=64 << 10)
    bench = BareConnection(service, limits)
    whole = message(bytes(30 * 66_000))
    bench.hear(WIDE, request(1, PATH), data(1, whole[:10]))

    for second in range(28):
        bench.now += 1
        drop = whole[10 + second * drop_bytes :][:drop_bytes]
        for at in range(0, drop_bytes, 16_384):
            bench.output()  # or our windows end
            bench.hear(data(1, drop[at : at + 16_384]))
        bench.sweep()

    assert bool(service.ends[0]) == ends


def test_a_fast_beginning_does_not_buy_a_message_more_time(tally: Any) -> None:
    service = tally()
    bench = BareConnection(service, TransportLimits(stalled_stream_seconds=10))
    whole = message(bytes(16 << 20))
    bench.hear(WIDE, request(1, PATH))
    for at in range(0, 8 << 20, 16_384):
        bench.output()  # or our windows end
        bench.hear(data(1, whole[at : at + 16_384]))
    kept = bench.connection.pending_bytes

    bench.now += 11
    bench.sweep()

    assert kept == 8 << 20
    assert service.ends == [[CloseReason.CANCELLED]]


@pytest.mark.parametrize(
    "more",
    [
        pytest.param(b"", id="the-rest"),
        pytest.param(message(b"next")[:-1], id="the-rest-and-some-of-another"),
    ],
)
def test_what_was_on_its_way_keeps_a_stream_from_being_stalled(tally: Any, more: bytes) -> None:
    service = tally()
    bench = BareConnection(service, TransportLimits(stalled_stream_seconds=10))
    bench.hear(WIDE, request(1, PATH), data(1, message(b"whole")[:7]))
    bench.now += 11

    bench.connection.receive(data(1, message(b"whole")[7:] + more))
    bench.sweep()

    assert service.ends == [[]]
    assert service.messages == 1


def test_a_request_that_ends_within_a_message_is_a_refused_message(tally: Any) -> None:
    service = tally()
    bench = BareConnection(service)

    bench.hear(WIDE, request(1, PATH), data(1, message(b"whole")[:7], end=True))

    assert service.ends == [[CloseReason.CANCELLED]]
    assert bench.stats.refused_messages == 1
    assert bench.stats.errors == {"message": 1}


PSEUDO = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", PATH), (b":authority", b"a")]
GRPC = (b"content-type", b"application/grpc")


def headers(stream_id: int, fields: list[tuple[bytes, bytes]], *, end: bool = False) -> bytes:
    return frame(Kind.HEADERS, 5 if end else 4, stream_id, hpack(fields))


@pytest.mark.parametrize(
    "malformed",
    [
        pytest.param([headers(1, [*PSEUDO, (b"connection", b"x")])], id="connection-header"),
        pytest.param([request(1, b"")], id="empty-path"),
        pytest.param([headers(1, [*PSEUDO, (b":path", b"/x"), GRPC])], id="two-paths"),
        pytest.param([headers(1, [*PSEUDO, (b"te", b"gzip")])], id="te-gzip"),
        pytest.param(
            [headers(1, [*PSEUDO, GRPC, (b"content-length", b"3")]), data(1, b"x", end=True)],
            id="wrong-length",
        ),
    ],
)
def test_a_stream_that_the_engine_ends_is_counted_and_told(
    tally: Any, malformed: list[bytes]
) -> None:
    service = tally()
    bench = BareConnection(service)

    bench.hear(WIDE, *malformed)
    bench.output()
    bench.hear(settings())

    assert bench.stats.errors == {"stream": 1}
    assert bench.complaints == ["stream"]
    assert service.ends in ([], [[CloseReason.CANCELLED]])


def test_the_ends_that_a_peer_and_we_choose_are_no_errors(tally: Any) -> None:
    service = tally(lambda sender, _payload: sender.finish())
    bench = BareConnection(service, TransportLimits(stalled_stream_seconds=10))
    bench.hear(WIDE, request(1, PATH), reset(1, 1))  # PROTOCOL_ERROR, which is its opinion
    bench.hear(request(3, PATH), data(3, message(b"x")))
    bench.hear(request(5, b"/nowhere"))
    bench.output()
    bench.now += 11
    bench.sweep()
    bench.output()
    bench.hear(settings())

    assert bench.connection.quiet
    assert bench.stats.errors == {}


@pytest.mark.parametrize(
    "refused",
    [
        pytest.param(lambda n: request(n, b"/nowhere"), id="unknown-method"),
        pytest.param(lambda n: request(n, PATH, extra=[(b"a", b"x" * 17_000)]), id="headers"),
        pytest.param(
            lambda n: request(n, PATH, extra=[(b"grpc-encoding", b"br")]), id="unknown-encoding"
        ),
        pytest.param(
            lambda n: headers(n, [*PSEUDO, (b"content-type", b"text/html")]), id="no-grpc"
        ),
        pytest.param(lambda n: headers(n, [*PSEUDO, (b"te", b"gzip")]), id="malformed"),
        pytest.param(lambda n: request(n, PATH) + data(n, b"\x07\0\0\0\0"), id="bad-message"),
        pytest.param(
            lambda n: request(n, PATH) + data(n, b"\0\0", end=True), id="cut-short-message"
        ),
    ],
)
def test_refusals_have_a_rate(tally: Any, refused: Callable[[int], bytes]) -> None:
    limits = TransportLimits(refusals=Rate(burst=5, per_second=1), max_header_bytes=16_000)
    bench = BareConnection(tally(), limits)
    bench.hear(WIDE)

    def ask(numbers: range) -> None:
        for number in numbers:
            parts = refused(2 * number + 1)
            bench.hear(*([parts] if len(parts) < 16_384 else _continued(parts)))
            bench.output()
        bench.hear(settings())

    ask(range(5))
    bench.now += 5
    ask(range(5, 10))
    with pytest.raises(Http2Error, match="refused requests") as caught:
        ask(range(10, 11))

    assert caught.value.kind == "flood"


def _continued(whole: bytes) -> list[bytes]:
    """A HEADERS frame that is too long, as two frames."""
    stream_id = int.from_bytes(whole[5:9], "big")
    return [
        frame(Kind.HEADERS, 0, stream_id, whole[9:9_009]),
        frame(Kind.CONTINUATION, 4, stream_id, whole[9_009:]),
    ]


def test_a_peer_whose_headers_were_refused_is_read_warily(tally: Any) -> None:
    polite, long, odd = BareConnection(tally()), BareConnection(tally()), BareConnection(tally())

    polite.hear(WIDE, request(1, PATH), data(1, b"\x07\0\0\0\0"))
    long.hear(WIDE, request(1, PATH, extra=[(b"h%d" % n, b"") for n in range(130)]))
    odd.hear(WIDE, headers(1, [*PSEUDO, (b"te", b"gzip")]))
    odd.output()
    odd.hear(settings())

    assert [bench.connection.wary for bench in (polite, long, odd)] == [False, True, True]
