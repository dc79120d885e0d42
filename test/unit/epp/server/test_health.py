"""The health service through a real port and the published client messages."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2
from structlog.testing import capture_logs

from epp.server.health import (
    LISTED_SERVICES,
    Readiness,
    health_services,
    static_health_services,
)
from epp.transport.grpcio_server import GrpcioServer

RESPONSE = health_pb2.HealthCheckResponse
SERVING, NOT_SERVING, UNKNOWN = RESPONSE.SERVING, RESPONSE.NOT_SERVING, RESPONSE.SERVICE_UNKNOWN


@asynccontextmanager
async def health_port(
    ready: Callable[[], bool], **options: bool
) -> AsyncIterator[grpc.aio.Channel]:
    server = GrpcioServer(health_services(ready, **options), host="127.0.0.1")
    port = await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield channel
    finally:
        await server.stop(0)


async def check(channel: grpc.aio.Channel, service: str) -> int:
    call = channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=RESPONSE.FromString,
    )
    return int((await call(health_pb2.HealthCheckRequest(service=service))).status)


@pytest.mark.parametrize(
    ("service", "ready", "strict", "status"),
    [
        pytest.param("liveness", False, False, SERVING, id="alive-without-being-ready"),
        pytest.param("liveness", True, True, SERVING, id="alive"),
        pytest.param("readiness", False, False, NOT_SERVING, id="not-ready"),
        pytest.param("readiness", True, False, SERVING, id="ready"),
        pytest.param("", False, False, NOT_SERVING, id="server-not-ready"),
        pytest.param("", True, False, SERVING, id="server-ready"),
        pytest.param("inference-extension", True, True, SERVING, id="stock-chart"),
        pytest.param("inference-extension", False, True, NOT_SERVING, id="stock-chart-not-ready"),
        pytest.param(
            "envoy.service.ext_proc.v3.ExternalProcessor", True, True, SERVING, id="ext-proc"
        ),
        pytest.param("anything", True, False, SERVING, id="any-name-follows-readiness"),
        pytest.param("anything", False, False, NOT_SERVING, id="any-name-not-ready"),
        pytest.param("anything", True, True, UNKNOWN, id="strict-names-are-unknown"),
    ],
)
async def test_check(service: str, ready: bool, strict: bool, status: int) -> None:
    async with health_port(lambda: ready, strict_names=strict) as channel:
        assert await check(channel, service) == status


@pytest.mark.parametrize(
    ("service", "leader", "status"),
    [
        pytest.param("liveness", False, SERVING, id="a-follower-is-alive"),
        pytest.param("readiness", False, NOT_SERVING, id="a-follower-is-not-ready"),
        pytest.param("", False, NOT_SERVING, id="a-follower-takes-no-traffic"),
        pytest.param(
            "envoy.service.ext_proc.v3.ExternalProcessor", False, NOT_SERVING, id="ext-proc"
        ),
        pytest.param("readiness", True, SERVING, id="the-leader-is-ready"),
        pytest.param("inference-extension", True, SERVING, id="stock-chart-of-one-replica"),
        pytest.param("anything", True, UNKNOWN, id="names-are-strict"),
    ],
)
async def test_with_leader_election_only_the_leader_is_ready(
    service: str, leader: bool, status: int
) -> None:
    readiness = Readiness({"pool": lambda: True, "leader": lambda: leader})

    async with health_port(readiness, strict_names=True) as channel:
        assert await check(channel, service) == status


async def test_a_leader_that_drains_is_alive_and_not_ready() -> None:
    readiness = Readiness({"pool": lambda: True, "leader": lambda: True})
    readiness.drain()

    async with health_port(readiness, strict_names=True) as channel:
        assert await check(channel, "readiness") == NOT_SERVING
        assert await check(channel, "liveness") == SERVING


@pytest.mark.parametrize(
    ("service", "status"),
    [
        pytest.param("", SERVING, id="server"),
        pytest.param("envoy.service.ext_proc.v3.ExternalProcessor", SERVING, id="ext-proc"),
        pytest.param("liveness", UNKNOWN, id="unknown"),
    ],
)
async def test_the_health_service_beside_ext_proc_is_static(service: str, status: int) -> None:
    server = GrpcioServer(static_health_services(), host="127.0.0.1")
    port = await server.start()

    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        found = await check(channel, service)
        listed = await listing(channel)
    await server.stop(0)

    assert found == status
    assert listed == {"": SERVING, "envoy.service.ext_proc.v3.ExternalProcessor": SERVING}


async def test_watching_an_unknown_name_says_so_under_strict_names() -> None:
    async with health_port(lambda: True, strict_names=True) as channel:
        watch = channel.unary_stream(
            "/grpc.health.v1.Health/Watch",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=RESPONSE.FromString,
        )(health_pb2.HealthCheckRequest(service="anything"))
        async with asyncio.timeout(10):
            response: Any = await watch.read()
        watch.cancel()

    assert response.status == UNKNOWN


async def listing(channel: grpc.aio.Channel) -> dict[str, int]:
    call = channel.unary_unary(
        "/grpc.health.v1.Health/List",
        request_serializer=health_pb2.HealthListRequest.SerializeToString,
        response_deserializer=health_pb2.HealthListResponse.FromString,
    )
    listed = await call(health_pb2.HealthListRequest())
    return {name: int(response.status) for name, response in listed.statuses.items()}


async def test_list_names_every_service_with_its_status() -> None:
    async with health_port(lambda: False) as channel:
        statuses = await listing(channel)

    assert statuses == {
        name: SERVING if name == "liveness" else NOT_SERVING for name in LISTED_SERVICES
    }


async def test_watch_tells_every_change_and_nothing_else() -> None:
    state = {"ready": False}

    async with health_port(lambda: state["ready"]) as channel:
        watch = channel.unary_stream(
            "/grpc.health.v1.Health/Watch",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=RESPONSE.FromString,
        )(health_pb2.HealthCheckRequest(service="readiness"))
        seen: list[int] = []
        async with asyncio.timeout(10):
            for ready in (True, False, None):
                response: Any = await watch.read()
                seen.append(response.status)
                if ready is not None:
                    state["ready"] = ready
        watch.cancel()

    assert seen == [NOT_SERVING, SERVING, NOT_SERVING]


@pytest.mark.parametrize("method", ["Check", "Watch"])
async def test_a_message_that_is_no_health_request_is_refused(method: str) -> None:
    async with health_port(lambda: True) as channel:
        call: grpc.aio.StreamStreamCall[bytes, bytes] = channel.stream_stream(
            f"/grpc.health.v1.Health/{method}"
        )()
        await call.write(b"\xff\xff")
        code = await call.code()

    assert code is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("method", ["Check", "Watch"])
async def test_a_call_without_a_message_is_refused(method: str) -> None:
    async with health_port(lambda: True) as channel:
        call: grpc.aio.StreamStreamCall[bytes, bytes] = channel.stream_stream(
            f"/grpc.health.v1.Health/{method}"
        )()
        await call.done_writing()
        code = await call.code()

    assert code is grpc.StatusCode.INVALID_ARGUMENT


def test_readiness_needs_every_condition() -> None:
    facts = {"pool": False, "scraped": True}
    readiness = Readiness({name: partial(facts.__getitem__, name) for name in facts})

    before = (readiness(), readiness.missing)
    facts["pool"] = True
    after = (readiness(), readiness.missing)

    assert before == (False, ("pool",))
    assert after == (True, ())


def test_draining_ends_readiness_for_good() -> None:
    readiness = Readiness({})

    before = readiness()
    readiness.drain()

    assert before is True
    assert readiness() is False
    assert readiness.draining is True


def test_a_change_of_readiness_is_logged_once() -> None:
    facts = {"pool": False}
    readiness = Readiness({"pool": lambda: facts["pool"]})

    with capture_logs() as logs:
        for ready in (False, False, True, True):
            facts["pool"] = ready
            readiness()
        readiness.drain()
        readiness()

    assert [(line["event"], line.get("missing")) for line in logs] == [
        ("not ready", "pool"),
        ("ready", None),
        ("not ready", "draining"),
    ]
