"""What the transports cost: both side by side, with a handler that does next to nothing.

Four tables: CPU per request and reply chunk through a real Envoy (lean and gateway, with and
without TLS), with what that Envoy does of the things the limits count; memory of streams in flight
and after many; many streams with random ends; latency of a quiet connection during attacks.
Compare columns of one run: machines differ. A table can be had alone.

Usage: bench_transport.py [--quick] [cpu] [memory] [drift] [attacks]
"""

import argparse
import asyncio
import contextlib
import functools
import json
import random
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench_memory import resident_kb  # type: ignore[import-not-found]  # a script beside this one
from bench_request import SIM, Load, cpu_seconds, gateway, measure  # type: ignore[import-not-found]  # a script beside this one
from rich.console import Console
from rich.table import Table
from transport_attack import NAMES, WIDE  # type: ignore[import-not-found]  # a script beside this one

from epp.backend.endpoint import Endpoint
from epp.standalone import local_http
from epp.standalone.eds import EdsWriter
from epp.standalone.options import DataPath
from epp.testing.authority import Authority
from epp.testing.raw_http2 import data, message, raw_peer, request, reset
from epp.testing.stack import Sims, eventually, free_port

HERE = Path(__file__).parent
ECHO = b"/bench.Echo/Echo"
TRANSPORTS = ("grpcio", "native")
SMALL = Load("small request, JSON reply", ("--prompt-bytes", "200"))
LARGE = Load("450 KB prompt, JSON reply", ("--prompt-bytes", "450000", "--connections", "8"))
CHUNK = Load("per streamed reply chunk", ("--tokens", "200", "--stream"), per_chunk=True)
PAYLOAD = b"x" * 600
ASK_EVERY_SECONDS = 0.005
BUSY = "while True: pass"
CONSOLE = Console(width=130)


@dataclass(frozen=True)
class Server:
    """A running ``transport_echo.py``."""

    process: asyncio.subprocess.Process
    port: int
    health: int

    @property
    def pid(self) -> int:
        """Its process."""
        return self.process.pid

    async def counters(self) -> dict[str, Any]:
        """What happened so far; nothing for grpc.aio."""
        self.process.send_signal(signal.SIGUSR1)
        assert self.process.stdout is not None
        line = await asyncio.wait_for(self.process.stdout.readline(), 10)
        found: dict[str, Any] = json.loads(line)
        return found


