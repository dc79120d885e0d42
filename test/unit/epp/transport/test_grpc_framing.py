"""gRPC framing: heads, messages, statuses, without a connection."""

import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.transport.grpc_framing import (
    Deframer,
    GrpcError,
    encode_details,
    frame,
    metadata_headers,
    metadata_of,
    parse_head,
    parse_timeout,
    status_trailers,
)
from epp.transport.http2 import Header
from epp.transport.stream import StatusCode

LIMIT = 1000


def head(**changes: bytes | None) -> list[Header]:
    """A request's headers; underscores stand for dashes."""
    fields: dict[str, bytes | None] = {
        ":method": b"POST",
        ":path": b"/a.B/C",
        "content-type": b"application/grpc",
    }
    fields.update({name.replace("_", "-"): value for name, value in changes.items()})
    return [(name.encode(), value) for name, value in fields.items() if value is not None]


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        pytest.param(b"1H", 3600.0, id="hours"),
        pytest.param(b"2M", 120.0, id="minutes"),
        pytest.param(b"3S", 3.0, id="seconds"),
        pytest.param(b"250m", 0.25, id="milliseconds"),
        pytest.param(b"1000u", 0.001, id="microseconds"),
        pytest.param(b"1000000n", 0.001, id="nanoseconds"),
        pytest.param(b"99999999H", 99999999 * 3600.0, id="eight-digits"),
        pytest.param(b"0m", 0.0, id="at-once"),
    ],
)
def test_a_timeout_has_a_number_and_a_unit(value: bytes, seconds: float) -> None:
    assert parse_timeout(value) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "value", [b"", b"S", b"1", b"-1S", b"1.5S", b"123456789S", b"1s", b" 1S", b"1 S", b"\xff1S"]
)
def test_a_malformed_timeout_is_an_error_that_shows_it(value: bytes) -> None:
    with pytest.raises(GrpcError, match="grpc-timeout") as caught:
        parse_timeout(value)

    assert caught.value.code is StatusCode.INVALID_ARGUMENT
    assert repr(value.decode("latin-1")) in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "is_grpc"),
    [
        pytest.param({}, True, id="plain"),
        pytest.param({"content_type": b"application/grpc+proto"}, True, id="subtype"),
        pytest.param({"content_type": b"application/grpc;v=1"}, True, id="parameter"),
        pytest.param({"content_type": b"application/grpc-web"}, False, id="grpc-web"),
        pytest.param({"content_type": b"application/json"}, False, id="json"),
        pytest.param({"content_type": None}, False, id="no-type"),
        pytest.param({":method": b"GET"}, False, id="get"),
    ],
)
def test_only_posts_of_the_grpc_type_are_grpc(
    changes: dict[str, bytes | None], is_grpc: bool
) -> None:
    parsed = parse_head(head(**changes))

    assert (parsed is not None) == is_grpc


def test_a_head_says_path_deadline_and_compression() -> None:
    parsed = parse_head(head(grpc_timeout=b"5S", grpc_encoding=b"gzip"))

    assert parsed is not None
    assert (parsed.path, parsed.timeout_seconds, parsed.gzip) == ("/a.B/C", 5.0, True)


def test_an_unknown_compression_is_unimplemented() -> None:
    with pytest.raises(GrpcError, match="grpc-encoding 'zstd' is not supported") as caught:
        parse_head(head(grpc_encoding=b"zstd"))

    assert caught.value.code is StatusCode.UNIMPLEMENTED


def test_metadata_is_what_the_caller_added() -> None:
    headers = [
        *head(te=b"trailers", user_agent=b"x", grpc_timeout=b"1S"),
        (b"x-request-id", b"abc"),
        (b"trace-bin", b"AAEC"),
        (b"broken-bin", b"!"),
    ]

    assert metadata_of(headers) == (
        ("x-request-id", "abc"),
        ("trace-bin", b"\x00\x01\x02"),
        ("broken-bin", b""),
    )


