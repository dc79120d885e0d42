"""``epp serve`` on its way out: unready at once, running requests finish, then it is gone."""

import signal

import grpc
import pytest

from epp.handlers.server import PROCESS_METHOD
from epp.testing.ext_proc_client import GATEWAY, LEAN, ExtProcClient, set_headers
from epp.testing.raw_http2 import Kind, raw_peer, request
from epp.testing.serve import Serve
from epp.testing.stack import eventually, free_port

DESTINATION = "x-gateway-destination-endpoint"
REQUEST = {":method": "POST", ":path": "/v1/completions", "content-type": "application/json"}
BODY = b'{"model":"tiny","prompt":"x","max_tokens":1}'
PATHS = pytest.mark.parametrize(
    "path", [pytest.param(LEAN, id="lean"), pytest.param(GATEWAY, id="gateway")]
)


@pytest.fixture
def endpoint():
    """A model server that nobody has to reach: the picks are what counts."""
    return f"127.0.41.1:{free_port('127.0.41.1')}"


@pytest.fixture(params=["native", "grpcio"])
def serve(request, tmp_path, endpoint):
    """Makes an EPP, on either transport."""

    def make(drain):
        arguments = ["--endpoint", endpoint, "--secure-serving=false", f"--drain-timeout={drain}"]
        return Serve(tmp_path, *arguments, "--transport", request.param, "-v=3")

    return make


async def picked(stream):
    """The request phase; the endpoint that the EPP chose."""
    await stream.request_headers(REQUEST)
    await stream.request_body(BODY)
    while True:
        destination = set_headers(await stream.receive()).get(DESTINATION)
        if destination:
            return destination


async def finish(stream, path):
    """The response phase, to the end; the status of the stream."""
    await stream.response_headers({":status": "200", "content-type": "application/json"})
    if path is GATEWAY:
        await stream.response_body(b'{"usage":{"prompt_tokens":1,"completion_tokens":1}}')
        await stream.response_body(b"", end_of_stream=True)
    await stream.half_close()
    await stream.receive_all()
    return (await stream.status())[0]


@PATHS
async def test_running_requests_finish_before_the_process_ends(serve, endpoint, path):
    async with serve("20s") as epp, ExtProcClient(epp.grpc_port) as client:
        async with client.exchange(path) as old, client.exchange(path) as late:
            before = await picked(old)

            epp.signal(signal.SIGTERM)
            await eventually(lambda: _health_is(epp, "NOT_SERVING"), what="not ready")
            alive = await epp.health("liveness")
            after = await picked(late)
            ended = [await finish(stream, path) for stream in (old, late)]

        status = await epp.exit_status()

    assert (before, after) == (endpoint, endpoint)
    assert alive == "SERVING"
    assert ended == [grpc.StatusCode.OK, grpc.StatusCode.OK]
    assert status == 0
    assert "not ready" in epp.log_text()
    assert "Traceback" not in epp.log_text()


async def test_the_process_waits_for_a_request_and_not_longer(serve):
    async with serve("20s") as epp, ExtProcClient(epp.grpc_port) as client:
        async with client.exchange() as stream:
            await picked(stream)
            epp.signal(signal.SIGTERM)

            with pytest.raises(TimeoutError):
                await epp.exit_status(seconds=4)
            await finish(stream, LEAN)
            status = await epp.exit_status(seconds=10)

    assert status == 0


async def test_the_process_waits_for_a_request_whose_body_is_still_on_its_way(serve, endpoint):
    async with serve("20s") as epp, ExtProcClient(epp.grpc_port) as client:
        async with client.exchange() as stream:
            await stream.request_headers(REQUEST)
            await stream.receive()
            epp.signal(signal.SIGTERM)

            with pytest.raises(TimeoutError):
                await epp.exit_status(seconds=4)
            await stream.request_body(BODY)
            answer = set_headers(await stream.receive())
            code = await finish(stream, LEAN)
            status = await epp.exit_status(seconds=10)

    assert answer[DESTINATION] == endpoint
    assert (code, status) == (grpc.StatusCode.OK, 0)


async def test_gateways_are_sent_elsewhere_at_once_and_served_meanwhile(tmp_path, endpoint):
    arguments = ("--endpoint", endpoint, "--secure-serving=false", "--drain-timeout=60s")
    async with Serve(tmp_path, *arguments) as epp:
        async with raw_peer(epp.grpc_port) as gateway:
            await gateway.send(request(1, PROCESS_METHOD.encode()))
            await gateway.settle()

            epp.signal(signal.SIGTERM)
            told = await gateway.read_until(Kind.GOAWAY)
            await gateway.send(request(3, b"/no.Service/Method", end=True))
            answered = await gateway.read_until(Kind.HEADERS, 3)
        status = await epp.exit_status(seconds=10)

    assert (int.from_bytes(told.payload[:4], "big"), told.code) == (2**31 - 1, 0)
    assert answered.stream_id == 3
    assert status == 0


@pytest.mark.parametrize(
    "drain, signals",
    [
        pytest.param("1s", 1, id="drain-time-is-over"),
        pytest.param("0", 1, id="no-drain"),
        pytest.param("60s", 2, id="second-signal"),
    ],
)
async def test_what_does_not_finish_in_time_is_ended(serve, drain, signals):
    async with serve(drain) as epp, ExtProcClient(epp.grpc_port) as client:
        async with client.exchange() as stream:
            await picked(stream)

            epp.signal(signal.SIGTERM)
            if signals == 2:
                await eventually(lambda: _health_is(epp, "NOT_SERVING"), what="not ready")
                epp.signal(signal.SIGINT)
            status = await epp.exit_status(seconds=10)
            code, _ = await stream.status()

    assert status == 0
    assert code is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=["term", "hup"])
async def test_without_requests_the_process_is_gone_soon(serve, number):
    async with serve("30s") as epp:
        epp.signal(number)

        assert await epp.exit_status(seconds=10) == 0


async def _health_is(epp, status):
    return await epp.health("readiness") == status
