"""CPU per request and per reply chunk, through a real Envoy: both data paths, both transports, TLS.

Process CPU (user + system) of the EPP and of Envoy, divided by requests; beside it the same for a
minimal grpc.aio server that lets everything pass, in the same run: compare ratios, machines differ.
Scraping goes on meanwhile; "EPP - scraping" takes off what it costs under traffic, measured apart.

Usage: bench_request.py [--quick]
"""

import argparse
import asyncio
import contextlib
import json
import os
import socket
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

LOADS = (SMALL, LARGE, STREAM)


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


@dataclass(frozen=True)
class Setup:
    """One way to serve."""

    path: DataPath
    transport: str
    tls: bool = False

    @property
    def name(self) -> str:
        """For the table."""
        return f"{self.transport}, TLS" if self.tls else self.transport


SETUPS = (
    Setup("lean", "native"),
    Setup("lean", "native", tls=True),
    Setup("lean", "grpcio"),
    Setup("gateway", "native"),
    Setup("gateway", "native", tls=True),
    Setup("gateway", "grpcio"),
    Setup("gateway", "grpcio", tls=True),
)


@contextlib.asynccontextmanager
async def gateway(
    directory: Path, path: DataPath, grpc: int, health: int, *, tls: bool = False
) -> AsyncIterator[tuple[int, int]]:
    """Envoy in front of a server; its port and process id."""
    port, admin = free_port(), free_port()
    settings = BootstrapSettings(
        path=path,
        listen_port=port,
        admin_port=admin,
        epp_port=grpc,
        epp_health_port=health,
        epp_tls=tls,
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


async def measure_echo(path: DataPath, directory: Path, seconds: float) -> dict[str, Figure]:
    """The unit: a minimal grpc.aio server on one path, by load."""
    port = free_port()
    async with child(sys.executable, str(HERE / "ext_proc_echo.py"), str(port), path) as echo:
        await eventually(lambda: answers_grpc(port), seconds=20, what="echo server")
        async with gateway(directory, path, port, port) as (listener, envoy):
            return {
                load.name: await measure(load, listener, echo.pid, envoy, seconds) for load in LOADS
            }


def answers_grpc(port: int) -> bool:
    """Something listens there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def measure_setup(
    setup: Setup, directory: Path, sims: Sims, seconds: float
) -> dict[str, Figure]:
    """The EPP in one setup, by load."""
    async with epp_server(directory, sims, setup) as (grpc, health, pid):
        async with gateway(directory, setup.path, grpc, health, tls=setup.tls) as (port, envoy):
            return {load.name: await measure(load, port, pid, envoy, seconds) for load in LOADS}


async def measure_scraping(directory: Path, sims: Sims, seconds: float) -> tuple[float, float]:
    """Cores that scraping takes: without traffic, and while pods serve requests of another gateway.

    One slow reply through the EPP's own gateway keeps the pool awake; on the lean path it costs
    the EPP nothing. The other gateway's requests make pages change as they do under load.
    """
    echo_port = free_port()
    async with epp_server(directory, sims, SETUPS[0]) as (grpc, health, pid):
        await asyncio.sleep(1.5)
        before = cpu_seconds(pid)
        await asyncio.sleep(3.0)
        idle = (cpu_seconds(pid) - before) / 3.0
        async with (
            gateway(directory, "lean", grpc, health) as (port, _),
            child(sys.executable, str(HERE / "ext_proc_echo.py"), str(echo_port), "lean"),
            gateway(directory, "lean", echo_port, echo_port) as (other_port, _),
        ):
            await eventually(lambda: answers_grpc(echo_port), seconds=20, what="echo server")
            return idle, await scrape_share(pid, port, other_port, max(seconds, 3.0))


async def scrape_share(pid: int, port: int, other_port: int, seconds: float) -> float:
    """Cores that scraping takes while another gateway's requests are served."""
    slow = ("--connections", "1", "--tokens", "2000", "--stream")
    loads = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, str(HERE / "load.py"), "--port", str(at), *arguments),
            *("--seconds", str(seconds)),
            stdout=asyncio.subprocess.DEVNULL,
        )
        for at, arguments in ((port, slow), (other_port, SMALL.arguments))
    ]
    await asyncio.sleep(0.5)
    before = cpu_seconds(pid)
    await asyncio.sleep(seconds - 1.0)
    awake = (cpu_seconds(pid) - before) / (seconds - 1.0)
    for load in loads:
        await load.wait()
    return awake


