"""MetricsServer over raw sockets: what scrapers, probes, people and hostile clients get."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from epp.errors import BadRequestError
from epp.metrics.metrics import Metrics
from epp.server.http_connection import HttpLimits, HttpRequest, HttpResponse, plain
from epp.server.metrics_page import SAMPLES_PER_STEP
from epp.server.metrics_server import MAX_CONNECTIONS, MetricsServer
from epp.transport.listening import ListenError


@dataclass
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass
class Harness:
    """A running server and a way to talk to it."""

    server: MetricsServer
    port: int
    registry: CollectorRegistry
    reasons: list[str] = field(default_factory=list)

    async def connect(self) -> "Client":
        return Client(*await asyncio.open_connection("127.0.0.1", self.port))

    async def get(self, path: str, method: str = "GET", **headers: str) -> Answer:
        client = await self.connect()
        client.send_request(path, method, **headers)
        answer = await client.answer(has_body=method != "HEAD")
        await client.close()
        return answer

    async def raw(self, data: bytes) -> bytes:
        """Send bytes, return everything until the server closes."""
        client = await self.connect()
        client.writer.write(data)
        received = await asyncio.wait_for(client.reader.read(), 10)
        await client.close()
        return received


@dataclass
class Client:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def send_request(self, path: str, method: str = "GET", **headers: str) -> None:
        lines = [f"{method} {path} HTTP/1.1", "Host: x"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.writer.write("\r\n".join([*lines, "", ""]).encode())

    async def answer(self, *, has_body: bool = True) -> Answer:
        head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 10)
        first, *lines = head.decode().split("\r\n")
        pairs = (line.split(": ", 1) for line in lines if line)
        headers = {name.lower(): value for name, value in pairs}
        body = await self._body(headers) if has_body else b""
        return Answer(int(first.split()[1]), headers, body)

    async def _body(self, headers: Mapping[str, str]) -> bytes:
        if "content-length" in headers:
            return await self.reader.readexactly(int(headers["content-length"]))
        if headers.get("transfer-encoding") != "chunked":
            return await self.reader.read()
        body = b""
        while size := int(await self.reader.readline(), 16):
            body += await self.reader.readexactly(size)
            assert await self.reader.readexactly(2) == b"\r\n"
        assert await self.reader.readexactly(2) == b"\r\n"
        return body

    async def closed(self) -> bool:
        return await asyncio.wait_for(self.reader.read(1), 10) == b""

    async def close(self) -> None:
        self.writer.close()
        await self.writer.wait_closed()


Start = Callable[..., Any]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    running: list[MetricsServer] = []

    async def start_server(**limits: float) -> Harness:
        registry = CollectorRegistry()
        reasons: list[str] = []
        server = MetricsServer(
            registry,
            port=0,
            host="127.0.0.1",
            not_ready_reasons=lambda: reasons,
            limits=HttpLimits(**limits),
        )
        running.append(server)
        return Harness(server, await server.start(), registry, reasons)

    yield start_server
    for server in running:
        await server.stop()


@pytest.fixture
async def harness(start: Start) -> Harness:
    harness: Harness = await start()
    metrics = Metrics(harness.registry, process_metrics=False)
    for number in range(40):
        metrics.request_routed(f"m{number}", f"m{number}", 0, 100)
    return harness


class BigFamily(Collector):
    """More samples than one step prints."""

    def collect(self) -> list[Metric]:
        family = GaugeMetricFamily("big", "Many samples.", labels=["n"])
        for number in range(3 * SAMPLES_PER_STEP + 1):
            family.add_metric([str(number)], float(number))
        return [family]


async def test_the_page_is_what_one_encoder_call_gives(harness: Harness) -> None:
    harness.registry.register(BigFamily())

    answer = await harness.get("/metrics")

    assert answer.status == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert answer.headers["transfer-encoding"] == "chunked"
    assert answer.body == generate_latest(harness.registry)
    assert list(text_string_to_metric_families(answer.body.decode()))


async def test_openmetrics_is_negotiated_and_ends_once(harness: Harness) -> None:
    harness.registry.register(BigFamily())

    answer = await harness.get("/metrics", Accept="application/openmetrics-text;version=1.0.0")

    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert answer.body.count(b"# EOF") == 1
    assert answer.body.endswith(b"# EOF\n")
    parsed = parse_openmetrics(answer.body.decode())
    families = {family.name for family in parsed}
    assert {"inference_model_request", "big", "llm_d_epp_request_size_bytes"} <= families


@pytest.mark.parametrize(
    "accepted, compressed",
    [
        pytest.param("gzip", True, id="gzip"),
        pytest.param("deflate, GZIP;q=0.5", True, id="with-quality"),
        pytest.param("*", True, id="any"),
        pytest.param("gzip;q=0", False, id="refused"),
        pytest.param("identity", False, id="identity"),
    ],
)
async def test_gzip_when_asked_for(harness: Harness, accepted: str, compressed: bool) -> None:
    answer = await harness.get("/metrics", Accept_Encoding=accepted)

    body = gzip.decompress(answer.body) if compressed else answer.body
    assert answer.headers.get("content-encoding") == ("gzip" if compressed else None)
    assert body == generate_latest(harness.registry)


async def test_single_names_can_be_asked_for(harness: Harness) -> None:
    answer = await harness.get("/metrics?name[]=inference_model_request_total&name%5B%5D=nothing")

    families = [f.name for f in text_string_to_metric_families(answer.body.decode())]
    assert families == ["inference_model_request"]


async def test_head_has_no_body_and_the_connection_goes_on(harness: Harness) -> None:
    client = await harness.connect()

    client.send_request("/metrics", "HEAD")
    head = await client.answer(has_body=False)
    client.send_request("/healthz")
    after = await client.answer()

    assert (head.status, after.status, after.body) == (200, 200, b"ok\n")
    await client.close()


async def test_pipelined_requests_are_answered_in_order(harness: Harness) -> None:
    client = await harness.connect()

    client.send_request("/healthz")
    client.send_request("/nowhere")
    client.send_request("/metrics")
    answers = [await client.answer() for _ in range(3)]

    assert [answer.status for answer in answers] == [200, 404, 200]
    await client.close()


async def test_a_request_may_arrive_byte_by_byte(harness: Harness) -> None:
    client = await harness.connect()

    for byte in b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n":
        client.writer.write(bytes([byte]))
        await client.writer.drain()

    assert (await client.answer()).status == 200
    await client.close()


async def test_http_1_0_gets_the_page_until_close(harness: Harness) -> None:
    received = await harness.raw(b"GET /metrics HTTP/1.0\r\n\r\n")

    head, _, body = received.partition(b"\r\n\r\n")
    assert b"Transfer-Encoding" not in head
    assert b"Connection: close" in head
    assert body == generate_latest(harness.registry)


async def test_connection_close_is_honoured(harness: Harness) -> None:
    client = await harness.connect()

    client.send_request("/healthz", Connection="close")
    answer = await client.answer()

    assert answer.headers["connection"] == "close"
    assert await client.closed()
    await client.close()


async def test_an_offer_to_upgrade_is_declined(harness: Harness) -> None:
    received = await harness.raw(
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\n"
        b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
    )

    assert received.startswith(b"HTTP/1.1 200 OK")


@pytest.mark.parametrize(
    "reasons, status, body",
    [
        pytest.param([], 200, b"ok\n", id="ready"),
        pytest.param(["pool not known"], 503, b"pool not known\n", id="one-reason"),
        pytest.param(["draining", "no pool"], 503, b"draining\nno pool\n", id="two-reasons"),
    ],
)
async def test_readiness_says_why_not(
    harness: Harness, reasons: Sequence[str], status: int, body: bytes
) -> None:
    harness.reasons.extend(reasons)

    answer = await harness.get("/readyz")

    assert (answer.status, answer.body) == (status, body)
    assert (await harness.get("/healthz")).status == 200


def echo(path: str, query: Mapping[str, str]) -> object | None:
    match query.get("case"):
        case "none":
            return None
        case "bad":
            raise BadRequestError("limit must be a number")
        case "broken":
            raise ZeroDivisionError
        case "strange":
            return object()
    return {"path": path, "query": query, "n": np.float64(1.5), "s": frozenset({"b", "a"})}


@pytest.mark.parametrize(
    "path, status",
    [
        pytest.param("/debug/pool", 200, id="exact"),
        pytest.param("/debug/pool/x", 200, id="below"),
        pytest.param("/debug/poolx", 404, id="other-name"),
        pytest.param("/debug", 404, id="above"),
        pytest.param("/", 404, id="root"),
        pytest.param("/debug/pool?case=none", 404, id="none"),
        pytest.param("/debug/pool?case=bad", 400, id="bad-request"),
        pytest.param("/debug/pool?case=broken", 500, id="raises"),
        pytest.param("/debug/pool?case=strange", 500, id="no-json"),
    ],
)
async def test_json_routes(harness: Harness, path: str, status: int) -> None:
    harness.server.add_json_route("/debug/pool", echo)

    answer = await harness.get(path)

    assert answer.status == status
    assert b"Traceback" not in answer.body


async def test_json_handlers_get_path_and_last_query_value(harness: Harness) -> None:
    harness.server.add_json_route("/debug/", echo)

    answer = await harness.get("/debug/a%20b?x=1&x=2")

    assert answer.headers["content-type"] == "application/json"
    want = {"path": "/debug/a b", "query": {"x": "2"}, "n": 1.5, "s": ["a", "b"]}
    assert json.loads(answer.body) == want


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
async def test_other_methods_are_405(harness: Harness, method: str) -> None:
    answer = await harness.get("/metrics", method)

    assert answer.status == 405
    assert answer.headers["allow"] == "GET, HEAD"


@pytest.mark.parametrize(
    "data, status",
    [
        pytest.param(b"garbage\r\n\r\n", 400, id="garbage"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00", 400, id="tls-hello"),
        pytest.param(b"GET / HTTP/9.9\r\n\r\n", 400, id="version"),
        pytest.param(b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n", 400, id="bytes-in-target"),
        pytest.param(b"GET http://[ HTTP/1.1\r\nHost: x\r\n\r\n", 400, id="broken-target"),
        pytest.param(b"GET / HTTP/1.1\r\nBad Header: x\r\n\r\n", 400, id="header-name"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc", 413, id="body"),
        pytest.param(
            b"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            413,
            id="chunked-body",
        ),
        pytest.param(b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\n", 431, id="endless-target"),
        pytest.param(b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 10_000, 431, id="endless-headers"),
        pytest.param(
            b"GET /?" + b"a=1&" * 2000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 400, id="many-fields"
        ),
    ],
)
async def test_bad_requests_get_a_plain_error_and_a_closed_connection(
    harness: Harness, data: bytes, status: int
) -> None:
    received = await harness.raw(data)

    assert received.startswith(f"HTTP/1.1 {status} ".encode())
    assert b"Traceback" not in received
    assert (await harness.get("/healthz")).status == 200


async def test_a_request_that_never_ends_times_out(start: Start) -> None:
    harness = await start(idle_seconds=0.05)

    assert (await harness.raw(b"GET /healthz HTTP/1.1\r\n")).startswith(b"HTTP/1.1 408 ")


async def test_an_idle_connection_is_closed_without_a_word(start: Start) -> None:
    harness = await start(idle_seconds=0.05)

    assert await harness.raw(b"") == b""


async def test_a_client_that_does_not_read_is_cut_off(start: Start) -> None:
    harness = await start(write_seconds=0.05)
    for number in range(2):
        harness.registry.register(HugeFamily(number))
    client = await harness.connect()

    client.send_request("/metrics")
    await wait_until(lambda: client.reader.at_eof() or not harness.server.open_connections)

    assert harness.server.open_connections == 0
    await client.close()


class HugeFamily(Collector):
    """More bytes than socket buffers hold."""

    def __init__(self, number: int) -> None:
        self._number = number

    def collect(self) -> list[Metric]:
        family = GaugeMetricFamily(f"huge_{self._number}", "Long labels.", labels=["n"])
        for number in range(2000):
            family.add_metric([f"{number}" * 1500], 1.0)
        return [family]


async def wait_until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


async def test_a_broken_collector_ends_the_response_early_and_nothing_else(
    harness: Harness,
) -> None:
    class Broken(Collector):
        def describe(self) -> list[Metric]:
            return []

        def collect(self) -> list[Metric]:
            raise ZeroDivisionError

    harness.registry.register(Broken())

    received = await harness.raw(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")

    assert b"inference_model_request_total" in received
    assert not received.endswith(b"0\r\n\r\n")
    assert (await harness.get("/healthz")).status == 200


class Bouncer:
    """A guard that lets holders of one word in."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.stopped = False

    async def check(self, request: HttpRequest) -> HttpResponse | None:
        self.asked.append(request.path)
        await asyncio.sleep(0)
        if request.headers.get("authorization") == "Bearer yes":
            return None
        return plain(HTTPStatus.UNAUTHORIZED, WWW_Authenticate="Bearer")

    async def stop(self) -> None:
        self.stopped = True


