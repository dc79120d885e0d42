"""Bytes in, responses out: framing, limits and garbage, without a socket."""

import gzip
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epp.backend.scrape_errors import ScrapeFailure
from epp.backend.scrape_response import (
    MAX_HEAD_BYTES,
    BadResponseError,
    Response,
    ResponseReader,
)

LIMIT = 100
OK = b"HTTP/1.1 200 OK\r\n"


def read(data: bytes, *, at_once: bool = True, closed: bool = False) -> Response | None:
    reader = ResponseReader(LIMIT)
    pieces = [data] if at_once else [data[i : i + 1] for i in range(len(data))]
    for piece in pieces:
        if reader.feed(piece):
            return reader.take()
    return reader.take() if closed and reader.finish() else None


@pytest.mark.parametrize(
    "at_once", [pytest.param(True, id="at-once"), pytest.param(False, id="by-byte")]
)
@pytest.mark.parametrize(
    ("data", "want"),
    [
        pytest.param(
            OK + b"Content-Length: 3\r\n\r\nm 1", Response(200, b"m 1", "", True), id="length"
        ),
        pytest.param(
            OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nm \r\n1;x=y\r\n1\r\n0\r\nT: v\r\n\r\n",
            Response(200, b"m 1", "", True),
            id="chunked-with-extension-and-trailer",
        ),
        pytest.param(OK + b"Content-Length: 0\r\n\r\n", Response(200, b"", "", True), id="empty"),
        pytest.param(
            OK + b"Connection: close\r\nContent-Length: 1\r\n\r\nm",
            Response(200, b"m", "", False),
            id="connection-close",
        ),
        pytest.param(
            b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nm",
            Response(200, b"m", "", False),
            id="http-1.0",
        ),
        pytest.param(
            b"HTTP/1.1 307 Go\r\nLocation: /metrics/\r\nContent-Length: 0\r\n\r\n",
            Response(307, b"", "/metrics/", True),
            id="redirect",
        ),
        pytest.param(
            b"HTTP/1.1 103 Early\r\nLocation: /x\r\nContent-Encoding: gzip\r\n\r\n"
            + OK
            + b"Content-Length: 1\r\n\r\nm",
            Response(200, b"m", "", True),
            id="interim-answer-leaves-no-trace",
        ),
        pytest.param(
            b"HTTP/1.1 204 No Content\r\n\r\n", Response(204, b"", "", True), id="no-content"
        ),
    ],
)
def test_a_response_is_read(data: bytes, at_once: bool, want: Response) -> None:
    assert read(data, at_once=at_once) == want


def test_a_body_without_a_length_ends_with_the_connection() -> None:
    data = b"HTTP/1.0 200 OK\r\nServer: x\r\n\r\nm 1"

    assert read(data) is None
    assert read(data, closed=True) == Response(200, b"m 1", "", False)


def test_a_cut_body_is_not_a_response() -> None:
    assert read(OK + b"Content-Length: 5\r\n\r\nm 1", closed=True) is None
    assert read(OK + b"Content-Le", closed=True) is None


def test_gzip_in_two_members_is_unpacked() -> None:
    body = gzip.compress(b"m 1\n") + gzip.compress(b"n 2\n")
    head = b"Content-Encoding: GZIP\r\nContent-Length: %d\r\n\r\n" % len(body)

    response = read(OK + head + body)

    assert response is not None
    assert response.body == b"m 1\nn 2\n"


def _gzipped(body: bytes) -> bytes:
    return OK + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body) + body


