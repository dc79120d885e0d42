"""One connection without a socket: any bytes in, no exception out."""

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epp.modelsim.http_connection import HttpConnection
from epp.modelsim.http_message import Handler, HttpRequest, Responder


class Wire(asyncio.Transport):
    """Keeps what is written; tells the protocol when it is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False
        self.reading = True

    def write(self, data: Any) -> None:
        self.written += bytes(data)

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True

    def is_reading(self) -> bool:
        return self.reading

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


def connection(handler: Handler) -> tuple[HttpConnection, Wire]:
    protocol = HttpConnection(
        handler,
        max_body_bytes=1000,
        response_headers=(),
        opened=lambda _: None,
        lost=lambda _: None,
    )
    wire = Wire()
    protocol.connection_made(wire)
    return protocol, wire


def echo(request: HttpRequest, responder: Responder) -> None:
    responder.send(200, request.body)


PIECES = st.sampled_from(
    [
        b"GET / HTTP/1.1\r\n",
        b"POST /v1/completions HTTP/1.1\r\n",
        b"OPTIONS * HTTP/1.0\r\n",
        b"CONNECT a:1 HTTP/1.1\r\n",
        b"content-length: 3\r\n",
        b"content-length: 99999\r\n",
        b"transfer-encoding: chunked\r\n",
        b"upgrade: h2c\r\nconnection: upgrade\r\n",
        b"expect: 100-continue\r\n",
        b"\r\n",
        b"abc",
        b"3\r\nabc\r\n",
        b"0\r\n\r\n",
        b"\x00\xff",
    ]
)


@pytest.mark.fuzz
@given(st.lists(PIECES | st.binary(max_size=12), max_size=12))
@settings(max_examples=500, deadline=None)
def test_any_bytes_are_answered_or_refused(pieces: list[bytes]) -> None:
    async def feed() -> Wire:
        protocol, wire = connection(echo)
        for piece in pieces:
            protocol.data_received(piece)
        await asyncio.sleep(0)
        protocol.connection_lost(None)
        return wire

    wire = asyncio.run(feed())

    assert wire.written == b"" or wire.written.startswith(b"HTTP/1.1 ")


async def test_reading_stops_while_too_many_requests_wait() -> None:
    held: list[Responder] = []
    protocol, wire = connection(lambda _, responder: held.append(responder))

    protocol.data_received(b"GET / HTTP/1.1\r\n\r\n" * 40)
    paused = not wire.reading
    for _ in range(40):
        held[-1].send(200, b"")
        await asyncio.sleep(0)

    assert paused
    assert wire.reading
    assert len(held) == 40


@pytest.mark.parametrize("begun", [False, True], ids=["before-the-head", "in-the-body"])
async def test_a_defect_of_the_handler_costs_one_request(
    capsys: pytest.CaptureFixture[str], *, begun: bool
) -> None:
    def fail(_: HttpRequest, responder: Responder) -> None:
        if begun:
            responder.start_stream(200, content_type="text/plain")
        raise RuntimeError("boom")

    protocol, wire = connection(fail)

    protocol.data_received(b"GET /x HTTP/1.1\r\n\r\n")

    captured = capsys.readouterr()
    assert "request failed" in captured.out + captured.err
    assert wire.written.startswith(b"HTTP/1.1 200" if begun else b"HTTP/1.1 500")
    assert wire.closed is begun