@pytest.mark.parametrize(
    "path, without, with_word",
    [
        pytest.param("/healthz", 200, 200, id="liveness"),
        pytest.param("/readyz", 200, 200, id="readiness"),
        pytest.param("/metrics", 401, 200, id="metrics"),
        pytest.param("/metrics?name[]=x", 401, 200, id="metrics-by-name"),
        pytest.param("/debug/pool", 401, 200, id="debug"),
        pytest.param("/debug/other", 401, 404, id="unknown"),
        pytest.param("/metrics/", 401, 404, id="other-spelling"),
    ],
)
async def test_a_guard_stands_before_everything_but_the_probes(
    path: str, without: int, with_word: int
) -> None:
    guard = Bouncer()
    server = MetricsServer(
        CollectorRegistry(), port=0, host="127.0.0.1", not_ready_reasons=list, guard=guard
    )
    server.add_json_route("/debug/pool", echo)
    harness = Harness(server, await server.start(), CollectorRegistry())

    stranger = await harness.get(path)
    friend = await harness.get(path, Authorization="Bearer yes")
    head = await harness.get(path, "HEAD")
    post = await harness.get(path, "POST")
    await server.stop()

    assert (stranger.status, friend.status) == (without, with_word)
    assert (head.status, post.status) == (without, 405)
    assert (without == 401) is ("www-authenticate" in stranger.headers)
    assert guard.stopped


