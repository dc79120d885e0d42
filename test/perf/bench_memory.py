"""Memory of a request in flight, and the time from the start to SERVING.

Resident memory of ``epp serve`` while N ext_proc exchanges are held open in the middle of their
response, minus the same while none is, divided by N, minus the request body. The first filling
grows the heap; the later ones use it again, and must not grow it further.

Usage: bench_memory.py [--quick]
"""

import argparse
import asyncio
import contextlib
import itertools
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from epp.gen.envoy.service.ext_proc.v3.external_processor_pb2 import ProtocolConfiguration
from epp.testing.ext_proc_client import GATEWAY, LEAN, ExtProcClient, ExtProcStream
from epp.testing.serve import Serve
from epp.testing.stack import Manifests, Sims

ENDPOINTS = 100
CONNECTIONS = 4
"""As many as an Envoy of a few workers has."""

BODY = b'{"model":"tiny","max_tokens":100,"prompt":"' + b"x" * 1000 + b'"}'
REQUEST = {":method": "POST", ":path": "/v1/completions", "content-type": "application/json"}
RESPONSE = {":status": "200", "content-type": "text/event-stream"}
CHUNK = b'data: {"choices":[{"text":"x"}]}\n\n'

BUDGET_KB = {"native": 20.0, "grpcio": 45.0}
BUDGET_START_SECONDS = 2.0
FILLINGS = 3
WARM_UP = 12_000
WARM_UP_AT_ONCE = 10
"""Exchanges before, a few at a time: they fill the log of decisions and the other rings, which are bounded."""

PATHS = {"lean": LEAN, "gateway": GATEWAY}


@dataclass(frozen=True)
class Filling:
    """Resident memory in KB around N exchanges held open."""

    empty: float
    full: float
    after: float