@given(st.lists(st.tuples(st.just("a-bin"), st.binary(max_size=40)), max_size=5))
def test_binary_metadata_survives(metadata: list[tuple[str, bytes]]) -> None:
    assert metadata_of(metadata_headers(metadata)) == tuple(metadata)


@pytest.mark.parametrize(
    ("details", "encoded"),
    [
        pytest.param("plain text!", b"plain text!", id="ascii"),
        pytest.param("100 %", b"100 %25", id="percent"),
        pytest.param("a\nb", b"a%0Ab", id="newline"),
        pytest.param("ü", b"%C3%BC", id="utf8"),
        pytest.param("~}|", b"~}|", id="last-printables"),
    ],
)
def test_details_are_percent_encoded(details: str, encoded: bytes) -> None:
    assert encode_details(details) == encoded


def test_trailers_carry_status_details_and_metadata() -> None:
    trailers = status_trailers(StatusCode.INTERNAL, "no", [("k", "v"), ("b-bin", b"\x00")])

    assert trailers == [
        (b"grpc-status", b"13"),
        (b"grpc-message", b"no"),
        (b"k", b"v"),
        (b"b-bin", b"AA"),
    ]


@given(
    st.lists(st.binary(max_size=60), max_size=12),
    st.lists(st.integers(min_value=0, max_value=200), max_size=12),
)
def test_any_split_into_reads_gives_the_same_messages(
    messages: list[bytes], cuts: list[int]
) -> None:
    wire = b"".join(frame(message) for message in messages)
    edges = sorted({min(cut, len(wire)) for cut in cuts} | {0, len(wire)})
    deframer = Deframer(LIMIT)

    got = [
        message
        for start, end in zip(edges, edges[1:], strict=False)
        for message in deframer.feed(wire[start:end])
    ]

    assert got == messages
    assert deframer.buffered_bytes == 0


@given(
    st.lists(st.binary(max_size=20), max_size=40),
    st.integers(min_value=1, max_value=7),
    st.integers(min_value=1, max_value=300),
)
def test_messages_that_are_not_cut_at_once_come_with_the_next_calls(
    messages: list[bytes], at_once: int, read_bytes: int
) -> None:
    wire = b"".join(frame(message) for message in messages)
    deframer = Deframer(LIMIT, at_once=at_once)
    got: list[bytes] = []

    for start in range(0, len(wire), read_bytes):
        parts = [deframer.feed(wire[start : start + read_bytes])]
        while deframer.more:
            parts.append(deframer.feed(b""))
        assert max(len(part) for part in parts) <= at_once
        got += [message for part in parts for message in part]

    assert got == messages
    assert deframer.buffered_bytes == 0


def test_a_message_that_was_inflated_is_enough_for_one_call() -> None:
    compressed = b"\x01" + frame(gzip.compress(b"x"))[1:]
    deframer = Deframer(LIMIT, gzip=True, at_once=10)

    calls = [deframer.feed(compressed + compressed + frame(b"y"))]
    while deframer.more:
        calls.append(deframer.feed(b""))

    assert [list(call) for call in calls] == [[b"x"], [b"x"], [b"y"]]


@pytest.mark.parametrize(
    ("body", "told", "text"),
    [
        pytest.param(gzip.compress(bytes(500)), [500], None, id="fits"),
        pytest.param(gzip.compress(bytes(900)), [501], "larger than 500", id="too-large"),
        pytest.param(gzip.compress(bytes(500))[:-4], [500], "truncated", id="truncated"),
        pytest.param(b"no gzip", [500], "not valid", id="not-gzip"),
        pytest.param(bytes(501), [], "larger than 500", id="too-large-before-it-is-inflated"),
    ],
)
def test_inflating_has_a_limit_of_its_own_and_is_told_of(
    body: bytes, told: list[int], text: str | None
) -> None:
    inflated: list[int] = []
    deframer = Deframer(
        LIMIT, gzip=True, max_inflated_bytes=500, on_inflated=inflated.append, at_once=16
    )
    wire = b"\x01" + frame(body)[1:]

    assert list(deframer.feed(frame(bytes(900)))) == [bytes(900)]
    if text is None:
        assert list(deframer.feed(wire)) == [bytes(500)]
    else:
        with pytest.raises(GrpcError, match=text):
            deframer.feed(wire)

    assert inflated == told