async def test_idle_connections_make_room_for_a_probe(harness: Harness) -> None:
    clients = [await harness.connect() for _ in range(MAX_CONNECTIONS)]
    await wait_until(lambda: harness.server.open_connections == MAX_CONNECTIONS)

    probes = [(await harness.get("/healthz")).status for _ in range(3)]
    most = harness.server.open_connections

    assert probes == [200, 200, 200]
    assert most <= MAX_CONNECTIONS
    for client in clients:
        await client.close()
    await wait_until(lambda: harness.server.open_connections == 0)


async def test_other_work_runs_while_a_long_page_is_made(harness: Harness) -> None:
    harness.registry.register(BigFamily())
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counter = asyncio.create_task(count_turns(), name="turns")
    page = await harness.get("/metrics")
    counter.cancel()
    await asyncio.gather(counter, return_exceptions=True)

    steps = page.body.count(b"# TYPE") + 3
    assert turns >= steps


async def test_stop_ends_idle_connections_and_refuses_new_ones(harness: Harness) -> None:
    client = await harness.connect()
    client.send_request("/healthz")
    await client.answer()

    await harness.server.stop()

    assert await client.closed()
    with pytest.raises(OSError, match="."):
        await harness.connect()
    await client.close()


async def test_stop_lets_a_response_finish(harness: Harness) -> None:
    started = asyncio.Event()

    class Announcing(Collector):
        def describe(self) -> list[Metric]:
            return []

        def collect(self) -> list[Metric]:
            started.set()
            return BigFamily().collect()

    harness.registry.register(Announcing())
    client = await harness.connect()
    client.send_request("/metrics")
    await started.wait()

    stopping = asyncio.create_task(harness.server.stop(), name="stop")
    answer = await client.answer()
    await stopping

    assert answer.body == generate_latest(harness.registry)
    await client.close()


async def test_stop_before_start_and_twice_is_harmless() -> None:
    server = MetricsServer(CollectorRegistry(), port=0, not_ready_reasons=list)

    await server.stop()
    await server.stop()


async def test_a_taken_port_is_named(harness: Harness) -> None:
    second = MetricsServer(
        harness.registry, port=harness.port, host="127.0.0.1", not_ready_reasons=list
    )

    with pytest.raises(
        ListenError, match=rf" 127\.0\.0\.1:{harness.port}: Address already in use$"
    ):
        await second.start()


async def test_every_address_is_served_when_none_is_named() -> None:
    server = MetricsServer(CollectorRegistry(), port=0, not_ready_reasons=list)
    port = await server.start()

    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /healthz HTTP/1.0\r\n\r\n")

    assert (await reader.read()).endswith(b"ok\n")
    writer.close()
    await writer.wait_closed()
    await server.stop()
