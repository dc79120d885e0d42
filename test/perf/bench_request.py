"""CPU per request and per reply chunk, through a real Envoy, on both data paths.

Process CPU (user + system) of the EPP and of Envoy, divided by requests; beside it the same for a
minimal grpc.aio server that lets everything pass, in the same run: compare ratios, machines differ.
Scraping goes on meanwhile and is part of the figure; its share is shown.

Usage: bench_request.py [--quick]
"""

import argparse
import asyncio
import contextlib
import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from epp.standalone import local_http
from epp.standalone.envoy_bootstrap import BootstrapSettings, render_bootstrap
from epp.standalone.options import DataPath
from epp.standalone.plan import find_envoy
from epp.testing.stack import Sims, eventually, free_port

HERE = Path(__file__).parent
ENDPOINTS = 100
SIM = [
    *("--model", "tiny", "--speed", "1000", "--num-gpu-blocks", "200000", "--honour-name-param"),
    *("--prefill-tokens-per-second", "100000000"),
]


@dataclass(frozen=True)
class Load:
    """One request shape."""

    name: str
    arguments: tuple[str, ...]
    per_chunk: bool = False


SMALL = Load("1 KB prompt, JSON reply", ("--prompt-bytes", "1000"))
LARGE = Load("450 KB prompt, JSON reply", ("--prompt-bytes", "450000", "--connections", "8"))
STREAM = Load("200 reply chunks, per chunk", ("--tokens", "200", "--stream"), per_chunk=True)


@dataclass(frozen=True)
class Figure:
    """CPU in microseconds per unit, and how many units a second."""

    server: float
    envoy: float
    rate: float


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.asynccontextmanager
async def child(*argv: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process that ends with the block."""
    quiet = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(*argv, stdin=quiet, stdout=quiet, stderr=quiet)
    try:
        yield process
    finally:
        process.terminate()
        await process.wait()


@contextlib.asynccontextmanager
async def gateway(
    directory: Path, path: DataPath, grpc: int, health: int
) -> AsyncIterator[tuple[int, int]]:
    """Envoy in front of a server; its port and process id."""
    port, admin = free_port(), free_port()
    settings = BootstrapSettings(
        path=path,
        listen_port=port,
        admin_port=admin,
        epp_port=grpc,
        epp_health_port=health,
        eds_file=str(directory / "endpoints.yaml"),
    )
    config = directory / f"envoy-{port}.yaml"
    config.write_text(render_bootstrap(settings))
    argv = [find_envoy(None), "-c", str(config), "--disable-hot-restart", "--concurrency", "1"]
    async with child(*argv, "--log-level", "error") as envoy:
        await eventually(lambda: local_http.answers("127.0.0.1", admin, "/ready"), seconds=20)
        yield port, envoy.pid


async def measure(load: Load, port: int, server: int, envoy: int, seconds: float) -> Figure:
    """Run a load; CPU of server and Envoy per unit."""
    argv = [sys.executable, str(HERE / "load.py"), "--port", str(port), *load.arguments]
    before = cpu_seconds(server), cpu_seconds(envoy)
    process = await asyncio.create_subprocess_exec(
        *argv, "--seconds", str(seconds), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    after = cpu_seconds(server), cpu_seconds(envoy)
    result = json.loads(out)
    counts = result["counts"]
    bad = {key: n for key, n in counts.items() if key not in {"200", "chunks"}}
    if bad or "200" not in counts:
        raise SystemExit(f"{load.name}: not every request was served: {counts}")
    units = counts["chunks"] if load.per_chunk else counts["200"]
    return Figure(
        server=(after[0] - before[0]) / units * 1e6,
        envoy=(after[1] - before[1]) / units * 1e6,
        rate=units / result["seconds"],
    )


async def measure_path(
    path: DataPath, directory: Path, sims: Sims, seconds: float
) -> list[list[str]]:
    """Both servers on one path; a row per load."""
    figures: dict[str, list[Figure]] = {}
    loads = [SMALL, LARGE, STREAM]
    echo_port = free_port()
    eds = directory / "endpoints.yaml"
    async with epp_server(directory, sims) as (grpc, health, pid, metrics):
        async with gateway(directory, path, grpc, health) as (port, envoy):
            for load in loads:
                figures[load.name] = [await measure(load, port, pid, envoy, seconds)]
        scrape = await scrape_share(pid, metrics)
    assert eds.exists()
    async with child(sys.executable, str(HERE / "ext_proc_echo.py"), str(echo_port), path) as echo:
        await asyncio.sleep(1.0)
        async with gateway(directory, path, echo_port, echo_port) as (port, envoy):
            for load in loads:
                figures[load.name].append(await measure(load, port, echo.pid, envoy, seconds))
    return [row(path, load, *figures[load.name]) for load in loads] + [
        [path, "scraping 100 endpoints, without traffic", f"{scrape:.3f} core", "", "", "", "", ""]
    ]


async def scrape_share(pid: int, _metrics: int) -> float:
    """Cores that an EPP without traffic uses."""
    await asyncio.sleep(1.5)
    before = cpu_seconds(pid)
    await asyncio.sleep(3.0)
    return (cpu_seconds(pid) - before) / 3.0


@contextlib.asynccontextmanager
async def epp_server(directory: Path, sims: Sims) -> AsyncIterator[tuple[int, int, int, int]]:
    """``epp serve`` on the simulated pods; ports and process id."""
    grpc, health, metrics = free_port(), free_port(), free_port()
    endpoints = [part for a in sims.addresses for part in ("--endpoint", f"{a}:{sims.port}")]
    argv = [
        *(sys.executable, "-m", "epp", "serve", *endpoints, "--secure-serving=false"),
        *("--grpc-port", str(grpc), "--grpc-health-port", str(health)),
        *("--metrics-port", str(metrics), "--eds-file", str(directory / "endpoints.yaml")),
    ]
    async with child(*argv) as process:
        ready = lambda: local_http.answers("127.0.0.1", metrics, "/readyz")  # noqa: E731
        await eventually(ready, seconds=20)
        yield grpc, health, process.pid, metrics


def row(path: DataPath, load: Load, ours: Figure, echo: Figure) -> list[str]:
    """One line of the table."""
    return [
        path,
        load.name,
        f"{ours.server:.0f}",
        f"{echo.server:.0f}",
        f"{ours.server / echo.server:.2f}",
        f"{ours.envoy:.0f}",
        f"{echo.envoy:.0f}",
        f"{ours.rate:.0f}",
    ]


async def run(*, quick: bool) -> None:
    """Measure and print."""
    seconds = 2.0 if quick else 6.0
    table = Table(title="CPU per request in µs (grpc.aio transport, 100 endpoints, 1 Envoy worker)")
    names = ["path", "load", "EPP", "echo", "EPP/echo", "Envoy", "Envoy (echo)", "EPP units/s"]
    for name in names:
        table.add_column(name, justify="left" if name in {"path", "load"} else "right")
    async with Sims(ENDPOINTS, first="127.0.60.1", arguments=SIM) as sims:
        paths: tuple[DataPath, ...] = ("lean", "gateway")
        for path in paths:
            with tempfile.TemporaryDirectory() as directory:
                for line in await measure_path(path, Path(directory), sims, seconds):
                    table.add_row(*line)
    Console(width=130).print(table)


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="2 s a figure instead of 6")
    asyncio.run(run(quick=parser.parse_args(argv).quick))


if __name__ == "__main__":
    main()