def test_an_incomplete_message_waits_and_is_counted() -> None:
    deframer = Deframer(LIMIT)

    assert list(deframer.feed(frame(b"hello")[:-1])) == []
    assert deframer.buffered_bytes == 9
    assert list(deframer.feed(b"o" + frame(b"x")[:3])) == [b"hello"]
    assert deframer.buffered_bytes == 3


@pytest.mark.parametrize(
    ("wire", "gzip_agreed", "code", "text"),
    [
        pytest.param(
            b"\x00\x00\x00\x03\xe9",
            False,
            StatusCode.RESOURCE_EXHAUSTED,
            "1001 bytes is larger than 1000",
            id="too-large-said-before-it-came",
        ),
        pytest.param(
            frame(bytes(LIMIT + 1)),
            False,
            StatusCode.RESOURCE_EXHAUSTED,
            "larger than 1000",
            id="too-large-in-one-read",
        ),
        pytest.param(
            b"\x01\x00\x00\x00\x01x",
            False,
            StatusCode.UNIMPLEMENTED,
            "no grpc-encoding",
            id="compressed-without-agreement",
        ),
        pytest.param(
            b"\x02\x00\x00\x00\x01x", True, StatusCode.INTERNAL, "flag 2", id="unknown-flag"
        ),
        pytest.param(b"\x01\x00\x00\x00\x01x", True, StatusCode.INTERNAL, "gzip", id="not-gzip"),
        pytest.param(
            b"\x01" + frame(gzip.compress(b"hello")[:-4])[1:],
            True,
            StatusCode.INTERNAL,
            "truncated gzip",
            id="truncated-gzip",
        ),
        pytest.param(
            b"\x01" + frame(gzip.compress(bytes(100_000)))[1:],
            True,
            StatusCode.RESOURCE_EXHAUSTED,
            "larger than 1000",
            id="gzip-bomb",
        ),
    ],
)
def test_a_bad_message_is_an_error_with_a_status(
    wire: bytes, gzip_agreed: bool, code: StatusCode, text: str
) -> None:
    with pytest.raises(GrpcError, match=text) as caught:
        Deframer(LIMIT, gzip=gzip_agreed).feed(wire)

    assert caught.value.code is code


@pytest.mark.parametrize("split", [0, 1, 7])
def test_compressed_and_plain_messages_mix(split: int) -> None:
    wire = b"\x01" + frame(gzip.compress(b"one"))[1:] + frame(b"two")
    deframer = Deframer(LIMIT, gzip=True)

    got = [*deframer.feed(wire[:split]), *deframer.feed(wire[split:])]

    assert got == [b"one", b"two"]


@given(st.lists(st.binary(max_size=40), max_size=20))
def test_no_bytes_make_anything_but_messages_or_a_status(reads: list[bytes]) -> None:
    deframer = Deframer(LIMIT, gzip=True)

    try:
        for read in reads:
            for message in deframer.feed(read):
                assert len(message) <= LIMIT
    except GrpcError as exc:
        assert exc.code is not StatusCode.OK
    assert deframer.buffered_bytes <= sum(map(len, reads))


def test_an_error_has_the_messages_before_the_one_at_fault() -> None:
    deframer = Deframer(10)

    with pytest.raises(GrpcError) as caught:
        deframer.feed(frame(b"a") + frame(b"b") + frame(b"x" * 11))

    assert caught.value.before == [b"a", b"b"]
