"""The server around its connections: its port, its housekeeping, and very many peers."""

import asyncio
import resource
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from epp.testing.authority import Authority
from epp.testing.raw_http2 import (
    ACK,
    PREFACE,
    Kind,
    data,
    frame,
    message,
    raw_peer,
    request,
    reset,
    settings,
    window_update,
)
from epp.transport.limits import TransportLimits
from epp.transport.native_server import NativeServer
from epp.transport.stream import CloseReason
from epp.transport.tls_context import TlsContext

PATH = b"/test.Service/Talk"
WIDE = PREFACE + settings({4: 0x7FFFFFFF}) + window_update(0, 0x3FFF0000)
AUTHORITY = Authority()
PAIR = AUTHORITY.issue("epp", hosts=["localhost"])

pytestmark = pytest.mark.timeout(120)


@asynccontextmanager
async def serving(service: Any, **options: Any) -> AsyncIterator[tuple[NativeServer, int]]:
    server = NativeServer({PATH.decode(): service}, host="127.0.0.1", **options)
    port = await server.start()
    try:
        yield server, port
    finally:
        await server.stop(0)


async def until(fact: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not fact():
            await asyncio.sleep(0.005)


async def test_servers_of_one_port_share_its_connections(tally: Any) -> None:
    services = [tally(), tally()]

    async with (
        serving(services[0], reuse_port=True) as (_, port),
        serving(services[1], reuse_port=True, port=port) as (_, same),
    ):
        for _ in range(64):  # the kernel draws: that one gets none of them happens never
            async with raw_peer(port) as peer:
                await peer.send(request(1, PATH), data(1, message(b"x"), end=True))
                await peer.read_body(1, 6)

    assert same == port
    assert all(service.handlers for service in services)
    assert sum(len(service.handlers) for service in services) == 64


async def test_envoy_may_reset_every_stream_after_its_answer(tally: Any) -> None:
    """Five thousand, far more than the engine would allow by itself: no stream fails."""
    service = tally()

    async with serving(service) as (server, port), raw_peer(port, greeting=WIDE) as peer:
        for first in range(1, 10_001, 200):
            ids = range(first, first + 200, 2)
            await peer.send(*(request(n, PATH) + data(n, message(b"x")) for n in ids))
            for stream_id in ids:
                assert await peer.read_body(stream_id, 6) == message(b"x")
            await peer.send(*(reset(n) for n in ids))
        await peer.settle()
        connections, errors = server.open_connections, dict(server.stats.errors)

    assert service.ends == [[CloseReason.CANCELLED]] * 5_000
    assert (connections, errors, server.stats.resets) == (1, {}, 5_000)


class Quiet:
    """A connection that counts when it is looked after."""

    def __init__(self, turn: Callable[[], int], checks: list[int]) -> None:
        self._turn, self._checks = turn, checks

    def check(self, _now: float) -> None:
        self._checks.append(self._turn())


async def test_not_all_connections_are_looked_after_in_one_turn(tally: Any) -> None:
    loop = asyncio.get_running_loop()
    checks: list[int] = []
    turn, ticking = 0, True

    def tick() -> None:
        nonlocal turn
        turn += 1
        if ticking:
            loop.call_soon(tick)

    loop.call_soon(tick)
    many: list[Any] = [Quiet(lambda: turn, checks) for _ in range(1_000)]

    async with serving(tally(), limits=TransportLimits(check_seconds=0.01)) as (server, _):
        for connection in many:
            assert server.opened(connection)
        await until(lambda: len(checks) >= len(many))
        for connection in many:
            server.closed(connection)
        ticking = False

    per_turn = Counter(checks[: len(many)])
    assert max(per_turn.values()) <= 200


class Handshake:
    """TLS of a client, step by step, on a socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        context = ssl.create_default_context(cadata=AUTHORITY.pem.decode())
        context.set_alpn_protocols(["h2"])
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._in, self._out, server_hostname="localhost")
        self._reader, self._writer = reader, writer

    def step(self) -> bool:
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def send(self) -> None:
        self._writer.write(self._out.read())

    async def hear(self) -> bool:
        """More of the server; False at the end."""
        received = await asyncio.wait_for(self._reader.read(1 << 16), 10)
        self._in.write(received)
        return bool(received)

    async def frames(self) -> list[int]:
        """The kinds of what the server says until it closes."""
        plain = b""
        while True:
            try:
                part = self.tls.read(1 << 16)
            except ssl.SSLWantReadError:
                if not await self.hear():
                    break
                continue
            except ssl.SSLZeroReturnError:
                break
            if not part:
                break
            plain += part
        kinds, at = [], 0
        while at < len(plain):
            kinds.append(plain[at + 3])
            at += 9 + int.from_bytes(plain[at : at + 3], "big")
        return kinds


async def test_who_gets_through_its_handshake_after_the_stop_is_not_served(tally: Any) -> None:
    """A stream of another connection keeps the server until then."""
    service, tls = tally(), TlsContext(certificate=PAIR.certificate, key=PAIR.key)
    trusting = ssl.create_default_context(cadata=AUTHORITY.pem.decode())
    trusting.set_alpn_protocols(["h2"])

    async with (
        serving(service, tls=tls) as (server, port),
        raw_peer(port, tls=trusting) as busy,
    ):
        await busy.send(request(1, PATH), data(1, message(b"x")))
        await busy.read_body(1, 6)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        late = Handshake(reader, writer)
        late.step()
        late.send()
        await late.hear()  # the server's half: it has accepted the connection

        stopping = asyncio.create_task(server.stop(30))
        notice = await busy.read_until(Kind.PING)
        await busy.send(frame(Kind.PING, ACK, 0, notice.payload))
        await busy.read_until(Kind.GOAWAY)
        assert late.step()
        late.tls.write(PREFACE + settings() + request(1, PATH) + data(1, message(b"late")))
        late.send()
        kinds = await late.frames()
        writer.transport.abort()
        still_draining = not stopping.done()
        await busy.send(data(1, b"", end=True))
        await busy.rest()
        await asyncio.wait_for(stopping, 20)

    assert Kind.GOAWAY in kinds
    assert still_draining
    assert service.ends == [[CloseReason.FINISHED]]


def test_a_peer_cannot_have_its_connection_negotiated_again() -> None:
    """Up to TLS 1.2 it could ask for it as often as it likes, and each time costs us most.

    The ``ssl`` module has no client that asks.
    """
    tls = TlsContext(certificate=PAIR.certificate, key=PAIR.key)

    connection = tls.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_side=True)

    assert connection.context.options & ssl.OP_NO_RENEGOTIATION


CONNECTIONS = 5_000


@pytest.fixture
def descriptors() -> Iterator[None]:
    """Both ends of each connection, and what the process has open anyway."""
    needed = 2 * CONNECTIONS + 500
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        pytest.fail(f"5,000 connections need {needed} open files; the hard limit is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, needed), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("descriptors")
async def test_five_thousand_connections_may_be_idle(tally: Any) -> None:
    """They are looked after, and asked whether they are there; one that works does not notice."""
    limits = TransportLimits(keepalive_seconds=0.5, check_seconds=0.05)
    writers, asked = [], 0

    async with (
        serving(tally(), limits=limits) as (server, port),
        raw_peer(port) as busy,
        raw_peer(port) as idle,
    ):

        async def ask() -> None:
            nonlocal asked
            asked += 1
            stream_id = 2 * asked - 1
            await busy.send(request(stream_id, PATH), data(stream_id, message(b"x"), end=True))
            assert await asyncio.wait_for(busy.read_body(stream_id, 6), 10) == message(b"x")

        for number in range(CONNECTIONS - 1):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(PREFACE + settings())
            writers.append(writer)
            if not number % 100:
                await ask()
        await until(lambda: server.open_connections == CONNECTIONS + 1)
        await idle.read_until(Kind.PING)
        for _ in range(50):
            await ask()
        errors = dict(server.stats.errors)
        for writer in writers:
            writer.transport.abort()
        await until(lambda: server.open_connections == 2)
        await ask()

    assert errors == {}
    assert server.stats.connections == CONNECTIONS + 1
