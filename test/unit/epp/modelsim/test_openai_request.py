"""Reading request bodies: prompts, limits, refusals."""

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epp.modelsim.kv_cache import count_tokens
from epp.modelsim.openai_request import Api, ApiError, ApiRequest, decode, model_of, parse


@pytest.mark.parametrize(
    ("prompt", "want"),
    [
        pytest.param("abcdefgh", (2,), id="text"),
        pytest.param(["abcd", "abcde"], (1, 2), id="texts"),
        pytest.param([1, 2, 3], (3,), id="token-ids"),
        pytest.param([[1, 2, 3], [4]], (3, 1), id="lists-of-token-ids"),
        pytest.param("é" * 4, (2,), id="bytes-count-not-characters"),
    ],
)
def test_a_prompt_has_a_form_and_a_length(prompt: object, want: tuple[int, ...]) -> None:
    request = parse(Api.COMPLETIONS, {"prompt": prompt})

    assert tuple(count_tokens(one) for one in request.prompts) == want


def test_a_longer_chat_begins_with_the_shorter_one() -> None:
    first = {"role": "user", "content": "hello"}
    second = {"role": "assistant", "content": [{"type": "text", "text": "world"}]}

    (short,) = parse(Api.CHAT, {"messages": [first]}).prompts
    (long,) = parse(Api.CHAT, {"messages": [first, second]}).prompts

    assert long.startswith(short)
    assert b"world" in long


def test_parts_that_are_no_text_count_too() -> None:
    image = {"type": "image_url", "image_url": {"url": "http://x/" + "y" * 4000}}
    message = {"role": "user", "content": [{"type": "text", "text": "what?"}, image]}

    (prompt,) = parse(Api.CHAT, {"messages": [message]}).prompts

    assert len(prompt) > 4000


@pytest.mark.parametrize(
    ("api", "fields", "tokens", "reason"),
    [
        pytest.param(Api.COMPLETIONS, {}, 16, "length", id="completion-default"),
        pytest.param(Api.CHAT, {}, 16, "stop", id="chat-ends-by-itself"),
        pytest.param(Api.CHAT, {"max_tokens": 3}, 3, "length", id="old-name"),
        pytest.param(
            Api.CHAT, {"max_tokens": 3, "max_completion_tokens": 5}, 5, "length", id="new-name-wins"
        ),
        pytest.param(Api.RESPONSES, {"max_output_tokens": 7}, 7, "length", id="responses"),
        pytest.param(Api.EMBEDDINGS, {"max_tokens": 7}, 0, "length", id="embeddings-have-none"),
    ],
)
def test_the_output_has_a_length_and_an_end(
    api: Api, fields: dict[str, Any], tokens: int, reason: str
) -> None:
    base = {"prompt": "x", "input": "x", "messages": [{"role": "user", "content": "x"}]}

    request = parse(api, {**base, **fields})

    assert (request.output_tokens, request.finish_reason) == (tokens, reason)


@pytest.mark.parametrize(
    ("fields", "want"),
    [
        pytest.param({}, (False, False), id="no"),
        pytest.param({"stream": True}, (True, False), id="without-usage"),
        pytest.param(
            {"stream": True, "stream_options": {"include_usage": True}}, (True, True), id="usage"
        ),
        pytest.param({"stream": True, "stream_options": 7}, (True, False), id="odd-options"),
        pytest.param({"stream": None}, (False, False), id="null"),
    ],
)
def test_a_stream_and_its_usage_are_asked_for(
    fields: dict[str, Any], want: tuple[bool, bool]
) -> None:
    request = parse(Api.COMPLETIONS, {"prompt": "x", **fields})

    assert (request.stream, request.include_usage) == want


@pytest.mark.parametrize(
    ("api", "document", "param"),
    [
        pytest.param(Api.COMPLETIONS, {"prompt": [True]}, "prompt", id="booleans-are-no-tokens"),
        pytest.param(Api.COMPLETIONS, {"prompt": [2**40]}, "prompt", id="token-id-too-large"),
        pytest.param(Api.COMPLETIONS, {"prompt": ["a", 1]}, "prompt", id="mixed"),
        pytest.param(Api.COMPLETIONS, {"prompt": [[]]}, "prompt", id="no-token"),
        pytest.param(Api.CHAT, {"messages": [{"content": "x"}]}, "messages", id="no-role"),
        pytest.param(Api.EMBEDDINGS, {"input": "x", "dimensions": 10**12}, "dimensions", id="huge"),
        pytest.param(Api.RESPONSES, {"input": [1]}, "input", id="no-messages"),
    ],
)
def test_a_field_that_cannot_be_used_is_named(
    api: Api, document: dict[str, Any], param: str
) -> None:
    with pytest.raises(ApiError) as caught:
        parse(api, document)

    assert (caught.value.status, caught.value.param) == (400, param)
    assert f"`{param}" in caught.value.message


def test_content_nested_too_deeply_is_refused() -> None:
    body = b'{"messages":[{"role":"user","content":%b%b}]}' % (b"[" * 900, b"]" * 900)

    with pytest.raises(ApiError, match="nested too deeply"):
        parse(Api.CHAT, decode(body))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=12,
)
FIELDS = st.sampled_from(
    ["model", "prompt", "messages", "input", "n", "max_tokens", "stream", "stream_options"]
)


@pytest.mark.fuzz
@given(st.sampled_from(Api), st.dictionaries(FIELDS, JSON, max_size=6))
@settings(max_examples=500, deadline=None)
def test_any_document_is_read_or_refused(api: Api, document: dict[str, Any]) -> None:
    try:
        request = parse(api, decode(orjson.dumps(document)))
    except ApiError as error:
        assert error.status == 400
        assert orjson.loads(error.body())["error"]["message"]
    else:
        assert isinstance(request, ApiRequest)
        assert request.prompts


@pytest.mark.fuzz
@given(st.binary(max_size=64))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_decoded_or_refused(body: bytes) -> None:
    try:
        model = model_of(decode(body))
    except ApiError as error:
        assert error.status == 400
    else:
        assert model is None or isinstance(model, str)
