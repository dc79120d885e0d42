"""The collector with real servers: life cycle of endpoints, wake-up, restricted questions, stop."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector as MetricSource

from epp.backend.collector import Collector
from epp.backend.endpoint import Endpoint
from epp.backend.endpoint_rows import EndpointRows
from epp.backend.live_columns import EndpointRow
from epp.backend.metrics_client import ClientSettings, MetricsClient
from epp.backend.providers.engines import EngineMappings, MetricOverrides
from epp.backend.refresh_schedule import RefreshSettings

FAST = RefreshSettings(refresh_seconds=0.02, idle_seconds=0.04, backoff_max_seconds=0.04)
QUIET = RefreshSettings(refresh_seconds=0.02, idle_seconds=3600.0, backoff_max_seconds=3600.0)


def endpoint(port: int, **changes: Any) -> Endpoint:
    base = Endpoint(namespace="n", pod_name="pod", address="127.0.0.1", port=port)
    return replace(base, **changes)


def page(waiting: int) -> bytes:
    body = f"vllm:num_requests_waiting {waiting}\n".encode()
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


def always(data: bytes) -> Any:
    async def answer(_target: str, writer: asyncio.StreamWriter) -> None:
        writer.write(data)

    return answer


class SignallingRows(EndpointRows):
    """Rows that tell when a scrape has been written."""

    def __init__(self) -> None:
        super().__init__()
        self._written = asyncio.Event()

    def publish(self, *args: Any, **kwargs: Any) -> None:
        super().publish(*args, **kwargs)
        self._written.set()

    def fail(self, *args: Any, **kwargs: Any) -> None:
        super().fail(*args, **kwargs)
        self._written.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._written.clear()
            await self._written.wait()


class Counts:
    """Failures by reason."""

    def __init__(self) -> None:
        self.failed: list[str] = []
        self.partial: list[str] = []

    def scrape_failed(self, reason: str) -> None:
        self.failed.append(str(reason))

    def scrape_partial(self, reason: str) -> None:
        self.partial.append(str(reason))


class Pool:
    """A collector and its rows."""

    def __init__(self, settings: RefreshSettings = FAST, **options: Any) -> None:
        self.rows = SignallingRows()
        self.client = MetricsClient(ClientSettings(timeout_seconds=0.5))
        self.counts = Counts()
        self.collector = Collector(
            self.rows,
            self.client,
            options.pop("mappings", EngineMappings()),
            metrics=self.counts,
            settings=settings,
            **options,
        )

    def add(self, added: Endpoint) -> None:
        self.collector.endpoint_added(added)
        self.rows.put(added)

    def remove(self, removed: Endpoint) -> None:
        self.rows.remove(removed.key)
        self.collector.endpoint_removed(removed)

    def row(self, of: Endpoint) -> EndpointRow:
        row = self.rows.get(of.key)
        assert row is not None
        return row

    async def until_waiting(self, of: Endpoint, waiting: int) -> None:
        await self.rows.until(lambda: self.row(of).state.waiting_requests == waiting)


@pytest.fixture
async def make_pool() -> AsyncIterator[Callable[..., Pool]]:
    pools: list[Pool] = []

    def make(*args: Any, **kwargs: Any) -> Pool:
        pools.append(Pool(*args, **kwargs))
        return pools[-1]

    yield make
    for pool in pools:
        await pool.collector.stop()
        assert pool.client.open_connections == 0


async def test_endpoints_are_scraped_whether_told_before_or_after_the_start(
    scripted_server: Any, make_pool: Any
) -> None:
    server = await scripted_server(always(page(7)))
    pool = make_pool(QUIET)
    early, late = endpoint(server.port, pod_name="a"), endpoint(server.port, pod_name="b")

    pool.add(early)
    await pool.collector.start()
    pool.add(late)

    await pool.until_waiting(early, 7)
    await pool.until_waiting(late, 7)
    table = pool.rows.snapshot(time.monotonic())
    assert not table.stale.any()


async def test_values_follow_the_server(scripted_server: Any, make_pool: Any) -> None:
    server = await scripted_server(always(page(1)))
    pool, pod = make_pool(), endpoint(server.port)
    await pool.collector.start()
    pool.add(pod)
    await pool.until_waiting(pod, 1)

    server.answer = always(page(2))

    await pool.until_waiting(pod, 2)
    assert server.accepted == 1


async def test_a_dead_server_fails_and_recovers(scripted_server: Any, make_pool: Any) -> None:
    server = await scripted_server(always(page(1)))
    pool, pod = make_pool(), endpoint(server.port)
    await pool.collector.start()
    pool.add(pod)
    await pool.until_waiting(pod, 1)

    await server.stop()
    await pool.rows.until(lambda: pool.row(pod).failing)
    assert pool.row(pod).state.waiting_requests == 1
    assert pool.counts.failed[-1] == "connect"

    await scripted_server(always(page(2)), port=server.port)
    await pool.until_waiting(pod, 2)
    assert not pool.row(pod).failing


async def test_a_server_that_dies_between_slow_scrapes_is_noticed_at_once(
    scripted_server: Any, make_pool: Any
) -> None:
    server = await scripted_server(always(page(1)))
    pool, pod = make_pool(QUIET), endpoint(server.port)
    await pool.collector.start()
    pool.add(pod)
    await pool.until_waiting(pod, 1)

    await server.stop()

    await pool.rows.until(lambda: pool.row(pod).failing)


async def test_a_request_wakes_the_pool(scripted_server: Any, make_pool: Any) -> None:
    server = await scripted_server(always(page(1)))
    pool, pod = make_pool(QUIET), endpoint(server.port)
    await pool.collector.start()
    pool.add(pod)
    await pool.until_waiting(pod, 1)
    server.answer = always(page(2))

    pool.collector.request_arrived()

    await pool.until_waiting(pod, 2)


async def test_a_removed_endpoint_is_left_alone(scripted_server: Any, make_pool: Any) -> None:
    server = await scripted_server(always(page(1)))
    pool, pod = make_pool(), endpoint(server.port)
    await pool.collector.start()
    pool.add(pod)
    await pool.until_waiting(pod, 1)

    pool.remove(pod)
    pool.collector.endpoint_removed(pod)
    await server.all_closed.wait()

    assert pool.collector.scrapers == 0
    assert pod.key not in pool.rows


async def test_an_endpoint_that_comes_back_under_its_key_starts_anew(
    scripted_server: Any, make_pool: Any
) -> None:
    old = await scripted_server(always(page(1)))
    new = await scripted_server(always(page(2)), host="127.0.0.2", port=old.port)
    pool, pod = make_pool(), endpoint(old.port)
    await pool.collector.start()
    pool.add(pod)
    await pool.until_waiting(pod, 1)

    back = replace(pod, address="127.0.0.2")
    pool.remove(pod)
    pool.add(back)
    assert not pool.row(back).known
    await pool.until_waiting(back, 2)
    await old.all_closed.wait()

    assert pool.collector.scrapers == 1
    assert new.accepted == 1


async def test_removed_and_added_while_connecting_leaves_one_scraper(
    scripted_server: Any, make_pool: Any
) -> None:
    server = await scripted_server(always(page(1)))
    pool, pod = make_pool(), endpoint(server.port)
    await pool.collector.start()

    for _ in range(5):
        pool.add(pod)
        await asyncio.sleep(0)
        pool.remove(pod)
    pool.add(pod)
    await pool.until_waiting(pod, 1)

    assert pool.collector.scrapers == 1
    assert pool.client.open_connections == 1


async def test_a_moved_endpoint_is_scraped_at_its_new_address(
    scripted_server: Any, make_pool: Any
) -> None:
    old = await scripted_server(always(page(1)))
    new = await scripted_server(always(page(2)))
    pool, pod = make_pool(QUIET), endpoint(old.port)
    await pool.collector.start()
    pool.add(pod)
    await pool.until_waiting(pod, 1)

    moved = replace(pod, port=new.port)
    pool.rows.put(moved)
    pool.collector.endpoint_updated(pod, moved)

    await pool.until_waiting(moved, 2)
    await old.all_closed.wait()


async def test_pods_of_several_engines_share_a_pool(scripted_server: Any, make_pool: Any) -> None:
    body = b"sglang:num_queue_reqs 4\nvllm:num_requests_waiting 9\nmine 5\n"
    answer = always(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
    server = await scripted_server(answer)
    mappings = EngineMappings(overrides=MetricOverrides(queued="mine"))
    pool = make_pool(mappings=mappings)
    await pool.collector.start()
    sglang = endpoint(
        server.port, pod_name="s", labels={"inference.networking.k8s.io/engine-type": "sglang"}
    )
    default = endpoint(server.port, pod_name="d")

    pool.add(sglang)
    pool.add(default)

    await pool.until_waiting(sglang, 4)
    await pool.until_waiting(default, 5)


class Hidden(MetricSource):
    """Metrics whose names the registry does not know, as those of a multi-process server."""

    def collect(self) -> Iterable[Metric]:
        yield GaugeMetricFamily("vllm:num_requests_waiting", "queue", value=6)


def exposition(registry: CollectorRegistry) -> Any:
    """Answer as prometheus_client's own exposition does, ``name[]`` included."""

    async def answer(target: str, writer: asyncio.StreamWriter) -> None:
        names = parse_qs(urlsplit(target).query).get("name[]")
        source = registry.restricted_registry(names) if names else registry
        body = generate_latest(source)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

    return answer