@contextlib.asynccontextmanager
async def epp_server(
    directory: Path, sims: Sims, setup: Setup
) -> AsyncIterator[tuple[int, int, int]]:
    """``epp serve`` on the simulated pods; ports and process id."""
    grpc, health, metrics = free_port(), free_port(), free_port()
    endpoints = [part for a in sims.addresses for part in ("--endpoint", f"{a}:{sims.port}")]
    argv = [
        *(sys.executable, "-m", "epp", "serve", *endpoints, "--transport", setup.transport),
        f"--secure-serving={str(setup.tls).lower()}",
        *("--grpc-port", str(grpc), "--grpc-health-port", str(health)),
        *("--metrics-port", str(metrics), "--eds-file", str(directory / "endpoints.yaml")),
    ]
    async with child(*argv) as process:
        ready = lambda: local_http.answers("127.0.0.1", metrics, "/readyz")  # noqa: E731
        await eventually(ready, seconds=20)
        yield grpc, health, process.pid


def row(setup: Setup, load: Load, ours: Figure, echo: Figure, *, scraping: float) -> list[str]:
    """One line of the table."""
    alone = ours.server - scraping / ours.rate * 1e6
    return [
        setup.path,
        load.name,
        setup.name,
        f"{ours.server:.0f}",
        f"{alone:.1f}" if load.per_chunk else f"{alone:.0f}",
        f"{echo.server:.0f}",
        f"{alone / echo.server:.2f}",
        f"{ours.envoy:.0f}",
        f"{echo.envoy:.0f}",
        f"{ours.rate:.0f}",
    ]


async def run(*, quick: bool) -> None:
    """Measure and print."""
    seconds = 2.0 if quick else 6.0
    table = Table(title="CPU per request in µs (100 endpoints, 1 Envoy worker)")
    names = [
        *("path", "load", "transport", "EPP", "EPP - scraping", "echo", "/ echo"),
        *("Envoy", "Envoy (echo)", "units/s"),
    ]
    for name in names:
        left = name in {"path", "load", "transport"}
        table.add_column(name, justify="left" if left else "right")
    async with Sims(ENDPOINTS, first="127.0.60.1", arguments=SIM) as sims:
        with tempfile.TemporaryDirectory() as directory:
            idle, awake = await measure_scraping(Path(directory), sims, seconds)
        echo: dict[str, dict[str, Figure]] = {}
        figures: dict[Setup, dict[str, Figure]] = {}
        for setup in SETUPS:
            with tempfile.TemporaryDirectory() as directory:
                figures[setup] = await measure_setup(setup, Path(directory), sims, seconds)
                if setup.path not in echo:
                    echo[setup.path] = await measure_echo(setup.path, Path(directory), seconds)
        for path in echo:
            for load in LOADS:
                for setup in (one for one in SETUPS if one.path == path):
                    ours, unit = figures[setup][load.name], echo[path][load.name]
                    table.add_row(*row(setup, load, ours, unit, scraping=awake))
    table.caption = (
        f"scraping {ENDPOINTS} endpoints: {idle:.3f} core idle, {awake:.3f} under traffic"
    )
    Console(width=140).print(table)


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="2 s a figure instead of 6")
    asyncio.run(run(quick=parser.parse_args(argv).quick))


if __name__ == "__main__":
    main()