@contextlib.asynccontextmanager
async def serving(
    transport: str, path: DataPath, pair: tuple[Path, Path] | None = None
) -> AsyncIterator[Server]:
    """A server in a process of its own."""
    port, health = free_port(), free_port()
    tls = [] if pair is None else ["--tls", *map(str, pair)]
    argv = [sys.executable, str(HERE / "transport_echo.py"), transport, path]
    process = await asyncio.create_subprocess_exec(
        *(*argv, str(port), str(health), *tls),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        assert process.stdout is not None
        await asyncio.wait_for(process.stdout.readline(), 20)
        yield Server(process, port, health)
    finally:
        process.kill()
        await process.wait()


def make_pair(directory: Path) -> tuple[Path, Path]:
    """Certificate and key on disk."""
    issued = Authority().issue("epp", hosts=["localhost", "127.0.0.1"])
    files = directory / "tls.crt", directory / "tls.key"
    files[0].write_bytes(issued.certificate)
    files[1].write_bytes(issued.key)
    return files


async def cpu(seconds: float) -> None:
    """CPU through Envoy."""
    table = Table(title="CPU in µs per unit (Envoy's own in brackets)")
    for name in ("path", "TLS", "load", *TRANSPORTS, "native / grpcio"):
        table.add_column(name, justify="left" if name in {"path", "TLS", "load"} else "right")
    notes = []
    paths: tuple[DataPath, ...] = ("lean", "gateway")
    async with Sims(1, first="127.0.61.1", arguments=SIM) as sims:
        for path in paths:
            for encrypted in (False, True):
                with tempfile.TemporaryDirectory() as name:
                    rows, used = await cpu_of(Path(name), path, sims, seconds, tls=encrypted)
                for row in rows:
                    table.add_row(path, "yes" if encrypted else "no", *row)
                notes.append(f"{path}{', TLS' if encrypted else ''}: {used}")
    CONSOLE.print(table)
    CONSOLE.print("What Envoy did on native, and the most tokens a connection was short of:")
    for note in notes:
        CONSOLE.print(f"  {note}")


async def cpu_of(
    directory: Path, path: DataPath, sims: Sims, seconds: float, *, tls: bool
) -> tuple[list[list[str]], str]:
    """Both transports on one path; a row per load, and what the native one counted."""
    loads = [SMALL, LARGE] if path == "lean" else [SMALL, LARGE, CHUNK]
    pair = make_pair(directory) if tls else None
    EdsWriter(directory / "endpoints.yaml").endpoint_added(
        Endpoint(namespace="bench", pod_name="sim", address=sims.addresses[0], port=sims.port)
    )
    figures: dict[str, list[tuple[float, float]]] = {load.name: [] for load in loads}
    used = ""
    for transport in TRANSPORTS:
        async with (
            serving(transport, path, pair) as server,
            gateway(directory, path, server.port, server.health, tls=tls) as (port, envoy),
        ):
            answers = functools.partial(local_http.answers, "127.0.0.1", port, "/v1/models")
            await eventually(answers)
            for load in loads:
                found = await measure(load, port, server.pid, envoy, seconds)
                figures[load.name].append((found.server, found.envoy))
                if transport == "native":
                    used += f"{load.name}: {_activity(await server.counters(), seconds)}; "
    rows = [
        [name, *(f"{ours:.1f} ({envoy:.0f})" for ours, envoy in pairs), _ratio(pairs)]
        for name, pairs in figures.items()
    ]
    return rows, used


def _ratio(pairs: list[tuple[float, float]]) -> str:
    return f"{pairs[1][0] / pairs[0][0]:.2f}"


def _activity(found: dict[str, Any], seconds: float) -> str:
    used = ", ".join(f"{name} {tokens:.0f}" for name, tokens in found["used"].items())
    rate = found["resets"] / seconds
    return (
        f"{found['streams']} streams, {found['resets']} resets ({rate:.0f}/s), "
        f"errors {found['errors']}, short of: {used}"
    )


async def memory(*, quick: bool) -> None:
    """Resident memory of streams held open, and after many."""
    count, many = 4_000, 20_000 if quick else 100_000
    table = Table(title=f"memory: {count} streams in flight on 4 connections, {many} requests")
    for name in (
        "transport",
        "KB per stream",
        "MB empty",
        "full",
        "full again",
        "after the requests",
    ):
        table.add_column(name, justify="right")
    for transport in TRANSPORTS:
        async with serving(transport, "lean") as server:
            await requests(server.port, 2_000)
            before = resident_kb(server.pid)
            during = await hold(server.port, count, server.pid)
            again = await hold(server.port, count, server.pid)
            await requests(server.port, many)
            after = resident_kb(server.pid)
        per_stream = f"{(during - before) / count:.1f}"
        sizes = (f"{size / 1024:.1f}" for size in (before, during, again, after))
        table.add_row(transport, per_stream, *sizes)
    CONSOLE.print(table)


async def hold(port: int, count: int, pid: int) -> float:
    """Resident memory in KB while so many streams are open, each answered once."""
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(4):
            peer = await stack.enter_async_context(raw_peer(port, greeting=WIDE))
            ids = range(1, count // 4 * 2, 2)
            for at in ids:
                await peer.send(request(at, ECHO), data(at, message(PAYLOAD)))
                await peer.read_body(at, len(PAYLOAD) + 5)
        return float(resident_kb(pid))


async def requests(port: int, count: int) -> None:
    """So many streams, one message each, fifty at a time."""
    async with raw_peer(port, greeting=WIDE) as peer:
        for first in range(1, 2 * count, 100):
            ids = range(first, first + 100, 2)
            await peer.send(*(request(i, ECHO) + data(i, message(b"x"), end=True) for i in ids))
            await peer.read_ends(len(ids))


async def drift(*, quick: bool) -> None:
    """10^5 streams with random ends: what is left."""
    count = 20_000 if quick else 100_000
    draw = random.Random(1)  # noqa: S311 - a seeded draw
    async with serving("native", "lean") as server:
        marks = []
        for step in range(10):
            for _ in range(count // 10 // 500):
                await random_ends(server.port, draw)
            marks.append(resident_kb(server.pid) / 1024)
            if step == 0:
                await asyncio.sleep(0.1)
        found = await server.counters()
    CONSOLE.print(
        f"drift: {found['streams']} streams, {found['resets']} resets, "
        f"{found['connections']} connections; MB at each tenth: "
        + " ".join(f"{mark:.1f}" for mark in marks)
    )


async def random_ends(port: int, draw: random.Random) -> None:
    """Five hundred streams that end in every way."""
    parts = []
    for number in range(500):
        stream_id = 2 * number + 1
        end = draw.choice(["finish", "reset", "reset-within", "leave"])
        whole = message(PAYLOAD)
        sent = whole[:300] if end == "reset-within" else whole
        parts += [request(stream_id, ECHO), data(stream_id, sent, end=end == "finish")]
        if end.startswith("reset"):
            parts.append(reset(stream_id))
    async with raw_peer(port, greeting=WIDE) as peer:
        for at in range(0, len(parts), 100):
            await peer.send(*parts[at : at + 100])
        await peer.settle()


async def attacks(seconds: float) -> None:
    """The quiet connection's latency: alone, beside a process that is merely busy, attacked."""
    table = Table(title="a quiet connection's requests on native, ms")
    columns = ("attack", "p50", "p99", "p99 alone", "p99 beside a busy process", "/ alone")
    for name in (*columns, "/ busy", "CPU", "counted"):
        table.add_column(name, justify="left" if name in {"attack", "counted"} else "right")
    for name in NAMES:
        async with serving("native", "lean") as server:
            alone = await ask(server.port, seconds)
            busy, _ = await ask_beside(["-c", BUSY], server, seconds)
            argv = [str(HERE / "transport_attack.py"), name, str(server.port), f"{seconds + 2.0}"]
            attacked, share = await ask_beside(argv, server, seconds)
            errors = (await server.counters())["errors"]
        p99 = [_at(times, 0.99) for times in (attacked, alone, busy)]
        table.add_row(
            name,
            *(f"{at * 1e3:.2f}" for at in (_at(attacked, 0.5), *p99)),
            *(f"{p99[0] / other:.1f}" for other in p99[1:]),
            f"{share:.2f}",
            str(errors),
        )
    CONSOLE.print(table)


async def ask_beside(argv: list[str], server: Server, seconds: float) -> tuple[list[float], float]:
    """Ask while another process runs; latencies, and the server's share of a core."""
    other = await asyncio.create_subprocess_exec(sys.executable, *argv)
    try:
        await asyncio.sleep(1.0)  # it has to start
        before = cpu_seconds(server.pid)
        times = await ask(server.port, seconds)
        return times, (cpu_seconds(server.pid) - before) / seconds
    finally:
        other.kill()
        await other.wait()


def _at(times: list[float], share: float) -> float:
    return sorted(times)[int(share * (len(times) - 1))]


async def ask(port: int, seconds: float) -> list[float]:
    """One message and its answer every few milliseconds; how long each took."""
    times = []
    until = time.monotonic() + seconds
    async with raw_peer(port, greeting=WIDE) as peer:
        await peer.send(request(1, ECHO))
        while time.monotonic() < until:
            began = time.perf_counter()
            await peer.send(data(1, message(b"are you there")))
            await peer.read_body(1, 18)
            times.append(time.perf_counter() - began)
            await asyncio.sleep(ASK_EVERY_SECONDS)
    return times


async def run(tables: list[str], *, quick: bool) -> None:
    """Measure and print."""
    seconds = 2.0 if quick else 6.0
    if "cpu" in tables:
        await cpu(seconds)
    if "memory" in tables:
        await memory(quick=quick)
    if "drift" in tables:
        await drift(quick=quick)
    if "attacks" in tables:
        await attacks(seconds)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="2 s a figure instead of 6")
    names = ["cpu", "memory", "drift", "attacks"]
    parser.add_argument("tables", nargs="*", help=f"which, of {', '.join(names)}; all")
    chosen = parser.parse_args()
    unknown = [name for name in chosen.tables if name not in names]
    if unknown:
        parser.error(f"no such table: {unknown[0]}; there are {', '.join(names)}")
    asyncio.run(run(chosen.tables or list(names), quick=chosen.quick))


if __name__ == "__main__":
    main()
