"""Builds every message that we send to the gateway. No state, no decisions.

Messages are filled in place: passing one to the constructor of another copies it, and takes twice
the time. Answers that never differ are built once; nobody writes to an answer.

Headers are always set with an explicit overwrite: a client that sends a routing header twice must
not get its own value through beside ours. An answer names nothing that it does not change.

Reference: llm-d-router ebab687 pkg/common/envoy (wire contract), pkg/common/error (texts).
"""

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

import orjson

from epp.errors import EppError, ErrorCode
from epp.gen.envoy.config.core.v3.base_pb2 import HeaderValueOption
from epp.gen.envoy.service.ext_proc.v3.external_processor_pb2 import (
    BodyResponse,
    CommonResponse,
    HeaderMutation,
    HeadersResponse,
    ProcessingResponse,
    TrailersResponse,
)
from epp.handlers.events import Answers
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


def routed(
    *,
    targets: Sequence[str],
    request_id: str | None,
    content_length: int | None,
    remove: Sequence[str],
    answers_body: bool,
    body: bytes | None = None,
) -> ProcessingResponse:
    """Answer request headers, or a buffered request body, with the pick.

    Args:
        targets: ``ip:port`` of every pick, best first; the rest serve the gateway's retries.
        request_id: To set when the client sent none.
        content_length: To set when the gateway cannot know it.
        remove: Headers that the client must not send.
        answers_body: The body is answered, not the headers.
        body: In place of the buffered one; None keeps that.
    """
    answer = ProcessingResponse()
    common = (answer.request_body if answers_body else answer.request_headers).response
    common.clear_route_cache = True
    mutation = common.header_mutation
    destination = ",".join(targets)
    _set(mutation, DESTINATION_HEADER, destination)
    if request_id is not None:
        _set(mutation, "x-request-id", request_id)
    if content_length is not None:
        _set(mutation, "content-length", str(content_length))
    if remove:
        mutation.remove_headers.extend(remove)
    if body is not None:
        common.body_mutation.body = body
    metadata = answer.dynamic_metadata.fields[DESTINATION_NAMESPACE].struct_value.fields
    metadata[DESTINATION_HEADER].string_value = destination
    return answer


def request_chunks(body: bytes, *, end_of_stream: bool) -> Answers:
    """Build the pieces of a request body; at least one, even of nothing."""
    if len(body) <= MAX_CHUNK_BYTES:
        return (_request_chunk(body, last=end_of_stream),)
    return tuple(_request_chunk(piece, last=end and end_of_stream) for piece, end in _pieces(body))


def response_chunks(body: bytes, *, end_of_stream: bool) -> Answers:
    """Build the pieces of a response body; at least one, even of nothing."""
    if len(body) <= MAX_CHUNK_BYTES:
        return (_response_chunk(body, last=end_of_stream),)
    return tuple(_response_chunk(piece, last=end and end_of_stream) for piece, end in _pieces(body))


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
    option = mutation.set_headers.add()
    option.append_action = _OVERWRITE
    header = option.header
    header.key = name
    header.raw_value = value.encode("utf-8", "replace")


def _request_chunk(piece: bytes, *, last: bool) -> ProcessingResponse:
    answer = ProcessingResponse()
    streamed = answer.request_body.response.body_mutation.streamed_response
    streamed.body = piece
    streamed.end_of_stream = last
    return answer


def _response_chunk(piece: bytes, *, last: bool) -> ProcessingResponse:
    answer = ProcessingResponse()
    streamed = answer.response_body.response.body_mutation.streamed_response
    streamed.body = piece
    streamed.end_of_stream = last
    return answer


def _pieces(body: bytes) -> Iterator[tuple[bytes, bool]]:
    """The body in pieces, and whether each is the last."""
    for start in range(0, len(body), MAX_CHUNK_BYTES):
        end = start + MAX_CHUNK_BYTES
        yield body[start:end], end >= len(body)


def _marked_response() -> ProcessingResponse:
    answer = ProcessingResponse()
    _set(answer.response_headers.response.header_mutation, RESPONSE_MARK_HEADER, "true")
    return answer


CONTINUE_HEADERS = ProcessingResponse(request_headers=HeadersResponse(response=CommonResponse()))
"""Answers request headers whose body decides later."""
RESPONSE_HEADERS = _marked_response()
"""Answers response headers: marks them, and touches none."""
CONTINUE_RESPONSE_BODY = ProcessingResponse(response_body=BodyResponse(response=CommonResponse()))
"""Answers a buffered response body: keep it."""
REQUEST_TRAILERS = ProcessingResponse(request_trailers=TrailersResponse())
"""Answers request trailers: keep them."""
RESPONSE_TRAILERS = ProcessingResponse(response_trailers=TrailersResponse())
"""Answers response trailers: keep them."""
