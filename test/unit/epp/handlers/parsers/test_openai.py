"""OpenAI parser: what each path demands, and that every other path is served."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epp.errors import BadRequestError
from epp.handlers.parsers.openai import OpenAIParser, is_openai_path
from epp.handlers.parsers.parser import ParsedRequest

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"


def parse(path: str, document: Any) -> ParsedRequest:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return OpenAIParser().parse(path, body)


@pytest.mark.parametrize(
    ("path", "document"),
    [
        pytest.param(COMPLETIONS, {"prompt": "hi"}, id="prompt-text"),
        pytest.param(COMPLETIONS, {"prompt": ["a", "b"]}, id="prompt-texts"),
        pytest.param(COMPLETIONS, {"prompt": [1, 2]}, id="prompt-tokens"),
        pytest.param(COMPLETIONS, {"prompt": [[1, 2], [3]]}, id="prompt-token-arrays"),
        pytest.param(COMPLETIONS, {"prompt_embeds": "AA=="}, id="prompt-embeds"),
        pytest.param("/v1/completions/render", {"prompt": "hi"}, id="render"),
        pytest.param(CHAT, {"messages": [{"role": "user", "content": "hi"}]}, id="chat"),
        pytest.param(CHAT, {"messages": [{"role": "assistant", "content": None}]}, id="null"),
        pytest.param(
            CHAT,
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {"type": "text", "text": "hi"},
                            {"type": "image_url", "image_url": {"url": "http://x"}},
                            "plain",
                        ],
                    }
                ]
            },
            id="content-blocks",
        ),
        pytest.param(f"{CHAT}?a=b", {"messages": [{"content": "hi"}]}, id="query-string"),
        pytest.param("/openai/v1/embeddings/", {"input": "hi"}, id="embeddings-with-prefix"),
        pytest.param("/v1/embeddings", {"messages": [{"content": "hi"}]}, id="chat-embeddings"),
        pytest.param("/v1/responses", {"input": "hi"}, id="responses"),
        pytest.param("/v1/responses", {"input": [{"role": "user"}]}, id="responses-items"),
        pytest.param("/v1/images/generations", {"prompt": "a cat"}, id="images"),
        pytest.param("/rerank", {"query": "q"}, id="unknown-path"),
    ],
)
def test_a_valid_body_gives_model_stream_and_payload(path: str, document: Any) -> None:
    document = {"model": "m", "stream": True, **document}

    parsed = parse(path, document)

    assert (parsed.model, parsed.stream, parsed.opaque) == ("m", True, False)
    assert parsed.payload == document


@pytest.mark.parametrize(
    ("path", "document", "param", "text"),
    [
        pytest.param(COMPLETIONS, {}, "prompt", "must have prompt field", id="no-prompt"),
        pytest.param(COMPLETIONS, {"prompt": ""}, "prompt", "prompt field", id="empty-prompt"),
        pytest.param(COMPLETIONS, {"prompt": [1, "a"]}, "prompt", "prompt", id="mixed-prompt"),
        pytest.param(COMPLETIONS, {"prompt": ["a", 1]}, "prompt", "prompt", id="mixed-texts"),
        pytest.param(COMPLETIONS, {"prompt": [True]}, "prompt", "prompt", id="boolean-token"),
        pytest.param(COMPLETIONS, {"prompt": [2**32]}, "prompt", "prompt", id="token-too-large"),
        pytest.param(COMPLETIONS, {"prompt": [[]]}, "prompt", "prompt", id="empty-token-array"),
        pytest.param(COMPLETIONS, {"prompt": {"a": 1}}, "prompt", "prompt", id="prompt-object"),
        pytest.param(CHAT, {}, "messages", "must have valid messages field", id="no-messages"),
        pytest.param(CHAT, {"messages": []}, "messages", "messages field", id="empty-messages"),
        pytest.param(CHAT, {"messages": ["a"]}, "messages[0]", "object", id="message-no-object"),
        pytest.param(
            CHAT,
            {"messages": [{"content": "a"}, {"content": 5}]},
            "messages[1].content",
            "messages[1].content must be a string or an array",
            id="content-number",
        ),
        pytest.param(
            CHAT, {"messages": [{"role": 1}]}, "messages[0].role", "string", id="role-number"
        ),
        pytest.param(
            CHAT, {"messages": [{"content": [7]}]}, "messages[0].content[0]", "object", id="block"
        ),
        pytest.param(
            CHAT,
            {"messages": [{"content": [{"type": "text", "text": 1}]}]},
            "messages[0].content[0].text",
            "string",
            id="block-text",
        ),
        pytest.param("/v1/embeddings", {}, "input", "must have input field", id="no-input"),
        pytest.param("/v1/embeddings", {"input": []}, "input", "input field", id="empty-input"),
        pytest.param("/v1/responses", {"input": None}, "input", "input field", id="null-input"),
        pytest.param("/v1/images/generations", {}, "prompt", "images", id="image-prompt"),
    ],
)
def test_a_missing_or_ill_typed_field_is_named(
    path: str, document: Any, param: str, text: str
) -> None:
    with pytest.raises(BadRequestError) as caught:
        parse(path, {"model": "m", **document})

    assert caught.value.param == param
    assert text in caught.value.message


@pytest.mark.parametrize(
    ("body", "text"),
    [
        pytest.param(b"", "empty", id="empty"),
        pytest.param(b'{"model":"secret","prompt":', "line 1 column 28 (char 27)", id="truncated"),
        pytest.param(b'{"a" "secret"}', "delimiter: line 1 column 6 (char 5)", id="no-colon"),
        pytest.param(b"[1]", "not an array", id="array"),
        pytest.param(b'"secret"', "not a string", id="string"),
        pytest.param(b"null", "not null", id="null"),
        pytest.param(b"true", "not a boolean", id="boolean"),
        pytest.param(b"1.5", "not number", id="number"),
        pytest.param(b'{"a":"\xff"}', "not valid utf-8 at byte 6", id="not-utf-8"),
        pytest.param(b"[" + b"9" * 5000 + b"]", "too many digits", id="long-number"),
        pytest.param(b'{"a":' + b"[" * 100_000, "nested too deeply", id="too-deep"),
    ],
)
def test_malformed_json_is_told_with_its_position_and_without_the_body(
    body: Any, text: str
) -> None:
    with pytest.raises(BadRequestError, match="request body") as caught:
        parse(COMPLETIONS, body)

    assert text in caught.value.message
    assert "secret" not in caught.value.message


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"--boundary\r\nContent-Disposition: form-data\r\n", id="multipart"),
        pytest.param(b"\x00\x00\x00\x00\x05hello", id="grpc"),
        pytest.param(b'{"model":', id="broken-json"),
        pytest.param(b'["model"]', id="array"),
        pytest.param(b'{"text":"no model"}', id="no-model"),
        pytest.param(b'{"model":5}', id="model-no-string"),
    ],
)
def test_a_body_that_says_no_model_is_opaque_on_an_unknown_path(body: Any) -> None:
    parsed = parse("/v1/audio/transcriptions", body)

    assert (parsed.opaque, parsed.model) == (True, "")


@pytest.mark.parametrize("model", [pytest.param(None, id="null"), pytest.param(3, id="number")])
def test_a_model_that_is_no_string_counts_as_absent(model: Any) -> None:
    parsed = parse(COMPLETIONS, {"model": model, "prompt": "hi"})

    assert (parsed.model, parsed.opaque) == ("", False)


@pytest.mark.parametrize("stream", [pytest.param(1, id="number"), pytest.param("true", id="text")])
def test_only_true_streams(stream: Any) -> None:
    assert parse(COMPLETIONS, {"prompt": "hi", "stream": stream}).stream is False


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b'{"model":"m","prompt":"\\ud800"}', id="lone-surrogate"),
        pytest.param(b'{"model":"m","prompt":"p","top":NaN}', id="nan"),
        pytest.param('{"model":"m","prompt":"p"}'.encode("utf-16"), id="utf-16"),
    ],
)
def test_what_model_servers_accept_is_accepted(body: Any) -> None:
    assert parse(COMPLETIONS, body).model == "m"


@pytest.mark.parametrize(
    ("path", "want"),
    [
        pytest.param("/v1/completions", True, id="v1"),
        pytest.param("/v1/models?x=1", True, id="query"),
        pytest.param("/openai/v1/chat/completions", True, id="prefix"),
        pytest.param("/generate", False, id="other"),
        pytest.param("/generate?next=/v1/x", False, id="only-in-the-query"),
    ],
)
def test_openai_paths_are_those_below_v1(path: str, want: Any) -> None:
    assert is_openai_path(path) is want


@pytest.mark.fuzz
@settings(max_examples=2500, deadline=None)
@given(
    path=st.sampled_from([CHAT, COMPLETIONS, "/v1/embeddings", "/v1/responses", "/other", ""]),
    body=st.binary() | st.text().map(str.encode),
)
def test_random_bytes_are_parsed_or_refused_but_never_crash(path: str, body: Any) -> None:
    try:
        parsed = parse(path, body)
    except BadRequestError as exc:
        # Even `{}` is drawn now and then: an object that lacks what the path needs.
        assert exc.message.startswith(("the request body", "invalid "))
        assert path.startswith("/v1/")
    else:
        # `{"model":" "}` is drawn now and then, too: any path takes a body that names a model.
        assert parsed.opaque == (not parsed.model)
        assert parsed.opaque or json.loads(body)["model"] == parsed.model


INTEGERS = st.integers(-(2**63), 2**64 - 1)
"""What JSON libraries keep exactly. Larger ones are floats in the payload, which is read, never
sent: the body goes out as its own bytes."""


@pytest.mark.fuzz
@settings(max_examples=2500, deadline=None)
@given(
    path=st.sampled_from([CHAT, COMPLETIONS, "/v1/embeddings", "/v1/responses", "/other"]),
    document=st.dictionaries(
        st.sampled_from(["model", "prompt", "messages", "input", "stream"]),
        st.recursive(
            st.none() | st.booleans() | INTEGERS | st.text(max_size=5),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.sampled_from(["role", "content", "text"]), inner)
            ),
            max_leaves=8,
        ),
    ),
)
def test_any_document_is_parsed_or_its_field_is_named(path: str, document: Any) -> None:
    try:
        parsed = parse(path, document)
    except BadRequestError as exc:
        assert exc.param is not None
        assert exc.param.split("[")[0] in {"messages", "prompt", "input"}
    else:
        assert parsed.payload == document
