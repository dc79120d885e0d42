"""A gateway for tests: speaks ext_proc to a port the way Envoy would.

``ExtProcClient`` holds one connection; ``exchange`` opens a stream for one HTTP exchange. The
stream sends ``protocol_config`` with its first message and nothing else on its own: a test says
message by message what the gateway does. Answers are collected in order.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Self

import grpc
import grpc.aio

from epp.gen.envoy.config.core.v3.base_pb2 import HeaderMap, HeaderValue, Metadata
from epp.gen.envoy.data.accesslog.v3.accesslog_pb2 import HTTPAccessLogEntry
from epp.gen.envoy.extensions.filters.http.ext_proc.v3.processing_mode_pb2 import ProcessingMode
from epp.gen.envoy.service.accesslog.v3.als_pb2 import StreamAccessLogsMessage
from epp.gen.envoy.service.ext_proc.v3.external_processor_pb2 import (
    HttpBody,
    HttpHeaders,
    HttpTrailers,
    ProcessingRequest,
    ProcessingResponse,
    ProtocolConfiguration,
)

PROCESS_PATH = "/envoy.service.ext_proc.v3.ExternalProcessor/Process"
ACCESS_LOG_PATH = "/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs"
ANSWER_TIMEOUT_SECONDS = 10.0

LEAN = ProtocolConfiguration(
    request_body_mode=ProcessingMode.BUFFERED, response_body_mode=ProcessingMode.NONE
)
GATEWAY = ProtocolConfiguration(
    request_body_mode=ProcessingMode.FULL_DUPLEX_STREAMED,
    response_body_mode=ProcessingMode.FULL_DUPLEX_STREAMED,
)

Headers = Mapping[str, str] | Sequence[tuple[str, str]]
_RawCall = grpc.aio.StreamStreamCall[bytes, bytes]


class ExtProcClient:
    """One connection to an EPP."""

    def __init__(
        self,
        port: int,
        *,
        host: str = "127.0.0.1",
        credentials: grpc.ChannelCredentials | None = None,
        options: Sequence[tuple[str, str | int]] = (),
    ) -> None:
        target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        unlimited = (
            ("grpc.max_receive_message_length", -1),
            ("grpc.max_send_message_length", -1),
        )
        arguments = [*unlimited, *options]
        if credentials is None:
            self._channel = grpc.aio.insecure_channel(target, options=arguments)
        else:
            self._channel = grpc.aio.secure_channel(target, credentials, options=arguments)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection at once: streams that are open are reset."""
        await self._channel.close(grace=None)

    @asynccontextmanager
    async def exchange(
        self, protocol_config: ProtocolConfiguration | None = LEAN
    ) -> AsyncIterator["ExtProcStream"]:
        """Open a stream; leaving the block resets it unless it has ended."""
        stream = ExtProcStream(self._channel.stream_stream(PROCESS_PATH)(), protocol_config)
        try:
            yield stream
        finally:
            stream.reset()

    @asynccontextmanager
    async def access_log(self, log_name: str = "epp") -> AsyncIterator["AccessLogStream"]:
        """Open an access-log stream; leaving the block resets it."""
        stream = AccessLogStream(self._channel.stream_stream(ACCESS_LOG_PATH)(), log_name)
        try:
            yield stream
        finally:
            stream.reset()


class _RawStream:
    """What both kinds of streams share."""

    def __init__(self, call: "_RawCall") -> None:
        self._call = call

    async def half_close(self) -> None:
        """Say that nothing more will be sent."""
        await self._call.done_writing()

    def reset(self) -> None:
        """Reset the stream, as Envoy does when its client goes away."""
        self._call.cancel()

    async def status(self) -> tuple[grpc.StatusCode, str]:
        """Wait for the end of the stream; return code and details. Read every answer first."""
        async with asyncio.timeout(ANSWER_TIMEOUT_SECONDS):
            return await self._call.code(), await self._call.details()


