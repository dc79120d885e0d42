"""Many streams with random ends leave nothing behind."""

import asyncio
import gc
import random
import tracemalloc
from typing import Any

from epp.testing.raw_http2 import data, message, raw_peer, request, reset
from epp.transport.native_server import NativeServer

PATH = b"/test.Service/Talk"
STREAMS_PER_CONNECTION = 500
ROUNDS = 12


async def connection(port: int, draw: random.Random) -> None:
    """Streams that end in every way, the last ones with their connection."""
    async with raw_peer(port) as peer:
        for number in range(STREAMS_PER_CONNECTION):
            stream_id = 2 * number + 1
            end = draw.choice(["finish", "reset", "reset-within", "leave"])
            whole = data(stream_id, message(b"x" * 100), end=end == "finish")
            part = data(stream_id, message(b"x" * 100)[:50])
            parts = [request(stream_id, PATH), part if end == "reset-within" else whole]
            await peer.send(*parts, *([reset(stream_id)] if end.startswith("reset") else []))
        await peer.settle()


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
            await connection(port, draw)
            async with asyncio.timeout(10):
                while server.open_connections:
                    await asyncio.sleep(0.005)
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
