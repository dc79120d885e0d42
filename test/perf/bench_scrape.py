"""What scraping costs: CPU per page, and CPU of a process that scrapes 100 endpoints.

Run ``python test/perf/bench_scrape.py [--quick]``. The model servers are one other process that
answers canned pages on 127.0.0.0/8, so only our own CPU time is counted. Machines differ: compare
the ratios and the columns of one run, not the numbers of two.
"""

import argparse
import asyncio
import gzip
import multiprocessing
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Protocol, cast

import uvloop
from prometheus_client.parser import text_string_to_metric_families

from epp.backend.collector import Collector
from epp.backend.endpoint import Endpoint
from epp.backend.endpoint_rows import EndpointRows
from epp.backend.metrics_client import MetricsClient
from epp.backend.metrics_state import UNKNOWN_STATE
from epp.backend.providers.engines import EngineMappings
from epp.backend.providers.vllm import VLLM
from epp.backend.refresh_schedule import RefreshSettings
from epp.backend.scrape_errors import ScrapeError
from epp.backend.scrape_plan import ScrapePlan

RECORDED = Path(__file__).parents[1] / "testdata/metrics/vllm-0.32/metrics-load-a.txt.gz"
KV_USAGE = b"5063291139240507"
FULL_PAGE_BYTES = 94_000
ENDPOINTS = 100
BUDGET_SMALL_CORES = 0.1
BUDGET_FULL_CORES = 0.3
BUDGET_IDLE_CORES = 0.02


@dataclass(frozen=True, slots=True)
class Pages:
    """One page as a server that honours ``name[]`` sends it, and as one that does not."""

    small: bytes
    recorded: bytes
    full: bytes


def load_pages() -> Pages:
    """The recorded page, cut to the needed families and grown to the size of a busy server's."""
    recorded = gzip.decompress(RECORDED.read_bytes())
    if recorded.count(KV_USAGE) != 1:
        raise SystemExit(f"{RECORDED} does not hold the KV usage that this benchmark varies")
    names = tuple(name.encode() for name in ScrapePlan(VLLM).names)
    small = b"\n".join(line for line in recorded.split(b"\n") if any(n in line for n in names))
    other = recorded.replace(b"vllm:", b"other:")
    full = recorded + other[: FULL_PAGE_BYTES - len(recorded)]
    return Pages(small + b"\n", recorded, full[: full.rindex(b"\n") + 1])


class Counter(Protocol):
    """A number in memory that two processes share."""

    value: int


class PageServer(asyncio.Protocol):
    """Answers every request with a page whose KV usage differs each time."""

    def __init__(self, page: bytes, served: Counter) -> None:
        self._served = served
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(page)}\r\n"
        kind = "Content-Type: text/plain; version=1.0.0; charset=utf-8\r\n\r\n"
        self._answer = (f"{head}{kind}".encode() + page).split(KV_USAGE)
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Event loop callback."""
        self._transport = cast("asyncio.WriteTransport", transport)

    def data_received(self, data: bytes) -> None:
        """Event loop callback; our client sends a request in one piece."""
        if self._transport is not None and data.endswith(b"\r\n\r\n"):
            self._served.value += 1
            self._transport.write((b"%016d" % self._served.value).join(self._answer))


def serve(pages: Pages, ports: "Connection[list[int], object]", served: Counter) -> None:
    """Process: one port per page; reports the two ports and serves until it is killed."""

    async def run() -> None:
        loop = asyncio.get_running_loop()
        servers = [
            await loop.create_server(lambda page=page: PageServer(page, served), "0.0.0.0", 0)  # type: ignore[misc]  # mypy cannot type a lambda with a default
            for page in (pages.small, pages.full)
        ]
        ports.send([server.sockets[0].getsockname()[1] for server in servers])
        await asyncio.Event().wait()

    uvloop.run(run())


class _Repeat:
    """Listener that asks again until a number of pages has come."""

    def __init__(self, client: MetricsClient, port: int, plan: ScrapePlan, pages: int) -> None:
        self.done = asyncio.get_running_loop().create_future()
        self._fetcher = client.fetcher("127.0.0.1", port, self)
        self._plan = plan
        self._left = pages
        self._state = UNKNOWN_STATE

    def begin(self) -> None:
        """Ask for the first page."""
        self._fetcher.get(self._plan.query)

    def page_arrived(self, page: bytes) -> None:
        """Read it and ask for the next one."""
        self._state = self._plan.apply(page, self._state).state
        self._left -= 1
        if self._left:
            self._fetcher.get(self._plan.query)
        else:
            self._fetcher.close()
            self.done.set_result(None)

    def fetch_failed(self, error: ScrapeError) -> None:
        """End the measurement."""
        self.done.set_exception(error)

    def connection_lost(self) -> None:
        """Never between two pages of this server."""


class _NoMetrics:
    """Counts what should not happen."""

    def __init__(self) -> None:
        self.failures = 0

    def scrape_failed(self, reason: str) -> None:
        """A scrape failed."""
        self.failures += 1

    def scrape_partial(self, reason: str) -> None:
        """A page lacked something."""
        self.failures += 1


def micros_each(work: Callable[[], object], repeats: int) -> float:
    """CPU microseconds of one call, the best of three rounds."""
    best = float("inf")
    for _ in range(3):
        begin = time.process_time()
        for _ in range(repeats):
            work()
        best = min(best, (time.process_time() - begin) / repeats)
    return best * 1e6


async def fetch_micros(port: int, plan: ScrapePlan, pages: int) -> float:
    """CPU microseconds of fetching and reading one page over a kept-alive connection."""
    client = MetricsClient()
    begin = time.process_time()
    repeat = _Repeat(client, port, plan, pages)
    repeat.begin()
    await repeat.done
    spent = time.process_time() - begin
    await client.close()
    return spent / pages * 1e6


async def pool_cores(
    port: int, served: Counter, *, traffic: bool, seconds: float
) -> tuple[float, float]:
    """Cores that 100 endpoints take, and pages a second.

    Args:
        port: The page server's.
        served: Pages it has served.
        traffic: A request arrives every 20 ms, and takes a snapshot.
        seconds: How long to measure, after the start.
    """
    rows, metrics, client = EndpointRows(), _NoMetrics(), MetricsClient()
    collector = Collector(
        rows, client, EngineMappings(), metrics=metrics, settings=RefreshSettings()
    )
    await collector.start()
    for number in range(ENDPOINTS):
        endpoint = Endpoint(
            namespace="bench", pod_name=f"pod-{number}", address=f"127.0.1.{number + 1}", port=port
        )
        collector.endpoint_added(endpoint)
        rows.put(endpoint)
    await asyncio.sleep(1.0)
    begin, cpu, pages = time.monotonic(), time.process_time(), served.value
    while time.monotonic() - begin < seconds:
        if traffic:
            collector.request_arrived()
            rows.snapshot(time.monotonic())
        await asyncio.sleep(0.02 if traffic else seconds)
    wall, cpu, pages = time.monotonic() - begin, time.process_time() - cpu, served.value - pages
    stale = int(rows.snapshot(time.monotonic()).stale.sum())
    await collector.stop()
    if metrics.failures or stale:
        raise SystemExit(f"{metrics.failures} scrapes failed, {stale} endpoints are stale")
    return cpu / wall, pages / wall


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the result."""

    what: str
    measured: str
    budget: str = ""
    met: bool = True