def resident_kb(pid: int) -> float:
    """Resident memory of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return float(line.split()[1])
    raise SystemExit(f"process {pid} has no memory")


async def hold(stream: ExtProcStream, *, streamed: bool) -> None:
    """Bring one exchange to the middle of its response."""
    await stream.request_headers(REQUEST)
    await stream.request_body(BODY)
    for _ in range(2):
        await stream.receive()
    await stream.response_headers(RESPONSE)
    await stream.receive()
    if streamed:
        await stream.response_body(CHUNK)
        await stream.receive()


async def finish(stream: ExtProcStream, *, streamed: bool) -> None:
    """End one exchange as a gateway does."""
    if streamed:
        await stream.response_body(b"data: [DONE]\n\n", end_of_stream=True)
    await stream.half_close()
    await stream.receive_all()


@contextlib.asynccontextmanager
async def held(
    clients: list[ExtProcClient], mode: ProtocolConfiguration, count: int
) -> AsyncIterator[list[ExtProcStream]]:
    """``count`` exchanges in flight."""
    async with contextlib.AsyncExitStack() as stack:
        streams = [
            await stack.enter_async_context(clients[n % len(clients)].exchange(mode))
            for n in range(count)
        ]
        for first in range(0, count, 50):
            batch = streams[first : first + 50]
            await asyncio.gather(*(hold(stream, streamed=mode is GATEWAY) for stream in batch))
        yield streams


async def exchange(clients: list[ExtProcClient], mode: ProtocolConfiguration, count: int) -> None:
    """``count`` exchanges from the first message to the last."""
    async with held(clients, mode, count) as streams:
        await asyncio.gather(*(finish(s, streamed=mode is GATEWAY) for s in streams))


async def fill(
    epp: Serve, clients: list[ExtProcClient], mode: ProtocolConfiguration, count: int
) -> Filling:
    """Hold exchanges open, then finish them all; memory before, during and after."""
    empty = resident_kb(epp.process_id)
    async with held(clients, mode, count) as streams:
        await asyncio.sleep(0.3)
        full = resident_kb(epp.process_id)
        await asyncio.gather(*(finish(s, streamed=mode is GATEWAY) for s in streams))
    await asyncio.sleep(0.3)
    return Filling(empty, full, resident_kb(epp.process_id))


async def measure(
    directory: Path, sims: Sims, transport: str, path: str, count: int
) -> list[Filling]:
    """A fresh process, warmed up, filled several times."""
    endpoints = [part for a in sims.addresses for part in ("--endpoint", f"{a}:{sims.port}")]
    chosen = ("--transport", transport, "--secure-serving=false")
    async with Serve(directory, *endpoints, *chosen) as epp:
        async with contextlib.AsyncExitStack() as stack:
            clients = [
                await stack.enter_async_context(ExtProcClient(epp.grpc_port))
                for _ in range(CONNECTIONS)
            ]
            for _ in range(0, WARM_UP, WARM_UP_AT_ONCE):
                await exchange(clients, PATHS[path], WARM_UP_AT_ONCE)
            return [await fill(epp, clients, PATHS[path], count) for _ in range(FILLINGS)]


async def measure_start(directory: Path, sims: Sims, source: str) -> float:
    """Seconds from the start of the process to SERVING."""
    if source == "endpoints":
        arguments = [p for a in sims.addresses for p in ("--endpoint", f"{a}:{sims.port}")]
    else:
        manifests = Manifests(directory / "manifests")
        manifests.pool(sims.port)
        manifests.pods(sims.addresses)
        arguments = ["--manifests", str(manifests.directory)]
    began = time.monotonic()
    async with Serve(directory, *arguments):
        return time.monotonic() - began


def memory_row(transport: str, path: str, count: int, fillings: list[Filling]) -> list[str]:
    """One line of the table."""
    base = fillings[0].empty
    each = [(filling.full - base) / count - len(BODY) / 1024 for filling in fillings]
    growth = (fillings[-1].full - fillings[1].full) / count
    return [
        transport,
        path,
        str(count),
        f"{base / 1024:.1f}",
        f"{fillings[0].full / 1024:.1f}",
        f"{each[0]:.1f}",
        f"{each[-1]:.1f}",
        f"{growth:+.1f}",
        f"{fillings[-1].after / 1024:.1f}",
        "yes" if max(each) <= BUDGET_KB[transport] else "NO",
    ]


async def run(*, quick: bool) -> None:
    """Measure and print."""
    memory = Table(title=f"memory per request in flight ({ENDPOINTS} endpoints)")
    for name in (
        *(
            "transport",
            "path",
            "in flight",
            "empty MB",
            "full MB",
            "KB each, first",
            "KB each, last",
        ),
        *("KB growth", "after MB", "in budget"),
    ):
        memory.add_column(name, justify="right")
    start = Table(title=f"start to SERVING, {ENDPOINTS} endpoints")
    for name in ("source", "seconds", "slowest", f"≤ {BUDGET_START_SECONDS:g} s"):
        start.add_column(name, justify="right")
    async with Sims(ENDPOINTS, first="127.0.61.1", arguments=["--honour-name-param"]) as sims:
        with tempfile.TemporaryDirectory() as directory:
            counts = (200,) if quick else (200, 1000)
            for transport, path, count in itertools.product(BUDGET_KB, PATHS, counts):
                fillings = await measure(Path(directory), sims, transport, path, count)
                memory.add_row(*memory_row(transport, path, count, fillings))
            for source in ("endpoints", "manifests"):
                times = [
                    await measure_start(Path(directory), sims, source)
                    for _ in range(1 if quick else 5)
                ]
                middle, slowest = sorted(times)[len(times) // 2], max(times)
                kept = "yes" if slowest <= BUDGET_START_SECONDS else "NO"
                start.add_row(source, f"{middle:.2f}", f"{slowest:.2f}", kept)
    console = Console(width=130)
    console.print(memory)
    console.print(start)


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="200 in flight only, one start")
    asyncio.run(run(quick=parser.parse_args(argv).quick))


if __name__ == "__main__":
    main()