async def test_a_server_that_honours_names_is_asked_for_little(
    scripted_server: Any, make_pool: Any
) -> None:
    registry = CollectorRegistry()
    Gauge("vllm:num_requests_waiting", "queue", registry=registry).set(5)
    Gauge("vllm:num_requests_running", "batch", registry=registry).set(3)
    Counter("vllm:prompt_tokens", "other", registry=registry).inc()
    server = await scripted_server(exposition(registry))
    mappings = EngineMappings(overrides=MetricOverrides(kv_usage="", lora="", cache_info=""))
    pool, pod = make_pool(mappings=mappings), endpoint(server.port)
    await pool.collector.start()

    pool.add(pod)
    await pool.until_waiting(pod, 5)
    await pool.rows.until(lambda: len(server.targets) >= 4)

    assert set(server.targets) == {
        "/metrics?name%5B%5D=vllm:num_requests_waiting&name%5B%5D=vllm:num_requests_running"
    }
    assert pool.row(pod).state.running_requests == 3


async def test_a_server_that_hides_names_is_asked_for_full_pages(
    scripted_server: Any, make_pool: Any
) -> None:
    registry = CollectorRegistry()
    registry.register(Hidden())
    server = await scripted_server(exposition(registry))
    pool, pod = make_pool(), endpoint(server.port)
    await pool.collector.start()

    pool.add(pod)
    await pool.until_waiting(pod, 6)
    await pool.rows.until(lambda: len(server.targets) >= 8)

    assert pool.counts.failed == []
    assert set(server.targets[4:]) == {"/metrics"}


