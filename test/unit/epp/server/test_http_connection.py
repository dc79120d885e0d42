"""RequestReader: whatever arrives, it gives requests or a BadHttpError."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epp.server.http_connection import MAX_REQUEST_BYTES, BadHttpError, HttpRequest, RequestReader

PIECES = st.one_of(
    st.binary(max_size=40),
    st.sampled_from(
        [
            b"GET /metrics HTTP/1.1\r\n", b"HEAD / HTTP/1.0\r\n", b"Host: x\r\n", b"\r\n",
            b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"3\r\nabc\r\n",
            b"0\r\n\r\n", b"Connection: Upgrade\r\nUpgrade: h2c\r\n", b"CONNECT x:1 HTTP/1.1\r\n",
            b"GET http://[ HTTP/1.1\r\n", b"GET /%ff?a=%ff HTTP/1.1\r\n", b": ", b"A" * 100,
        ]
    ),
)  # fmt: skip


@pytest.mark.fuzz
@settings(max_examples=500, deadline=None)
@given(st.lists(PIECES, max_size=12))
def test_no_bytes_raise_anything_else(pieces: list[bytes]) -> None:
    reader = RequestReader()

    try:
        for piece in pieces:
            reader.feed(piece)
            while (request := reader.next_request()) is not None:
                assert isinstance(request, HttpRequest)
    except BadHttpError as exc:
        assert 400 <= exc.status < 500


def test_repeated_headers_are_joined_and_names_lowered() -> None:
    reader = RequestReader()

    reader.feed(b"GET /a?b=1 HTTP/1.1\r\nAccept: x\r\nACCEPT: y\r\n\r\n")

    request = reader.next_request()
    assert request is not None
    assert request.headers == {"accept": "x,y"}
    assert (request.path, request.query) == ("/a", {"b": ["1"]})


def test_the_size_limit_starts_anew_with_each_request() -> None:
    reader = RequestReader()
    filler = b"A: " + b"b" * (MAX_REQUEST_BYTES // 2) + b"\r\n"

    for _ in range(4):
        reader.feed(b"GET / HTTP/1.1\r\n" + filler + b"\r\n")
        assert reader.next_request() is not None
