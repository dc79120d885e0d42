"""Attacks with the limits and turns that the product has: a second connection is served meanwhile.

What each attack ends in, with small limits, is in ``test_hostile_peers``; here only time counts.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from epp.testing.authority import Authority
from epp.testing.raw_http2 import (
    GRPC_HEADERS,
    PREFACE,
    Kind,
    RawPeer,
    data,
    frame,
    hpack,
    message,
    raw_peer,
    request,
    reset,
    settings,
    window_update,
)
from epp.transport.native_server import NativeServer
from epp.transport.stream import StreamSender
from epp.transport.tls_context import TlsContext

PATH = b"/test.Service/Attacked"
OTHER = b"/test.Service/Quiet"
WIDE = PREFACE + settings({4: 0x7FFFFFFF}) + window_update(0, 0x3FFF0000)
BATCH = 500
REQUESTS = 50
ANSWER_SECONDS = 5.0
BIG = 100_000
AUTHORITY = Authority()
PAIR = AUTHORITY.issue("epp", hosts=["localhost"])

pytestmark = pytest.mark.timeout(60)

Batch = Callable[[int], Iterable[bytes]]
"""What to send as batch number so and so."""


def ids(batch: int) -> range:
    return range(2 * BATCH * batch + 1, 2 * BATCH * (batch + 1), 2)


def continuations(number: int) -> list[bytes]:
    stream_id = 2 * number + 1
    head = frame(Kind.HEADERS, 0, stream_id, hpack(GRPC_HEADERS))
    return [head, *[frame(Kind.CONTINUATION, 0, stream_id)] * BATCH]


def half_open(number: int) -> list[bytes]:
    """A thousand streams, each in the middle of a message of 1 MiB."""
    if number >= 1_000 // BATCH:
        return [data(1, b"x")]
    return [request(n, PATH) + data(n, b"\0\0\x10\0\0x") for n in ids(number)]


def ten_megabytes(number: int) -> list[bytes]:
    """Answers of so much, of which the peer takes nothing."""
    if number:
        return [data(1, message(b""))]
    return [request(1, PATH), *[data(1, message(b"x"))] * (10_000_000 // BIG)]


@dataclass
class Attack:
    """A peer that sends as fast as it can, and comes back when it is thrown out."""

    batch: Batch
    reads: bool = True
    batches: int = 0
    connections: int = 0
    ready: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, port: int, tls: ssl.SSLContext | None) -> None:
        while True:
            self.connections += 1
            buffer = None if self.reads else 8_192
            async with raw_peer(port, greeting=WIDE, tls=tls, receive_buffer=buffer) as peer:
                await self._pour(peer)

    async def _pour(self, peer: RawPeer) -> None:
        over = asyncio.create_task(peer.rest() if self.reads else asyncio.Event().wait())
        try:
            number = 0
            while not over.done():
                await peer.send(*self.batch(number))
                number += 1
                self.batches += 1
                self.ready.set()
                await asyncio.sleep(0)
        finally:
            over.cancel()
            await asyncio.wait([over])


@asynccontextmanager
async def under(attack: Attack, port: int, tls: ssl.SSLContext | None) -> AsyncIterator[None]:
    attacking = asyncio.create_task(attack.run(port, tls))
    try:
        await asyncio.wait_for(attack.ready.wait(), 10)
        yield
        assert not attacking.done()
    finally:
        attacking.cancel()
        await asyncio.wait([attacking])


def client(kind: str) -> ssl.SSLContext | None:
    if kind == "plain":
        return None
    trusting = ssl.create_default_context(cadata=AUTHORITY.pem.decode())
    trusting.set_alpn_protocols(["h2"])
    return trusting


async def ask(peer: RawPeer, number: int) -> None:
    """A request on a stream of its own, from its first byte to its end."""
    stream_id, payload = 2 * number + 1, b"%d" % number
    await peer.send(request(stream_id, OTHER), data(stream_id, message(payload), end=True))
    assert await peer.read_body(stream_id, len(payload) + 5) == message(payload)
    await peer.read_ends(1)


FLOOD, NOTHING = {"flood"}, set[str]()
"""Kinds of errors; some limits are too high for an attack of a second."""


@pytest.mark.parametrize("kind", ["plain", "tls"])
@pytest.mark.parametrize(
    ("attack", "ended_for"),
    [
        pytest.param(
            lambda n: [request(i, PATH) + reset(i) for i in ids(n)], NOTHING, id="rapid-reset"
        ),
        pytest.param(continuations, FLOOD, id="continuation"),
        pytest.param(lambda _: [settings()] * BATCH, FLOOD, id="settings"),
        pytest.param(lambda _: [frame(Kind.PING, 0, 0, b"12345678")] * BATCH, FLOOD, id="ping"),
        pytest.param(
            lambda n: [request(2 * n + 1, PATH), *[data(2 * n + 1, b"")] * BATCH],
            FLOOD,
            id="empty-data",
        ),
        pytest.param(lambda _: [window_update(0, 1)] * BATCH, NOTHING, id="window-update"),
        pytest.param(half_open, NOTHING, id="half-open"),
        pytest.param(ten_megabytes, NOTHING, id="slow-reader"),
    ],
)
async def test_a_quiet_connection_is_served_during_an_attack(
    tally: Any, attack: Batch, ended_for: set[str], kind: str
) -> None:
    """Every request is answered in time, and the attack goes on while it waits."""

    def attacked(sender: StreamSender, payload: bytes) -> None:
        sender.send(payload * BIG)

    quiet, tls = tally(), client(kind)
    server = NativeServer(
        {PATH.decode(): tally(attacked), OTHER.decode(): quiet},
        host="127.0.0.1",
        tls=TlsContext(certificate=PAIR.certificate, key=PAIR.key) if tls else None,
    )
    attacker = Attack(attack, reads=attack is not ten_megabytes)
    port = await server.start()
    try:
        async with raw_peer(port, tls=tls) as peer:
            await ask(peer, 0)
            async with under(attacker, port, tls):
                for number in range(1, REQUESTS):
                    before = attacker.batches
                    async with asyncio.timeout(ANSWER_SECONDS):
                        await ask(peer, number)
                        while attacker.batches == before:
                            await asyncio.sleep(0)
                async with asyncio.timeout(ANSWER_SECONDS):
                    while not ended_for <= set(server.stats.errors):
                        await asyncio.sleep(0)
        errors = set(server.stats.errors)
    finally:
        await server.stop(0)

    assert quiet.messages == REQUESTS
    assert ended_for <= errors <= FLOOD
