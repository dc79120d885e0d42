"""Usage, status and kind of a response, for any cutting into chunks."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epp.handlers.response import (
    JSON_TAIL_BYTES,
    MAX_LINE_BYTES,
    JsonUsage,
    is_event_stream,
    response_status,
    usage_scanner,
)
from epp.metrics.usage import TokenUsage


def scan(chunks: Any, *, streaming: Any) -> TokenUsage | None:
    scanner = usage_scanner(streaming=streaming)
    for chunk in chunks:
        scanner.feed(chunk)
    return scanner.finish()


def sse(*documents: Any, end: Any = "\n\n") -> bytes:
    return "".join(f"data: {json.dumps(document)}{end}" for document in documents).encode()


USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
WANT = TokenUsage(prompt_tokens=7, completion_tokens=3)


@pytest.mark.parametrize(
    ("usage", "want"),
    [
        pytest.param(USAGE, WANT, id="completions"),
        pytest.param({"input_tokens": 7, "output_tokens": 3}, WANT, id="responses"),
        pytest.param({"prompt_tokens": "7", "completion_tokens": 3.0}, WANT, id="text-and-float"),
        pytest.param(
            {**USAGE, "prompt_tokens_details": {"cached_tokens": 0}},
            TokenUsage(prompt_tokens=7, completion_tokens=3, cached_tokens=0),
            id="cached-zero",
        ),
        pytest.param(
            {"input_tokens": 7, "input_tokens_details": {"cached_tokens": 5}},
            TokenUsage(prompt_tokens=7, cached_tokens=5),
            id="cached-in-responses",
        ),
        pytest.param(
            {"input_tokens": 7, "cache_read_input_tokens": 5},
            TokenUsage(prompt_tokens=7, cached_tokens=5),
            id="cached-in-messages",
        ),
        pytest.param(
            {"prompt_tokens": 7, "prompt_tokens_details": None},
            TokenUsage(prompt_tokens=7),
            id="details-null",
        ),
        pytest.param({"prompt_tokens": -1, "completion_tokens": True}, None, id="no-counts"),
        pytest.param({"prompt_tokens": 2**60}, None, id="absurd-count"),
        pytest.param(None, None, id="null"),
        pytest.param([1], None, id="array"),
    ],
)
def test_usage_of_a_document_and_of_an_event_are_read_alike(usage: Any, want: Any) -> None:
    document = {"id": "x", "usage": usage}

    assert scan([json.dumps(document).encode()], streaming=False) == want
    assert scan([sse(document)], streaming=True) == want


def test_the_last_usage_of_a_stream_wins() -> None:
    body = sse({"usage": {"prompt_tokens": 7, "completion_tokens": 1}}, {"usage": USAGE})

    assert scan([body + b"data: [DONE]\n\n"], streaming=True) == WANT


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(sse({"choices": []}, {"usage": USAGE}, end="\r\n\r\n"), id="crlf"),
        pytest.param(b"data:" + json.dumps({"usage": USAGE}).encode() + b"\n\n", id="no-blank"),
        pytest.param(sse({"usage": USAGE}).rstrip(b"\n"), id="no-end-of-line"),
        pytest.param(sse({"usage": USAGE}, {"usage": None}), id="null-afterwards"),
        pytest.param(sse({"usage": USAGE}) + b"data: {usage\n\n", id="broken-event"),
        pytest.param(
            sse({"type": "response.completed", "response": {"usage": USAGE}}), id="completed"
        ),
        pytest.param(
            sse(
                {"type": "message_start", "message": {"usage": {"input_tokens": 7}}},
                {"type": "message_delta", "usage": {"output_tokens": 3}},
            ),
            id="messages",
        ),
        pytest.param(b": usage\nevent: usage\n" + sse({"usage": USAGE}), id="other-fields"),
    ],
)
def test_usage_is_found_in_every_shape_of_event_stream(body: Any) -> None:
    assert scan([body], streaming=True) == WANT
    assert scan([body[at : at + 1] for at in range(len(body))], streaming=True) == WANT


def test_a_line_longer_than_the_limit_is_skipped() -> None:
    long = sse({"x": "y" * MAX_LINE_BYTES, "usage": {"prompt_tokens": 1}})
    body = long + sse({"usage": USAGE})

    whole = scan([body], streaming=True)
    cut = scan([body[at : at + 65_536] for at in range(0, len(body), 65_536)], streaming=True)

    assert whole == cut == WANT


@pytest.mark.parametrize("size", [pytest.param(1000, id="fits"), pytest.param(900_000, id="long")])
@pytest.mark.parametrize("step", [pytest.param(777, id="small"), pytest.param(10**9, id="whole")])
def test_usage_behind_a_document_of_any_length_is_found(size: int, step: int) -> None:
    text = 'say \\"usage\\": {"prompt_tokens": 1}'
    document = {"choices": [text, "x" * size, text], "usage": USAGE, "system": None}
    body = json.dumps(document).encode()

    assert scan([body[at : at + step] for at in range(0, len(body), step)], streaming=False) == WANT


def test_a_long_document_is_not_kept() -> None:
    scanner = JsonUsage()

    for _ in range(100):
        scanner.feed(b"x" * 50_000)

    assert len(scanner._tail) <= 2 * JSON_TAIL_BYTES + 50_000


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"usage", id="no-json"),
        pytest.param(b"[" + b"0," * 50_000 + b'{"usage": {', id="cut-off"),
    ],
)
def test_a_response_without_usage_says_nothing(body: Any) -> None:
    assert scan([body], streaming=False) is None
    assert scan([body], streaming=True) is None


@pytest.mark.parametrize(
    ("headers", "want"),
    [
        pytest.param({":status": "200"}, 200, id="pseudo-header"),
        pytest.param({"status": "503"}, 503, id="reference-name"),
        pytest.param({":status": "abc"}, 0, id="no-number"),
        pytest.param({}, 0, id="absent"),
    ],
)
def test_status_is_read_from_the_headers(headers: Any, want: Any) -> None:
    assert response_status(headers) == want


@pytest.mark.parametrize(
    ("content_type", "want"),
    [
        pytest.param("text/event-stream; charset=utf-8", True, id="with-charset"),
        pytest.param("Text/Event-Stream", True, id="any-case"),
        pytest.param("application/json", False, id="json"),
        pytest.param("", False, id="absent"),
    ],
)
def test_event_streams_are_recognised(content_type: Any, want: Any) -> None:
    assert is_event_stream(content_type) is want


LINES = st.one_of(
    st.binary(max_size=20),
    st.sampled_from([b"data: [DONE]", b"", b"event: x", b"data: usage"]),
    st.builds(
        lambda prompt, cached: (
            b"data: "
            + json.dumps(
                {
                    "usage": {
                        "prompt_tokens": prompt,
                        "prompt_tokens_details": {"cached_tokens": cached},
                    }
                }
            ).encode()
        ),
        st.integers(0, 99),
        st.integers(0, 9) | st.none(),
    ),
)


@pytest.mark.fuzz
@settings(max_examples=2500, deadline=None)
@given(
    lines=st.lists(LINES, max_size=8),
    end=st.sampled_from([b"\n", b"\r\n", b"\n\n"]),
    cuts=st.lists(st.integers(0, 400), max_size=12),
    streaming=st.booleans(),
)
def test_usage_never_depends_on_the_chunks(lines: Any, end: Any, cuts: Any, streaming: Any) -> None:
    body = end.join(lines)
    bounds = [0, *sorted(cut for cut in cuts if cut < len(body)), len(body)]
    chunks = [body[a:b] for a, b in zip(bounds, bounds[1:], strict=False)]

    assert scan(chunks, streaming=streaming) == scan([body], streaming=streaming)
