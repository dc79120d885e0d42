"""A hundred thousand streams with random ends leave nothing behind."""

import asyncio
import gc
import random
import resource
import sys
import weakref
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from epp.testing.raw_http2 import (
    PREFACE,
    data,
    message,
    raw_peer,
    request,
    reset,
    settings,
    window_update,
)
from epp.transport.native_server import NativeServer

PATH = b"/test.Service/Talk"
WIDE = PREFACE + settings({4: 0x7FFFFFFF}) + window_update(0, 0x3FFF0000)
STREAMS_PER_CONNECTION = 500
ROUNDS = 100
"""Two loops have each their half of the hundred thousand."""

SETTLED = 20
"""Rounds until what is kept once for all is there."""

MIB = 1 << 20
STATM = Path("/proc/self/statm")

pytestmark = pytest.mark.timeout(120)


async def connection(port: int, draw: random.Random, all_arrived: Callable[[], bool]) -> None:
    """Streams that end in every way, the last ones with their connection."""
    parts = []
    for number in range(STREAMS_PER_CONNECTION):
        stream_id = 2 * number + 1
        end = draw.choice(["finish", "reset", "reset-within", "leave", "leave-within"])
        payload = message(b"x" * 100)
        sent = payload[:50] if end.endswith("within") else payload
        parts += [request(stream_id, PATH), data(stream_id, sent, end=end == "finish")]
        if end.startswith("reset"):
            parts.append(reset(stream_id))
    async with raw_peer(port, greeting=WIDE) as peer:
        for at in range(0, len(parts), 100):
            await peer.send(*parts[at : at + 100])
        await until(all_arrived)
        if draw.random() < 0.5:
            peer.abort()


async def until(fact: Callable[[], bool]) -> None:
    """A timeout would leave its timer behind, which counts here."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + 20
    while not fact():
        assert loop.time() < deadline
        await asyncio.sleep(0.001)


def resident_bytes() -> int:
    """Memory of the process, the engine's own included."""
    pages = int(STATM.read_bytes().split()[1])
    return pages * resource.getpagesize()


async def test_streams_with_random_ends_leave_nothing_behind(tally: Any) -> None:
    service = tally()
    server = NativeServer({PATH.decode(): service}, host="127.0.0.1")
    port = await server.start()
    tasks = len(asyncio.all_tasks())
    draw, kept, resident = random.Random(7), array("q"), array("q")
    try:
        for _ in range(ROUNDS):
            await connection(port, draw, lambda: len(service.handlers) == STREAMS_PER_CONNECTION)
            await until(lambda: not server.open_connections)
            assert {len(ends) for ends in service.ends} == {1}
            assert len(service.handlers) == STREAMS_PER_CONNECTION
            service.handlers.clear()
            gc.collect()
            kept.append(sys.getallocatedblocks())
            resident.append(resident_bytes())
        left = server.open_streams, server.open_connections, len(asyncio.all_tasks())
        opened = server.stats.streams
    finally:
        await server.stop(0)

    assert left == (0, 0, tasks)
    assert opened == ROUNDS * STREAMS_PER_CONNECTION
    assert kept[-1] - kept[SETTLED] < 2 * ROUNDS  # for 250 times as many streams
    assert resident[-1] - resident[SETTLED] < 2 * MIB


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