class ExtProcStream(_RawStream):
    """One HTTP exchange from the gateway's side.

    Attributes:
        answers: Every answer received so far.
    """

    def __init__(self, call: "_RawCall", protocol_config: ProtocolConfiguration | None) -> None:
        super().__init__(call)
        self._protocol_config = protocol_config
        self.answers: list[ProcessingResponse] = []

    async def send(self, message: ProcessingRequest) -> None:
        """Send a message; the first of the stream gets the protocol configuration."""
        if self._protocol_config is not None:
            message.protocol_config.CopyFrom(self._protocol_config)
            self._protocol_config = None
        await self._call.write(message.SerializeToString())

    async def receive(self) -> ProcessingResponse:
        """Return the next answer.

        Raises:
            EOFError: The stream ended instead; ``status`` says how.
            TimeoutError: Neither happened in time.
        """
        answer = await self._next()
        if answer is None:
            raise EOFError("the stream ended without another answer")
        return answer

    async def receive_all(self) -> list[ProcessingResponse]:
        """Return the remaining answers once the stream has ended."""
        first = len(self.answers)
        while await self._next() is not None:
            pass
        return self.answers[first:]

    async def request_headers(
        self,
        headers: Headers,
        *,
        end_of_stream: bool = False,
        metadata: Metadata | None = None,
    ) -> None:
        """Send request headers; pseudo headers are given like the others."""
        await self.send(
            ProcessingRequest(
                request_headers=_headers(headers, end_of_stream), metadata_context=metadata
            )
        )

    async def request_body(
        self, body: bytes, *, end_of_stream: bool = True, metadata: Metadata | None = None
    ) -> None:
        """Send a chunk of the request body: all of it on the lean path."""
        chunk = HttpBody(body=body, end_of_stream=end_of_stream)
        await self.send(ProcessingRequest(request_body=chunk, metadata_context=metadata))

    async def request_trailers(self, trailers: Headers = ()) -> None:
        """Send request trailers."""
        message = HttpTrailers(trailers=header_map(trailers))
        await self.send(ProcessingRequest(request_trailers=message))

    async def response_headers(
        self,
        headers: Headers,
        *,
        end_of_stream: bool = False,
        metadata: Metadata | None = None,
    ) -> None:
        """Send response headers, ``:status`` among them."""
        await self.send(
            ProcessingRequest(
                response_headers=_headers(headers, end_of_stream), metadata_context=metadata
            )
        )

    async def response_body(self, body: bytes, *, end_of_stream: bool = False) -> None:
        """Send a chunk of the response body."""
        chunk = HttpBody(body=body, end_of_stream=end_of_stream)
        await self.send(ProcessingRequest(response_body=chunk))

    async def response_trailers(self, trailers: Headers = ()) -> None:
        """Send response trailers."""
        message = HttpTrailers(trailers=header_map(trailers))
        await self.send(ProcessingRequest(response_trailers=message))

    async def _next(self) -> ProcessingResponse | None:
        async with asyncio.timeout(ANSWER_TIMEOUT_SECONDS):
            payload: object = await self._call.read()
        if not isinstance(payload, bytes):
            return None
        self.answers.append(ProcessingResponse.FromString(payload))
        return self.answers[-1]


class AccessLogStream(_RawStream):
    """A gateway worker's access-log stream."""

    def __init__(self, call: "_RawCall", log_name: str) -> None:
        super().__init__(call)
        self._log_name: str | None = log_name

    async def send(self, *entries: HTTPAccessLogEntry) -> None:
        """Send entries in one message; the first message says who sends."""
        message = StreamAccessLogsMessage()
        if self._log_name is not None:
            message.identifier.log_name = self._log_name
            message.identifier.node.id = "test-gateway"
            self._log_name = None
        message.http_logs.log_entry.extend(entries)
        await self._call.write(message.SerializeToString())


def header_map(headers: Headers) -> HeaderMap:
    """Return headers as Envoy sends them: values in ``raw_value``, repeats kept."""
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    return HeaderMap(
        headers=[HeaderValue(key=key, raw_value=value.encode()) for key, value in pairs]
    )


def _headers(headers: Headers, end_of_stream: bool) -> HttpHeaders:
    return HttpHeaders(headers=header_map(headers), end_of_stream=end_of_stream)


def set_headers(answer: ProcessingResponse) -> dict[str, str]:
    """Return the headers that an answer sets, whatever kind of answer it is."""
    member = answer.WhichOneof("response")
    if member is None:
        return {}
    part = getattr(answer, member)
    if member == "immediate_response":
        mutation = part.headers
    elif member.endswith("_trailers"):
        mutation = part.header_mutation
    else:
        mutation = part.response.header_mutation
    return {
        option.header.key: option.header.raw_value.decode() or option.header.value
        for option in mutation.set_headers
    }
