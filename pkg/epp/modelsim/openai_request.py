"""Reading OpenAI request bodies: what the engine needs of them, refused in vLLM's shape.

Pure. Fields that do not change what the simulator does are not looked at.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import orjson

DEFAULT_OUTPUT_TOKENS = 16
MAX_CHOICES = 128
"""Choices of one request, prompts times ``n``."""
MAX_DIMENSIONS = 65_536
"""Length of an embedding."""


class Api(Enum):
    """The endpoints that run something on the engine."""

    COMPLETIONS = "/v1/completions"
    CHAT = "/v1/chat/completions"
    EMBEDDINGS = "/v1/embeddings"
    RESPONSES = "/v1/responses"


_WITH_CHOICES = frozenset({Api.COMPLETIONS, Api.CHAT})


class ApiError(Exception):
    """A refusal in vLLM's shape.

    Attributes:
        status: HTTP status.
        message: For the client.
        kind: ``type`` of the error object.
        param: Field at fault, or None.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        kind: str = "BadRequestError",
        param: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.kind = kind
        self.param = param

    def body(self) -> bytes:
        """Return the JSON body."""
        return orjson.dumps(
            {
                "error": {
                    "message": self.message,
                    "type": self.kind,
                    "param": self.param,
                    "code": self.status,
                }
            }
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiRequest:
    """A request that the engine can run.

    Attributes:
        api: Endpoint.
        model: Name that was asked for; None when there was none.
        prompts: Rendered prompts, four bytes a token, at least one.
        choices: Choices per prompt.
        max_tokens: Output limit as asked; None when there was none.
        stream: Whether the reply is a stream of events.
        include_usage: Whether the stream ends with an event of the token counts.
        base64: Whether embeddings are sent as base64 instead of numbers.
        dimensions: Length of an embedding; None when not asked for.
    """

    api: Api
    model: str | None
    prompts: tuple[bytes, ...]
    choices: int = 1
    max_tokens: int | None = None
    stream: bool = False
    include_usage: bool = False
    base64: bool = False
    dimensions: int | None = None

    @property
    def output_tokens(self) -> int:
        """Tokens to generate per choice."""
        if self.api is Api.EMBEDDINGS:
            return 0
        return DEFAULT_OUTPUT_TOKENS if self.max_tokens is None else self.max_tokens

    @property
    def finish_reason(self) -> str:
        """Why the output ends: a chat without a limit ends by itself, the others at theirs."""
        ends_itself = self.max_tokens is None and self.api in {Api.CHAT, Api.RESPONSES}
        return "stop" if ends_itself else "length"


def decode(body: bytes) -> Mapping[str, Any]:
    """Decode a body. Raises ApiError when it is not a JSON object."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        raise ApiError(f"The request body is not valid JSON: {exc}") from exc
    if not isinstance(document, dict):
        raise ApiError("The request body must be a JSON object.")
    return document


def model_of(document: Mapping[str, Any]) -> str | None:
    """Return the model name. Raises ApiError when it is not a string."""
    model = document.get("model")
    if model is not None and not isinstance(model, str):
        raise ApiError("The field `model` must be a string.", param="model")
    return model or None


def parse(api: Api, document: Mapping[str, Any]) -> ApiRequest:
    """Read a request. Raises ApiError naming the field at fault."""
    prompts = _PROMPTS[api](document)
    choices = (_integer(document, "n", least=1) or 1) if api in _WITH_CHOICES else 1
    if len(prompts) * choices > MAX_CHOICES:
        raise ApiError(f"The request asks for more than {MAX_CHOICES} choices.", param="n")
    options = document.get("stream_options")
    return ApiRequest(
        api=api,
        model=model_of(document),
        prompts=prompts,
        choices=choices,
        max_tokens=_limit(api, document),
        stream=document.get("stream") is True and api is not Api.EMBEDDINGS,
        include_usage=isinstance(options, dict) and options.get("include_usage") is True,
        base64=document.get("encoding_format") == "base64",
        dimensions=_integer(document, "dimensions", least=1, most=MAX_DIMENSIONS),
    )


def _limit(api: Api, document: Mapping[str, Any]) -> int | None:
    names = {
        Api.COMPLETIONS: ("max_tokens",),
        Api.CHAT: ("max_completion_tokens", "max_tokens"),
        Api.RESPONSES: ("max_output_tokens",),
        Api.EMBEDDINGS: (),
    }
    for name in names[api]:
        limit = _integer(document, name, least=1)
        if limit is not None:
            return limit
    return None


def _integer(
    document: Mapping[str, Any], name: str, *, least: int, most: int | None = None
) -> int | None:
    value = document.get(name)
    if value is None:
        return None
    if type(value) is not int or value < least:
        raise ApiError(f"The field `{name}` must be an integer of at least {least}.", param=name)
    if most is not None and value > most:
        raise ApiError(f"The field `{name}` must be at most {most}.", param=name)
    return value


def _completion_prompts(document: Mapping[str, Any]) -> tuple[bytes, ...]:
    return _texts(document, "prompt")


def _embedding_prompts(document: Mapping[str, Any]) -> tuple[bytes, ...]:
    return _texts(document, "input")


def _chat_prompts(document: Mapping[str, Any]) -> tuple[bytes, ...]:
    messages = document.get("messages")
    if not isinstance(messages, list) or not messages:
        raise ApiError("The field `messages` must be a list of messages.", param="messages")
    return (_render(messages, "messages"),)


def _response_prompts(document: Mapping[str, Any]) -> tuple[bytes, ...]:
    given = document.get("input")
    if isinstance(given, list) and given and all(isinstance(item, dict) for item in given):
        return (_render(given, "input"),)
    if not isinstance(given, str):
        raise ApiError("The field `input` must be a text or a list of messages.", param="input")
    return (given.encode(errors="replace"),)


_PROMPTS = {
    Api.COMPLETIONS: _completion_prompts,
    Api.CHAT: _chat_prompts,
    Api.EMBEDDINGS: _embedding_prompts,
    Api.RESPONSES: _response_prompts,
}


def _texts(document: Mapping[str, Any], name: str) -> tuple[bytes, ...]:
    """Read a text, token ids, or a list of either."""
    given = document.get(name)
    if isinstance(given, str):
        return (given.encode(errors="replace"),)
    if isinstance(given, list) and given:
        if _are_token_ids(given):
            return (_token_bytes(given),)
        if all(isinstance(item, str) for item in given):
            return tuple(item.encode(errors="replace") for item in given)
        if all(isinstance(item, list) and item and _are_token_ids(item) for item in given):
            return tuple(_token_bytes(item) for item in given)
    raise ApiError(
        f"The field `{name}` must be a text, a list of token ids, or a list of those.", param=name
    )


def _are_token_ids(items: Sequence[object]) -> bool:
    return all(type(item) is int and 0 <= item < 2**32 for item in items)


def _token_bytes(ids: Sequence[int]) -> bytes:
    return b"".join([number.to_bytes(4, "little") for number in ids])


def _render(messages: Sequence[object], name: str) -> bytes:
    """Render messages one below the other, so that a longer chat begins with the shorter one."""
    parts = []
    for index, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise ApiError(f"`{name}[{index}]` must be a message with a role.", param=name)
        content = message.get("content")
        text = content.encode(errors="replace") if isinstance(content, str) else _parts(content)
        parts.append(b"<%b>%b\n" % (message["role"].encode(errors="replace"), text))
    return b"".join(parts)


def _parts(content: object) -> bytes:
    """Join the text of content parts; any other part counts with its JSON."""
    if not isinstance(content, list):
        return b"" if content is None else _json(content)
    return b"".join(
        part["text"].encode(errors="replace")
        if isinstance(part, dict) and isinstance(part.get("text"), str)
        else _json(part)
        for part in content
    )


def _json(value: object) -> bytes:
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError as exc:  # what was just decoded can only be nested too deeply
        raise ApiError("The content of a message is nested too deeply.", param="messages") from exc
