"""How connections with many streams end: a turn at a time, in few writes, each handler told once."""

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from structlog.testing import capture_logs

from epp.testing.authority import Authority
from epp.testing.raw_http2 import ACK, Kind, RawPeer, data, frame, message, raw_peer, request
from epp.transport import native_server
from epp.transport.limits import TransportLimits
from epp.transport.native_protocol import READ_BYTES, WARY_READ_BYTES, NativeProtocol
from epp.transport.native_server import NativeServer
from epp.transport.stream import CloseReason, StreamSender
from epp.transport.tls_context import TlsContext

PATH = b"/test.Service/Talk"
STREAMS = 400
IDS = range(1, 2 * STREAMS, 2)


async def until(fact: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not fact():
            await asyncio.sleep(0)


@asynccontextmanager
async def serving(service: Any, **limits: Any) -> AsyncIterator[tuple[NativeServer, int]]:
    limits.setdefault("turn_seconds", 0.0)  # a few events, or streams, and the next turn
    server = NativeServer(
        {PATH.decode(): service}, host="127.0.0.1", limits=TransportLimits(**limits)
    )
    port = await server.start()
    try:
        yield server, port
    finally:
        await server.stop(0)


async def open_streams(peer: RawPeer, service: Any) -> None:
    await peer.send(*(request(n, PATH) + data(n, message(b"x")) for n in IDS))
    await until(lambda: service.messages == STREAMS)
    await peer.settle()


def only_protocol(server: NativeServer) -> NativeProtocol:
    (protocol,) = server._protocols
    return protocol


class Writes:
    """A transport that counts."""

    def __init__(self, protocol: NativeProtocol) -> None:
        self.count = 0
        self._transport: Any = protocol._transport
        protocol._transport = self  # type: ignore[assignment]  # it has all that is needed

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, written: bytes) -> None:
        self.count += 1
        self._transport.write(written)


@pytest.mark.parametrize("how", ["leaves", "breaks-the-protocol"])
async def test_a_connection_is_gone_once_every_handler_has_been_told(tally: Any, how: str) -> None:
    service = tally()
    async with serving(service) as (server, port), raw_peer(port) as peer:
        await open_streams(peer, service)
        left: set[int] = set()

        if how == "leaves":
            peer.abort()
        else:
            await peer.send(data(0, b"x"))
        while server.open_connections:
            left.add(service.open)
            assert server.open_streams == service.open
            await asyncio.sleep(0)

    assert len(left) > STREAMS / 10  # others had their turns
    assert service.ends == [[CloseReason.CANCELLED]] * STREAMS


async def test_a_stop_tells_every_handler_before_it_returns(tally: Any) -> None:
    service = tally()
    async with serving(service) as (server, port), raw_peer(port) as peer:
        await open_streams(peer, service)
        reading = asyncio.create_task(peer.rest())

        await server.stop(0)
        told = service.ends
        frames = await reading

    assert told == [[CloseReason.SHUTDOWN]] * STREAMS
    ends = [found.stream_id for found in frames if found.kind == Kind.HEADERS]
    assert ends == list(IDS)


class Slow:
    """Takes its time to be told."""

    told = 0

    def __init__(self, _sender: StreamSender) -> None:
        """Nothing to keep."""

    def on_message(self, payload: bytes) -> None:
        """Nothing to do."""

    def on_half_close(self) -> None:
        """Nothing to do."""

    def on_closed(self, reason: CloseReason) -> None:
        Slow.told += 1
        time.sleep(0.0005)  # as long as a whole turn, of all the others


