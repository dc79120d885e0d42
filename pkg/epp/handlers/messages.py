"""Builds every message that we send to the gateway. No state, no decisions.

Headers are always set with an explicit overwrite: a client that sends a routing header twice must
not get its own value through beside ours. An answer names nothing that it does not change.

Reference: llm-d-router ebab687 pkg/common/envoy (wire contract), pkg/common/error (texts).
"""

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

import orjson

from epp.errors import EppError, ErrorCode
from epp.gen.envoy.config.core.v3.base_pb2 import HeaderValue, HeaderValueOption
from epp.gen.envoy.service.ext_proc.v3.external_processor_pb2 import (
    BodyResponse,
    CommonResponse,
    HeaderMutation,
    HeadersResponse,
    ProcessingResponse,
    TrailersResponse,
)
from epp.handlers.parsers.openai import is_openai_path
from epp.handlers.request import DESTINATION_HEADER, DESTINATION_NAMESPACE

MAX_CHUNK_BYTES = 62_000
"""Largest piece of a streamed body: the reference's, below the 64 KiB of many HTTP/2 windows."""
RESPONSE_MARK_HEADER = "x-went-into-resp-headers"
DROPPED_REASON_HEADER = "x-llm-d-request-dropped-reason"

HTTP_STATUS: Mapping[ErrorCode, int] = MappingProxyType(
    {
        ErrorCode.BAD_REQUEST: 400,
        ErrorCode.BAD_CONFIGURATION: 404,
        ErrorCode.PAYLOAD_TOO_LARGE: 413,
        ErrorCode.RESOURCE_EXHAUSTED: 429,
        ErrorCode.INTERNAL: 500,
        ErrorCode.SERVICE_UNAVAILABLE: 503,
        ErrorCode.MODEL_SERVER_ERROR: 502,
        ErrorCode.UNKNOWN: 500,
    }
)
"""The one place where an error becomes a status."""

_OPENAI_TYPES: Mapping[int, str] = MappingProxyType(
    {
        400: "BadRequestError",
        404: "NotFoundError",
        413: "PayloadTooLargeError",
        429: "RateLimitError",
        503: "ServiceUnavailableError",
    }
)
_OPENAI_DEFAULT_TYPE = "InternalServerError"
_OVERWRITE = HeaderValueOption.HeaderAppendAction.OVERWRITE_IF_EXISTS_OR_ADD


def routing_mutation(
    *,
    targets: Sequence[str],
    request_id: str | None,
    content_length: int | None,
    remove: Sequence[str],
) -> HeaderMutation:
    """Build the header changes of a routed request.

    Args:
        targets: ``ip:port`` of every pick, best first; the rest serve the gateway's retries.
        request_id: To set when the client sent none.
        content_length: To set when the gateway cannot know it.
        remove: Headers that the client must not send.
    """
    mutation = HeaderMutation(remove_headers=remove)
    _set(mutation, DESTINATION_HEADER, ",".join(targets))
    if request_id is not None:
        _set(mutation, "x-request-id", request_id)
    if content_length is not None:
        _set(mutation, "content-length", str(content_length))
    return mutation


def continue_headers() -> ProcessingResponse:
    """Answer request headers whose body decides later."""
    return ProcessingResponse(request_headers=HeadersResponse(response=CommonResponse()))


def routed_headers(mutation: HeaderMutation, targets: Sequence[str]) -> ProcessingResponse:
    """Answer request headers with the pick."""
    common = CommonResponse(header_mutation=mutation, clear_route_cache=True)
    answer = ProcessingResponse(request_headers=HeadersResponse(response=common))
    _add_metadata(answer, targets)
    return answer


def routed_body(
    mutation: HeaderMutation, targets: Sequence[str], body: bytes | None
) -> ProcessingResponse:
    """Answer a buffered request body with the pick, and with a new body if there is one."""
    common = CommonResponse(header_mutation=mutation, clear_route_cache=True)
    if body is not None:
        common.body_mutation.body = body
    answer = ProcessingResponse(request_body=BodyResponse(response=common))
    _add_metadata(answer, targets)
    return answer


def request_chunks(body: bytes, *, end_of_stream: bool) -> Iterator[ProcessingResponse]:
    """Build the pieces of a request body; at least one, even of nothing."""
    for piece, last in _pieces(body):
        answer = ProcessingResponse()
        streamed = answer.request_body.response.body_mutation.streamed_response
        streamed.body = piece
        streamed.end_of_stream = last and end_of_stream
        yield answer


def response_chunks(body: bytes, *, end_of_stream: bool) -> Iterator[ProcessingResponse]:
    """Build the pieces of a response body; at least one, even of nothing."""
    for piece, last in _pieces(body):
        answer = ProcessingResponse()
        streamed = answer.response_body.response.body_mutation.streamed_response
        streamed.body = piece
        streamed.end_of_stream = last and end_of_stream
        yield answer


def continue_response_body() -> ProcessingResponse:
    """Answer a buffered response body: keep it."""
    return ProcessingResponse(response_body=BodyResponse(response=CommonResponse()))


def request_trailers() -> ProcessingResponse:
    """Answer request trailers: keep them."""
    return ProcessingResponse(request_trailers=TrailersResponse())


def response_trailers() -> ProcessingResponse:
    """Answer response trailers: keep them."""
    return ProcessingResponse(response_trailers=TrailersResponse())


def response_headers() -> ProcessingResponse:
    """Answer response headers: mark them, and touch none."""
    answer = ProcessingResponse()
    _set(answer.response_headers.response.header_mutation, RESPONSE_MARK_HEADER, "true")
    return answer


def immediate(error: EppError, path: str) -> ProcessingResponse:
    """Refuse a request: status, body in the API's own shape, and the reason as a header."""
    status = HTTP_STATUS[error.code]
    answer = ProcessingResponse()
    reply = answer.immediate_response
    # The enumeration is open: every HTTP status is a value of it.
    reply.status.code = status  # type: ignore[assignment]
    reply.details = f"epp_{error.code}"
    if is_openai_path(path):
        _set(reply.headers, "content-type", "application/json")
        reply.body = _openai_error(error, status)
    else:
        reply.body = f"inference error: {error.code} - {error.message}".encode()
    if error.dropped_reason is not None:
        _set(reply.headers, DROPPED_REASON_HEADER, error.dropped_reason)
    return answer


def _openai_error(error: EppError, status: int) -> bytes:
    return orjson.dumps(
        {
            "error": {
                "message": error.message.encode("utf-8", "replace").decode(),
                "type": _OPENAI_TYPES.get(status, _OPENAI_DEFAULT_TYPE),
                "param": error.param,
                "code": status,
            }
        }
    )


def _set(mutation: HeaderMutation, name: str, value: str) -> None:
    mutation.set_headers.add(
        header=HeaderValue(key=name, raw_value=value.encode("utf-8", "replace")),
        append_action=_OVERWRITE,
    )


def _add_metadata(answer: ProcessingResponse, targets: Sequence[str]) -> None:
    fields = answer.dynamic_metadata.fields[DESTINATION_NAMESPACE].struct_value.fields
    fields[DESTINATION_HEADER].string_value = ",".join(targets)


def _pieces(body: bytes) -> Iterator[tuple[bytes, bool]]:
    if len(body) <= MAX_CHUNK_BYTES:
        yield body, True
        return
    for start in range(0, len(body), MAX_CHUNK_BYTES):
        end = start + MAX_CHUNK_BYTES
        yield body[start:end], end >= len(body)
