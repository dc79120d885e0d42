"""Many streams with random ends leave nothing behind."""

import asyncio
import gc
import random
import tracemalloc
import weakref
from collections.abc import Callable
from typing import Any

from epp.testing.raw_http2 import data, message, raw_peer, request, reset
from epp.transport.native_server import NativeServer

PATH = b"/test.Service/Talk"
STREAMS_PER_CONNECTION = 500
ROUNDS = 8


async def connection(port: int, draw: random.Random, all_arrived: Callable[[], bool]) -> None:
    """Streams that end in every way, the last ones with their connection."""
    parts = []
    for number in range(STREAMS_PER_CONNECTION):
        stream_id = 2 * number + 1
        end = draw.choice(["finish", "reset", "reset-within", "leave"])
        payload = message(b"x" * 100)
        sent = payload[:50] if end == "reset-within" else payload
        parts += [request(stream_id, PATH), data(stream_id, sent, end=end == "finish")]
        if end.startswith("reset"):
            parts.append(reset(stream_id))
    async with raw_peer(port) as peer:
        for at in range(0, len(parts), 20):
            await peer.send(*parts[at : at + 20])
        await until(all_arrived)


async def until(fact: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not fact():
            await asyncio.sleep(0.005)


async def test_streams_with_random_ends_leave_nothing_behind(tally: Any) -> None:
    """The full number is in test/perf."""
    service = tally()
    server = NativeServer({PATH.decode(): service}, host="127.0.0.1")
    port = await server.start()
    tasks = len(asyncio.all_tasks())
    draw, sizes = random.Random(7), []
    tracemalloc.start()
    try:
        for _ in range(ROUNDS):
            await connection(port, draw, lambda: len(service.handlers) == STREAMS_PER_CONNECTION)
            await until(lambda: not server.open_connections)
            assert (len(service.ends), {len(ends) for ends in service.ends}) == (
                STREAMS_PER_CONNECTION,
                {1},
            )
            service.handlers.clear()
            gc.collect()
            sizes.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    left = server.open_streams, server.open_connections, len(asyncio.all_tasks())
    await server.stop(0)

    assert left == (0, 0, tasks)
    assert server.stats.streams == ROUNDS * STREAMS_PER_CONNECTION
    assert sizes[-1] - sizes[3] < 50_000


async def test_a_connection_is_freed_without_the_garbage_collector(tally: Any) -> None:
    """Peers that come and go would fill the memory until it has run."""
    service = tally()
    server = NativeServer({PATH.decode(): service}, host="127.0.0.1")
    port = await server.start()
    late = [(b"grpc-timeout", b"1m")]
    gc.collect()
    gc.disable()
    try:
        async with raw_peer(port) as peer:
            await peer.send(
                request(1, PATH), data(1, message(b"x")[:3]), request(3, PATH, extra=late)
            )
            await until(lambda: len(service.handlers) == 2 and bool(service.handlers[1].ends))
            streams = [weakref.ref(protocol) for protocol in server._protocols]
        await until(lambda: not server.open_connections)
        service.handlers.clear()
        await asyncio.sleep(0)
        left = [reference() for reference in streams]
    finally:
        gc.enable()
    await server.stop(0)

    assert left == [None]