def scan_rows(pages: Pages, repeats: int) -> list[Row]:
    """Cost of reading a page, beside prometheus_client's parser."""
    plan = ScrapePlan(VLLM)
    state = plan.apply(pages.recorded, UNKNOWN_STATE).state
    rows = []
    for name, page in (
        ("restricted page", pages.small),
        ("recorded vLLM 0.32 page", pages.recorded),
        ("full page", pages.full),
    ):
        text = page.decode()
        ours = micros_each(lambda page=page: plan.apply(page, state), repeats)  # type: ignore[misc]  # mypy cannot type a lambda with a default
        theirs = micros_each(
            lambda text=text: list(text_string_to_metric_families(text)),  # type: ignore[misc]  # as above
            max(1, repeats // 500),
        )
        measured = f"{ours:8.1f} µs, prometheus_client {theirs:8.0f} µs = {theirs / ours:4.0f} ×"
        rows.append(Row(f"read a {name}, {len(page):,} bytes", measured))
    return rows


async def run(pages: Pages, ports: list[int], served: Counter, *, quick: bool) -> list[Row]:
    """Measure everything."""
    small, full = ports
    repeats, seconds = (500, 2.0) if quick else (3000, 8.0)
    plan = ScrapePlan(VLLM)
    rows = scan_rows(pages, repeats)
    for name, port in (("restricted", small), ("full", full)):
        micros = await fetch_micros(port, plan, repeats)
        rows.append(Row(f"fetch and read a {name} page, loopback", f"{micros:8.1f} µs CPU"))
    for name, port, traffic, budget in (
        ("restricted pages at 50 ms", small, True, BUDGET_SMALL_CORES),
        ("full pages at 50 ms", full, True, BUDGET_FULL_CORES),
        ("restricted pages, no traffic", small, False, BUDGET_IDLE_CORES),
        ("full pages, no traffic", full, False, BUDGET_IDLE_CORES),
    ):
        cores, rate = await pool_cores(port, served, traffic=traffic, seconds=seconds)
        measured = f"{cores:8.3f} core, {rate:6.0f} pages/s"
        rows.append(Row(f"100 endpoints, {name}", measured, f"≤ {budget} core", cores <= budget))
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="shorter, less exact")
    quick = parser.parse_args(argv).quick
    pages = load_pages()
    context = multiprocessing.get_context("spawn")
    served = context.Value("q", 0, lock=False)
    ours, theirs = context.Pipe(duplex=False)
    server = context.Process(target=serve, args=(pages, theirs, served), daemon=True)
    server.start()
    try:
        ports = ours.recv()
        rows = uvloop.run(run(pages, ports, served, quick=quick))
    finally:
        server.terminate()
        server.join()
    for row in rows:
        verdict = f"{row.budget:>12}  {'ok' if row.met else 'MISSED'}" if row.budget else ""
        sys.stdout.write(f"{row.what:<50}{row.measured:<58}{verdict}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
