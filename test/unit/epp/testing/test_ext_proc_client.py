"""The test gateway against a transport that records and answers by script."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import grpc
import pytest

from epp.gen.envoy.config.core.v3.base_pb2 import HeaderValue, HeaderValueOption
from epp.gen.envoy.data.accesslog.v3.accesslog_pb2 import HTTPAccessLogEntry
from epp.gen.envoy.extensions.filters.http.ext_proc.v3.processing_mode_pb2 import ProcessingMode
from epp.gen.envoy.service.accesslog.v3.als_pb2 import StreamAccessLogsMessage
from epp.gen.envoy.service.ext_proc.v3.external_processor_pb2 import (
    CommonResponse,
    HeaderMutation,
    HeadersResponse,
    ImmediateResponse,
    ProcessingRequest,
    ProcessingResponse,
    TrailersResponse,
)
from epp.testing.ext_proc_client import (
    ACCESS_LOG_PATH,
    GATEWAY,
    PROCESS_PATH,
    ExtProcClient,
    set_headers,
)
from epp.transport.grpcio_server import GrpcioServer
from epp.transport.stream import CloseReason, StreamSender


@dataclass
class Script:
    """Answers every message with an empty headers response; ends on half-close."""

    sender: StreamSender
    messages: list[bytes]
    closed: list[CloseReason] = field(default_factory=list)

    def on_message(self, payload: bytes) -> None:
        self.messages.append(payload)
        answer = ProcessingResponse(request_headers=HeadersResponse())
        self.sender.send(answer.SerializeToString())

    def on_half_close(self) -> None:
        self.sender.finish()

    def on_closed(self, reason: CloseReason) -> None:
        self.closed.append(reason)


@pytest.fixture
def messages() -> list[bytes]:
    return []


@pytest.fixture
async def port(messages: list[bytes]) -> AsyncIterator[int]:
    paths = (PROCESS_PATH, ACCESS_LOG_PATH)
    server = GrpcioServer(
        {path: lambda sender: Script(sender, messages) for path in paths}, host="127.0.0.1"
    )
    yield await server.start()
    await server.stop(0)


async def test_only_the_first_message_says_how_the_gateway_is_configured(
    port: int, messages: list[bytes]
) -> None:
    async with ExtProcClient(port) as client, client.exchange(GATEWAY) as stream:
        await stream.request_headers({":method": "POST", "x-a": "1"})
        await stream.request_body(b"ab", end_of_stream=False)
        await stream.request_trailers({"t": "1"})
        await stream.response_headers(
            [(":status", "200"), ("set-cookie", "a"), ("set-cookie", "b")]
        )
        await stream.response_body(b"c", end_of_stream=True)
        await stream.response_trailers()
        await stream.half_close()
        answers = await stream.receive_all()
        code, details = await stream.status()

    seen = [ProcessingRequest.FromString(message) for message in messages]
    assert [message.WhichOneof("request") for message in seen] == [
        "request_headers",
        "request_body",
        "request_trailers",
        "response_headers",
        "response_body",
        "response_trailers",
    ]
    assert [message.HasField("protocol_config") for message in seen] == [True] + [False] * 5
    assert seen[0].protocol_config.request_body_mode == ProcessingMode.FULL_DUPLEX_STREAMED
    assert [header.raw_value for header in seen[3].response_headers.headers.headers] == [
        b"200",
        b"a",
        b"b",
    ]
    assert len(answers) == 6
    assert (code, details) == (grpc.StatusCode.OK, "")


async def test_waiting_for_an_answer_that_never_comes_ends_with_the_stream(port: int) -> None:
    async with ExtProcClient(port) as client, client.exchange() as stream:
        await stream.half_close()

        with pytest.raises(EOFError):
            await stream.receive()


async def test_access_log_entries_arrive_with_the_sender_named_once(
    port: int, messages: list[bytes]
) -> None:
    async with ExtProcClient(port) as client, client.access_log("log") as stream:
        await stream.send(HTTPAccessLogEntry(), HTTPAccessLogEntry())
        await stream.send(HTTPAccessLogEntry())
        await stream.half_close()
        await stream._call.read()
        await stream._call.read()
        await stream._call.read()
        await stream.status()

    first, second = (StreamAccessLogsMessage.FromString(message) for message in messages)
    assert (first.identifier.log_name, len(first.http_logs.log_entry)) == ("log", 2)
    assert (second.HasField("identifier"), len(second.http_logs.log_entry)) == (False, 1)


MUTATION = HeaderMutation(
    set_headers=[HeaderValueOption(header=HeaderValue(key="a", raw_value=b"1"))]
)


@pytest.mark.parametrize(
    ("answer", "headers"),
    [
        pytest.param(
            ProcessingResponse(immediate_response=ImmediateResponse(headers=MUTATION)),
            {"a": "1"},
            id="immediate",
        ),
        pytest.param(
            ProcessingResponse(response_trailers=TrailersResponse(header_mutation=MUTATION)),
            {"a": "1"},
            id="trailers",
        ),
        pytest.param(
            ProcessingResponse(
                request_headers=HeadersResponse(response=CommonResponse(header_mutation=MUTATION))
            ),
            {"a": "1"},
            id="headers",
        ),
        pytest.param(ProcessingResponse(), {}, id="none"),
    ],
)
def test_headers_that_an_answer_sets_are_found_in_every_kind(
    answer: ProcessingResponse, headers: dict[str, str]
) -> None:
    assert set_headers(answer) == headers