async def test_a_stop_that_cuts_connections_tells_every_handler(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(native_server, "END_SECONDS", 0.0)
    monkeypatch.setattr(Slow, "told", 0)
    async with serving(Slow) as (server, port), raw_peer(port) as peer:
        await peer.send(*(request(n, PATH) for n in IDS))
        await until(lambda: server.open_streams == STREAMS)

        await server.stop(0)

        assert Slow.told == STREAMS
        assert server.open_connections == 0


async def test_many_ends_leave_in_few_writes(tally: Any) -> None:
    service = tally()
    async with serving(service, turn_seconds=5.0) as (server, port), raw_peer(port) as peer:
        await open_streams(peer, service)
        writes = Writes(only_protocol(server))

        await server.stop(0)

    assert writes.count < 10


async def test_stalled_streams_end_a_turn_at_a_time_and_in_few_writes(tally: Any) -> None:
    service = tally()
    limits = {"stalled_stream_seconds": 0.2, "check_seconds": 0.01}
    async with serving(service, **limits) as (server, port), raw_peer(port) as peer:
        await peer.send(*(request(n, PATH) for n in IDS))
        await until(lambda: len(service.handlers) == STREAMS)
        writes, left = Writes(only_protocol(server)), set()

        while service.open:
            left.add(service.open)
            await asyncio.sleep(0)

    assert len(left) > STREAMS / 10
    assert writes.count <= len(left) + 10


class LikeAGoaway:
    """Answers with bytes that are the head of a GOAWAY, and an error code."""

    answer = (
        b"hello\x07\x00\x00\x00\x00\x00" + b"\x00\x00\x00\x01" + b"\x00\x00\x00\x02" + b"secret"
    )

    def __init__(self, sender: StreamSender) -> None:
        self._sender = sender

    def on_message(self, payload: bytes) -> None:
        """Nothing yet."""

    def on_half_close(self) -> None:
        self._sender.send(self.answer)
        self._sender.finish()

    def on_closed(self, reason: CloseReason) -> None:
        """Nothing to release."""


async def test_an_answer_that_looks_like_the_end_is_none() -> None:
    """It is the last that a draining connection sends."""
    with capture_logs() as logs:
        async with serving(LikeAGoaway) as (server, port), raw_peer(port) as peer:
            await peer.send(request(1, PATH))
            await peer.settle()
            stopping = asyncio.create_task(server.stop(20))
            notice = await peer.read_until(Kind.PING)
            await peer.send(frame(Kind.PING, ACK, 0, notice.payload))
            await peer.read_until(Kind.GOAWAY)
            await peer.send(data(1, b"", end=True))
            body = await peer.read_body(1, len(LikeAGoaway.answer) + 5)
            await peer.rest()
            await stopping

    assert body == message(LikeAGoaway.answer)
    assert server.stats.errors == {}
    assert logs == []


async def test_a_connection_that_the_engine_ends_says_why_once(tally: Any) -> None:
    with capture_logs() as logs:
        async with serving(tally()) as (server, port), raw_peer(port) as peer:
            await peer.settle()
            await peer.send(data(0, b"x"))
            frames = await peer.rest()

    assert [found.code for found in frames if found.kind == Kind.GOAWAY] == [1]
    assert server.stats.errors == {"protocol": 1}
    assert [line["reason"] for line in logs] == ["DATA: stream_id == 0"]


async def test_a_peer_whose_headers_were_refused_is_read_in_small_pieces(tally: Any) -> None:
    async with serving(tally(), turn_seconds=5.0) as (server, port), raw_peer(port) as peer:
        await peer.settle()
        connection, sizes = only_protocol(server).connection, []
        receive = connection.receive

        def noting(received: bytes) -> None:
            sizes.append(len(received))
            receive(received)

        connection.receive = noting  # type: ignore[assignment]  # to look at what it is given
        body = data(1, message(bytes(10_000))) * 5
        await peer.send(request(1, PATH), body)
        await peer.settle()
        polite = max(sizes)
        sizes.clear()
        await peer.send(request(3, PATH, extra=[(b"h%d" % n, b"") for n in range(130)]))
        await peer.settle()
        sizes.clear()
        for sent in (body, data(1, message(bytes(10_000)))):
            await peer.send(sent)
            await peer.settle()
        wary = max(sizes)

    assert WARY_READ_BYTES < polite <= READ_BYTES
    assert wary == WARY_READ_BYTES


@pytest.mark.parametrize("leaves", [True, False])
async def test_tls_handshakes_that_are_given_up_are_counted_and_leave_nothing(
    tally: Any, leaves: bool
) -> None:
    issued = Authority().issue("epp", hosts=["localhost"])
    tls = TlsContext(certificate=issued.certificate, key=issued.key)
    limits = TransportLimits(handshake_seconds=0.2)
    server = NativeServer({PATH.decode(): tally()}, host="127.0.0.1", tls=tls, limits=limits)
    port = await server.start()
    writers = [(await asyncio.open_connection("127.0.0.1", port))[1] for _ in range(5)]

    if leaves:
        for writer in writers:
            writer.transport.abort()

    async with asyncio.timeout(20):
        while server.stats.errors["tls unfinished"] < 5:
            await asyncio.sleep(0.01)
            gc.collect()  # asyncio's own connections are cycles
    left = sum(isinstance(thing, NativeProtocol) for thing in gc.get_objects())
    for writer in writers:
        writer.transport.abort()
    await server.stop(0)

    assert server.stats.errors == {"tls unfinished": 5}
    assert server.stats.connections == 0
    assert left == 0
