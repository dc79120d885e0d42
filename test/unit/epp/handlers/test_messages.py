"""Answers to the gateway."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from epp.errors import (
    BadRequestError,
    EppError,
    ErrorCode,
    InternalError,
    ModelNotFoundError,
    PayloadTooLargeError,
    ResourceExhaustedError,
    UnavailableError,
)
from epp.handlers import messages
from epp.handlers.messages import HTTP_STATUS, MAX_CHUNK_BYTES


def subclasses(base: Any) -> Iterator[type[EppError]]:
    yield base
    for child in base.__subclasses__():
        yield from subclasses(child)


def test_every_code_has_a_status() -> None:
    assert set(HTTP_STATUS) == set(ErrorCode)


def test_every_error_can_be_sent() -> None:
    for error in subclasses(EppError):
        assert messages.immediate(error("text"), "/v1/x").immediate_response.status.code >= 400


@pytest.mark.parametrize(
    ("error", "want"),
    [
        pytest.param(BadRequestError, 400, id="bad-request"),
        pytest.param(ModelNotFoundError, 404, id="model-not-found"),
        pytest.param(PayloadTooLargeError, 413, id="too-large"),
        pytest.param(ResourceExhaustedError, 429, id="saturated"),
        pytest.param(InternalError, 500, id="internal"),
        pytest.param(UnavailableError, 503, id="unavailable"),
    ],
)
def test_status_of_each_error(error: Any, want: Any) -> None:
    assert messages.immediate(error("text"), "/x").immediate_response.status.code == want


def test_openai_paths_get_an_error_object(kit: Any) -> None:
    error = BadRequestError("must have prompt", param="prompt")

    reply = messages.immediate(error, "/v1/completions").immediate_response

    assert json.loads(reply.body) == {
        "error": {
            "message": "must have prompt",
            "type": "BadRequestError",
            "param": "prompt",
            "code": 400,
        }
    }
    assert kit.set_headers(reply.headers) == {"content-type": "application/json"}


def test_other_paths_get_the_text_and_the_dropped_reason(kit: Any) -> None:
    error = ResourceExhaustedError("system saturated", dropped_reason="rejected-saturated")

    reply = messages.immediate(error, "/generate").immediate_response

    assert reply.body == b"inference error: InferencePoolResourceExhausted - system saturated"
    assert kit.set_headers(reply.headers) == {
        "x-llm-d-request-dropped-reason": "rejected-saturated"
    }


def test_a_message_that_is_no_unicode_is_still_sent() -> None:
    reply = messages.immediate(ModelNotFoundError("no \ud800"), "/v1/x").immediate_response

    assert json.loads(reply.body)["error"]["message"] == "no ?"


@pytest.mark.parametrize(
    ("size", "want"),
    [
        pytest.param(0, [0], id="nothing-is-one-chunk"),
        pytest.param(MAX_CHUNK_BYTES, [MAX_CHUNK_BYTES], id="exactly-one"),
        pytest.param(MAX_CHUNK_BYTES + 1, [MAX_CHUNK_BYTES, 1], id="one-more"),
        pytest.param(2 * MAX_CHUNK_BYTES, [MAX_CHUNK_BYTES] * 2, id="exactly-two"),
    ],
)
def test_bodies_are_cut_and_only_the_last_piece_ends_the_stream(size: int, want: Any) -> None:
    body = bytes(range(256)) * (size // 256 + 1)
    body = body[:size]

    requests = [
        answer.request_body.response.body_mutation.streamed_response
        for answer in messages.request_chunks(body, end_of_stream=True)
    ]
    responses = [
        answer.response_body.response.body_mutation.streamed_response
        for answer in messages.response_chunks(body, end_of_stream=True)
    ]

    assert [len(piece.body) for piece in requests] == want
    assert b"".join(piece.body for piece in requests) == body
    assert [piece.end_of_stream for piece in requests] == [False] * (len(want) - 1) + [True]
    assert requests == responses


def test_an_open_stream_is_not_ended_by_its_pieces() -> None:
    pieces = messages.request_chunks(b"x" * 100_000, end_of_stream=False)

    ends = [
        piece.request_body.response.body_mutation.streamed_response.end_of_stream
        for piece in pieces
    ]
    assert ends == [False, False]


def test_headers_are_overwritten_never_appended() -> None:
    answer = messages.routed(
        targets=("a:1", "b:2"),
        request_id="id",
        content_length=5,
        remove=["x-bad"],
        answers_body=False,
    )

    mutation = answer.request_headers.response.header_mutation
    assert {item.append_action for item in mutation.set_headers} == {2}
    assert [item.header.raw_value for item in mutation.set_headers] == [b"a:1,b:2", b"id", b"5"]
    assert list(mutation.remove_headers) == ["x-bad"]