@pytest.mark.parametrize(
    ("data", "reason", "detail"),
    [
        pytest.param(b"SSH-2.0-OpenSSH\r\n", ScrapeFailure.PROTOCOL, "not an HTTP", id="not-http"),
        pytest.param(b"HTTP/1.1 2x0 OK\r\n\r\n", ScrapeFailure.PROTOCOL, "not an", id="bad-status"),
        pytest.param(OK + b"a\x00b: c\r\n\r\n", ScrapeFailure.PROTOCOL, "not an", id="bad-header"),
        pytest.param(
            OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            ScrapeFailure.PROTOCOL,
            "not an HTTP",
            id="two-framings",
        ),
        pytest.param(
            OK + b"Transfer-Encoding: gzip\r\n\r\nx",
            ScrapeFailure.PROTOCOL,
            "transfer-encoding",
            id="unknown-framing",
        ),
        pytest.param(
            OK + b"Content-Encoding: br\r\nContent-Length: 1\r\n\r\nx",
            ScrapeFailure.PROTOCOL,
            "content-encoding",
            id="unknown-encoding",
        ),
        pytest.param(
            OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
            ScrapeFailure.PROTOCOL,
            "not an HTTP",
            id="bad-chunk",
        ),
        pytest.param(
            b"HTTP/1.1 101 Switch\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nrest",
            ScrapeFailure.PROTOCOL,
            "not an HTTP",
            id="upgrade",
        ),
        pytest.param(
            OK + b"Content-Length: 101\r\n\r\n", ScrapeFailure.TOO_LARGE, "100 bytes", id="length"
        ),
        pytest.param(
            OK + b"Transfer-Encoding: chunked\r\n\r\n65\r\n" + b"x" * 101,
            ScrapeFailure.TOO_LARGE,
            "100 bytes",
            id="chunks-too-long",
        ),
        pytest.param(
            b"HTTP/1.0 200 OK\r\n\r\n" + b"x" * 101,
            ScrapeFailure.TOO_LARGE,
            "100 bytes",
            id="endless-body",
        ),
        pytest.param(
            OK + b"X: " + b"x" * MAX_HEAD_BYTES,
            ScrapeFailure.TOO_LARGE,
            "head is too long",
            id="endless-head",
        ),
        pytest.param(
            b"HTTP/1.1 100 Continue\r\n\r\n" * (MAX_HEAD_BYTES // 25 + 1),
            ScrapeFailure.TOO_LARGE,
            "head is too long",
            id="endless-interim-answers",
        ),
        pytest.param(
            _gzipped(gzip.compress(b"x" * 10_000)),
            ScrapeFailure.TOO_LARGE,
            "100 bytes",
            id="gzip-bomb",
        ),
        pytest.param(
            _gzipped(gzip.compress(b"m 1")[:-5]), ScrapeFailure.PROTOCOL, "cut short", id="gzip-cut"
        ),
        pytest.param(
            _gzipped(zlib.compress(b"m 1")), ScrapeFailure.PROTOCOL, "broken gzip", id="no-gzip"
        ),
    ],
)
def test_what_breaks_http_or_a_limit_is_refused(
    data: bytes, reason: ScrapeFailure, detail: str
) -> None:
    with pytest.raises(BadResponseError) as caught:
        read(data)

    assert caught.value.reason is reason
    assert detail in caught.value.detail


def test_two_responses_in_a_row_use_one_reader() -> None:
    reader = ResponseReader(LIMIT)

    assert reader.feed(OK + b"Content-Length: 1\r\n\r\na")
    first = reader.take()
    assert not reader.started
    assert reader.feed(OK + b"Content-Length: 1\r\n\r\nb")
    second = reader.take()

    assert (first.body, second.body) == (b"a", b"b")


@pytest.mark.parametrize(
    "extra",
    [
        pytest.param(OK + b"Content-Length: 1\r\n\r\nb", id="a-second-response"),
        pytest.param(b"garbage", id="garbage"),
    ],
)
def test_bytes_behind_a_response_end_the_connection(extra: bytes) -> None:
    response = read(OK + b"Content-Length: 1\r\n\r\na" + extra)

    assert response == Response(200, b"a", "", False)


@pytest.mark.fuzz
@settings(max_examples=500)
@given(
    data=st.binary(max_size=120)
    | st.lists(
        st.sampled_from(
            [
                OK,
                b"HTTP/1.1 100 C\r\n",
                b"Content-Length: 2\r\n",
                b"Transfer-Encoding: chunked\r\n",
                b"Content-Encoding: gzip\r\n",
                b"\r\n",
                b"2\r\nok\r\n",
                b"0\r\n\r\n",
                b"\x1f\x8b",
                b"Connection: close\r\n",
            ]
        ),
        max_size=8,
    ).map(b"".join),
    size=st.integers(1, 40),
)
def test_any_bytes_give_a_response_or_a_refusal(data: bytes, size: int) -> None:
    reader = ResponseReader(LIMIT)

    try:
        for start in range(0, len(data), size):
            if reader.feed(data[start : start + size]):
                assert len(reader.take().body) <= LIMIT
        if reader.finish():
            assert len(reader.take().body) <= LIMIT
    except BadResponseError as exc:
        assert exc.detail
