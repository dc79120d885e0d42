"""The HTTP server over real sockets: framing, keep-alive, limits, stopping."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from epp.modelsim.http_message import HttpRequest, Responder
from epp.modelsim.http_server import HttpServer

LIMIT = 100_000


class Echo:
    """Answers with what it got; ``/wait`` waits for ``release``."""

    def __init__(self) -> None:
        self.requests: list[HttpRequest] = []
        self.held: list[Responder] = []
        self.arrived = asyncio.Event()
        self.disconnected = asyncio.Event()

    def handle(self, request: HttpRequest, responder: Responder) -> None:
        self.requests.append(request)
        if request.path == "/wait":
            responder.on_disconnect = self.disconnected.set
            self.held.append(responder)
            self.arrived.set()
        elif request.path == "/stream":
            responder.start_stream(200, content_type="text/plain")
            responder.write(b"one")
            responder.write(b"two")
            responder.finish()
        elif request.path == "/reset":
            responder.reset()
        else:
            responder.send(200, request.body or request.path.encode(), content_type="text/plain")


@asynccontextmanager
async def served(echo: Echo) -> AsyncIterator[tuple[HttpServer, int]]:
    server = HttpServer(echo.handle, max_body_bytes=LIMIT, response_headers=(("x-sim-pod", "p"),))
    _, port = await server.start("127.0.0.1", 0)
    try:
        yield server, port
    finally:
        await server.stop()


async def exchange(port: int, *pieces: bytes) -> bytes:
    """Send pieces, each in a segment of its own; read until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for piece in pieces:
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(0)
    data = await reader.read()
    writer.close()
    await writer.wait_closed()
    return data


@pytest.mark.parametrize(
    ("pieces", "path", "body"),
    [
        pytest.param([b"GET /a?b=c HTTP/1.1\r\nconnection: close\r\n\r\n"], "/a", b"", id="get"),
        pytest.param(
            [b"POST / HTTP/1.1\r\nconnection: close\r\ncontent-length: 5\r\n\r\n", b"he", b"llo"],
            "/",
            b"hello",
            id="content-length-in-pieces",
        ),
        pytest.param(
            [
                b"POST / HTTP/1.1\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n",
                b"2\r\nhe\r\n3\r\nllo\r\n",
                b"0\r\nx-trailer: 1\r\n\r\n",
            ],
            "/",
            b"hello",
            id="chunked-with-trailer",
        ),
        pytest.param([b"GE", b"T /x HT", b"TP/1.0\r\n", b"\r\n"], "/x", b"", id="http-1.0-pieces"),
        pytest.param(
            [b"GET http://h:1/p?q HTTP/1.1\r\nconnection: close\r\n\r\n"], "/p", b"", id="whole-url"
        ),
        pytest.param(
            [
                b"GET /u HTTP/1.1\r\nconnection: Upgrade\r\nupgrade: h2c\r\n\r\n",
            ],
            "/u",
            b"",
            id="upgrade-is-ignored",
        ),
    ],
)
async def test_a_request_is_read_whole(pieces: list[bytes], path: str, body: bytes) -> None:
    echo = Echo()
    async with served(echo) as (_, port):
        answer = await exchange(port, *pieces)

    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"x-sim-pod: p\r\n" in answer
    assert answer.endswith(b"\r\n\r\n" + (body or path.encode()))
    assert (echo.requests[0].path, echo.requests[0].body) == (path, body)


async def test_pipelined_requests_are_answered_in_order() -> None:
    echo = Echo()
    count = 100
    requests = b"".join(b"GET /%d HTTP/1.1\r\n\r\n" % number for number in range(count))
    last = b"GET /last HTTP/1.1\r\nconnection: close\r\n\r\n"
    async with served(echo) as (_, port):
        answer = await exchange(port, requests + last)

    assert [request.path for request in echo.requests] == [
        *(f"/{number}" for number in range(count)),
        "/last",
    ]
    assert answer.count(b"HTTP/1.1 200 OK") == count + 1


async def test_a_pipelined_request_waits_for_the_one_in_work() -> None:
    echo = Echo()
    async with served(echo) as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /wait HTTP/1.1\r\n\r\nGET /next HTTP/1.1\r\nconnection: close\r\n\r\n")
        await echo.arrived.wait()
        before = [request.path for request in echo.requests]
        echo.held[0].send(200, b"first")
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()

    assert before == ["/wait"]
    assert answer.index(b"first") < answer.index(b"/next")


async def test_a_stream_is_chunked_for_http_1_1_and_ends_with_the_connection_for_1_0() -> None:
    echo = Echo()
    async with served(echo) as (_, port):
        new = await exchange(port, b"GET /stream HTTP/1.1\r\nconnection: close\r\n\r\n")
        old = await exchange(port, b"GET /stream HTTP/1.0\r\nconnection: keep-alive\r\n\r\n")

    assert new.endswith(b"\r\n\r\n3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n")
    assert b"content-length" not in new
    assert old.endswith(b"\r\n\r\nonetwo")
    assert b"transfer-encoding" not in old


