"""The services behind a real gRPC transport, with a client as Envoy would be one."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio
import pytest

from epp.gen.envoy.service.accesslog.v3.als_pb2 import StreamAccessLogsMessage
from epp.gen.envoy.service.ext_proc.v3.external_processor_pb2 import ProcessingResponse
from epp.handlers.server import ACCESS_LOG_METHOD, PROCESS_METHOD
from epp.requestcontrol.types import CompletionCause
from epp.transport.grpcio_server import GrpcioServer

DEADLINE_SECONDS = 10


@pytest.fixture
def driver(kit: Any) -> Any:
    return kit.Driver()


@pytest.fixture
async def channel(driver: Any) -> AsyncIterator[grpc.aio.Channel]:
    server = GrpcioServer(driver.services, host="127.0.0.1")
    port = await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as opened:
            yield opened
    finally:
        await server.stop(0)


async def test_a_gateway_conversation(kit: Any, driver: Any, channel: grpc.aio.Channel) -> None:
    call: Any = channel.stream_stream(PROCESS_METHOD)()

    async with asyncio.timeout(DEADLINE_SECONDS):
        await call.write(kit.headers(modes=(4, 4)).SerializeToString())
        await call.write(kit.body(b'{"model":"split","prompt":"hi"}').SerializeToString())
        headers = ProcessingResponse.FromString(await call.read())
        body = ProcessingResponse.FromString(await call.read())
        await call.write(kit.response_headers().SerializeToString())
        await call.read()
        await call.write(kit.response_body(b"{}", end=True).SerializeToString())
        echoed = ProcessingResponse.FromString(await call.read())
        await call.done_writing()
        code = await call.code()

    assert headers.request_headers.response.clear_route_cache
    sent = body.request_body.response.body_mutation.streamed_response
    assert sent.body == b'{"model":"tuned","prompt":"hi"}'
    assert echoed.response_body.response.body_mutation.streamed_response.body == b"{}"
    assert code is grpc.StatusCode.OK
    assert [done.cause for _, done in driver.director.completed] == [CompletionCause.NATURAL]


async def test_a_client_that_leaves_early(kit: Any, driver: Any, channel: grpc.aio.Channel) -> None:
    call: Any = channel.stream_stream(PROCESS_METHOD)()
    ended = asyncio.Event()
    driver.director.on_complete = ended.set

    async with asyncio.timeout(DEADLINE_SECONDS):
        await call.write(kit.headers(end=True).SerializeToString())
        await call.read()
        call.cancel()
        await ended.wait()

    assert driver.director.completed[0][1].cause is CompletionCause.CLIENT_DISCONNECT


async def test_access_logs_come_on_the_same_port(driver: Any, channel: grpc.aio.Channel) -> None:
    message = StreamAccessLogsMessage()
    entry = message.http_logs.log_entry.add()
    entry.request.request_id = "other"
    entry.common_properties.upstream_remote_address.socket_address.address = "10.0.0.5"
    call: Any = channel.stream_stream(ACCESS_LOG_METHOD)()

    async with asyncio.timeout(DEADLINE_SECONDS):
        await call.write(message.SerializeToString())
        await call.done_writing()
        assert await call.code() is grpc.StatusCode.OK
    driver.clock.advance(60)

    ((routing, report),) = driver.director.reports
    assert (routing, report.request_id) == (None, "other")