async def test_a_server_that_stops_honouring_names_is_followed(
    scripted_server: Any, make_pool: Any
) -> None:
    honest = CollectorRegistry()
    Gauge("vllm:num_requests_waiting", "queue", registry=honest).set(5)
    hiding = CollectorRegistry()
    hiding.register(Hidden())
    server = await scripted_server(exposition(honest))
    pool, pod = make_pool(), endpoint(server.port)
    await pool.collector.start()
    pool.add(pod)
    await pool.until_waiting(pod, 5)

    server.answer = exposition(hiding)
    await pool.until_waiting(pod, 6)

    assert pool.counts.failed == []


async def test_stop_during_everything_leaves_nothing(scripted_server: Any, make_pool: Any) -> None:
    async def hangs(_target: str, _writer: asyncio.StreamWriter) -> None:
        """Says nothing."""

    answering = await scripted_server(always(page(1)))
    hanging = await scripted_server(hangs, host="127.0.0.2", port=answering.port)
    pool, good = make_pool(), endpoint(answering.port, pod_name="good")
    await pool.collector.start()
    pool.add(good)
    pool.add(endpoint(answering.port, pod_name="hangs", address="127.0.0.2"))
    await pool.until_waiting(good, 1)
    pool.add(endpoint(answering.port, pod_name="new"))
    await asyncio.sleep(0)

    await pool.collector.stop()
    await pool.collector.stop()
    pool.collector.request_arrived()
    pool.collector.endpoint_added(endpoint(answering.port, pod_name="late"))
    await answering.all_closed.wait()
    await hanging.all_closed.wait()

    assert pool.client.open_connections == 0
    assert pool.collector.scrapers == 0
    assert [task for task in asyncio.all_tasks() if "scrape" in task.get_name()] == []