async def test_a_head_request_gets_no_body() -> None:
    echo = Echo()
    async with served(echo) as (_, port):
        answer = await exchange(port, b"HEAD /abc HTTP/1.1\r\nconnection: close\r\n\r\n")

    assert b"content-length: 4\r\n" in answer
    assert answer.endswith(b"\r\n\r\n")


async def test_a_client_that_waits_is_told_to_send_its_body() -> None:
    echo = Echo()
    head = b"POST / HTTP/1.1\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n"
    async with served(echo) as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head)
        go_on = await reader.readuntil(b"\r\n\r\n")
        writer.write(b"ok")
        answer = await reader.readuntil(b"ok")
        writer.close()
        await writer.wait_closed()

    assert go_on == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert answer.startswith(b"HTTP/1.1 200 OK")


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        pytest.param(b"nonsense\r\n\r\n", b"400", id="no-http"),
        pytest.param(b"GET /\xff\x00 HTTP/1.1\r\n\r\n", b"400", id="bad-target"),
        pytest.param(
            b"POST / HTTP/1.1\r\ncontent-length: %d\r\n\r\n" % (LIMIT + 1), b"413", id="announced"
        ),
        pytest.param(
            b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n%x\r\n%b"
            % (LIMIT + 1, b"x" * (LIMIT + 1)),
            b"413",
            id="chunked-too-long",
        ),
        pytest.param(
            b"GET / HTTP/1.1\r\nx: %b\r\n\r\n" % (b"y" * 300_000), b"431", id="long-header"
        ),
    ],
)
async def test_what_cannot_be_served_is_refused_and_the_connection_closed(
    request_bytes: bytes, status: bytes
) -> None:
    echo = Echo()
    async with served(echo) as (server, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request_bytes)
        answer = await reader.readuntil(b"\r\n\r\n")
        writer.close()
        await writer.wait_closed()

        assert answer.startswith(b"HTTP/1.1 " + status)
        assert b"connection: close\r\n" in answer
        assert echo.requests == []
        assert server.connections <= 1


async def test_the_longest_body_is_accepted() -> None:
    echo = Echo()
    head = b"POST / HTTP/1.1\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % LIMIT
    async with served(echo) as (_, port):
        answer = await exchange(port, head, b"z" * LIMIT)

    assert len(echo.requests[0].body) == LIMIT
    assert answer.endswith(b"z" * LIMIT)


async def test_repeated_headers_are_kept() -> None:
    echo = Echo()
    async with served(echo) as (_, port):
        await exchange(port, b"GET / HTTP/1.1\r\nX-A: 1\r\nx-a: 2\r\nconnection: close\r\n\r\n")

    assert echo.requests[0].headers[:2] == (("x-a", "1"), ("x-a", "2"))


async def test_a_client_that_leaves_is_noticed_at_once() -> None:
    echo = Echo()
    async with served(echo) as (_, port):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /wait HTTP/1.1\r\n\r\n")
        await echo.arrived.wait()
        writer.close()
        await writer.wait_closed()
        await asyncio.wait_for(echo.disconnected.wait(), 5)

        assert echo.held[0].gone
        echo.held[0].send(200, b"too late")


async def test_a_reset_reaches_the_client_as_one() -> None:
    async with served(Echo()) as (_, port):
        with pytest.raises(ConnectionResetError):
            await exchange(port, b"GET /reset HTTP/1.1\r\n\r\n")


async def test_stopping_lets_a_request_in_work_finish_and_closes_idle_connections() -> None:
    echo = Echo()
    async with served(echo) as (server, port):
        idle_reader, idle_writer = await asyncio.open_connection("127.0.0.1", port)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /wait HTTP/1.1\r\n\r\n")
        await echo.arrived.wait()

        stopping = asyncio.create_task(server.stop(30), name="stop")
        idle = await idle_reader.read()
        echo.held[0].send(200, b"done")
        answer = await reader.read()
        await stopping

        assert idle == b""
        assert answer.endswith(b"done")
        assert b"connection: close\r\n" in answer
        for one in (writer, idle_writer):
            one.close()
            await one.wait_closed()


async def test_stopping_drops_what_does_not_finish_in_time() -> None:
    echo = Echo()
    async with served(echo) as (server, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /wait HTTP/1.1\r\n\r\n")
        await echo.arrived.wait()

        await server.stop(0.01)

        assert await reader.read() == b""
        assert echo.disconnected.is_set()
        assert server.connections == 0
        writer.close()
        await writer.wait_closed()
