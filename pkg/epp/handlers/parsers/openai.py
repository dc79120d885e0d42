"""OpenAI's APIs, and every other POST path by a catch-all that never refuses.

A path is recognised by its last segments (``/v1/chat/completions``, ``/openai/v1/embeddings``).
Bodies of known paths are checked for the one field that each API cannot do without; what a model
server may accept beyond that is left to it. On any other path a JSON object with a ``model`` is
routed by that model, and everything else (no model, multipart, gRPC, broken JSON) is opaque.

Reference: llm-d-router ebab687 pkg/epp/framework/plugins/requesthandling/parsers/openai (field
rules and texts). Departures: a path must match at a segment boundary; arrays of token arrays,
``prompt_embeds``, chat-style embeddings and plain strings among content blocks are accepted,
because model servers serve them.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from epp.errors import BadRequestError
from epp.handlers.parsers.parser import ParsedRequest

MAX_TOKEN_ID = 2**32 - 1
"""Token ids are unsigned 32-bit integers in every model server's API."""

_MESSAGES = "invalid chat completions request: must have valid messages field"
_PROMPT = "invalid completions request: must have prompt field"
_EMBEDDINGS = "invalid embeddings request: must have input field"
_RESPONSES = "invalid responses request: must have input field"
_IMAGES = "invalid images generations request: must have prompt field"


class OpenAIParser:
    """The parser of every request path."""

    def parse(self, path: str, body: bytes) -> ParsedRequest:
        """See ``RequestParser.parse``."""
        check = _check_for(path)
        if check is None:
            return _parse_unknown(body)
        payload = _load_object(body)
        check(payload)
        return _parsed(payload)


def is_openai_path(path: str) -> bool:
    """Tell whether errors of this path are shown as OpenAI's error object: ``/v1/…``."""
    return path.startswith("/v1/") or "/v1/" in _bare(path)


def _bare(path: str) -> str:
    return path.partition("?")[0].rstrip("/")


def _check_for(path: str) -> Callable[[Mapping[str, Any]], None] | None:
    segments = _bare(path).split("/")
    if segments[-1] == "render":
        segments.pop()
    return _CHECKS.get("/".join(segments[-2:])) or _CHECKS.get(segments[-1])


def _parse_unknown(body: bytes) -> ParsedRequest:
    try:
        payload = load_json(body)
    except ValueError:
        return ParsedRequest(opaque=True)
    if not isinstance(payload, dict):
        return ParsedRequest(opaque=True)
    parsed = _parsed(payload)
    return parsed if parsed.model else ParsedRequest(payload=payload, opaque=True)


def _parsed(payload: dict[str, Any]) -> ParsedRequest:
    model = payload.get("model")
    return ParsedRequest(
        model=model if isinstance(model, str) else "",
        stream=payload.get("stream") is True,
        payload=payload,
    )


def load_json(body: bytes) -> Any:
    """Decode JSON as leniently as the model servers do.

    The fast decoder refuses NaN, lone surrogates and UTF-16, which they accept; only what the
    standard library refuses as well is an error.

    Raises:
        ValueError: Not JSON; the text holds reason and position, nothing of the body.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        pass
    try:
        return json.loads(body)
    except json.JSONDecodeError as exc:
        where = f"line {exc.lineno} column {exc.colno} (char {exc.pos})"
        raise ValueError(f"{exc.msg}: {where}") from None
    except UnicodeDecodeError as exc:
        raise ValueError(f"not valid {exc.encoding} at byte {exc.start}") from None
    except ValueError:
        raise ValueError("a number has too many digits") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _load_object(body: bytes) -> dict[str, Any]:
    if not body:
        raise BadRequestError("the request body is empty; a JSON object is expected")
    try:
        payload = load_json(body)
    except ValueError as exc:
        raise BadRequestError(f"the request body is not valid JSON: {exc}") from None
    if not isinstance(payload, dict):
        kind = _JSON_NAMES.get(type(payload), "number")
        raise BadRequestError(f"the request body must be a JSON object, not {kind}")
    return payload


_JSON_NAMES = {list: "an array", str: "a string", bool: "a boolean", type(None): "null"}


def _check_chat(payload: Mapping[str, Any]) -> None:
    messages = payload.get("messages")
    if not isinstance(messages, list) or not messages:
        raise BadRequestError(_MESSAGES, param="messages")
    for position, message in enumerate(messages):
        _check_message(message, f"messages[{position}]")


def _check_message(message: Any, where: str) -> None:
    if not isinstance(message, dict):
        raise BadRequestError(f"{_MESSAGES}: {where} must be an object", param=where)
    if not isinstance(message.get("role", ""), str):
        raise BadRequestError(f"{_MESSAGES}: {where}.role must be a string", param=f"{where}.role")
    content = message.get("content")
    if content is None or isinstance(content, str):
        return
    where = f"{where}.content"
    if not isinstance(content, list):
        wanted = "a string or an array of content blocks"
        raise BadRequestError(f"{_MESSAGES}: {where} must be {wanted}", param=where)
    for position, block in enumerate(content):
        _check_block(block, f"{where}[{position}]")


def _check_block(block: Any, where: str) -> None:
    if isinstance(block, str):
        return
    if not isinstance(block, dict):
        raise BadRequestError(f"{_MESSAGES}: {where} must be an object", param=where)
    text = block.get("text")
    if text is not None and not isinstance(text, str):
        raise BadRequestError(f"{_MESSAGES}: {where}.text must be a string", param=f"{where}.text")


def _check_prompt(payload: Mapping[str, Any]) -> None:
    if not _is_prompt(payload.get("prompt")) and not payload.get("prompt_embeds"):
        raise BadRequestError(_PROMPT, param="prompt")


def _check_embeddings(payload: Mapping[str, Any]) -> None:
    if "input" not in payload and "messages" in payload:
        _check_chat(payload)
    elif not _is_prompt(payload.get("input")):
        raise BadRequestError(_EMBEDDINGS, param="input")


def _check_responses(payload: Mapping[str, Any]) -> None:
    if payload.get("input") is None:
        raise BadRequestError(_RESPONSES, param="input")


def _check_images(payload: Mapping[str, Any]) -> None:
    if not payload.get("prompt"):
        raise BadRequestError(_IMAGES, param="prompt")


def _is_prompt(value: Any) -> bool:
    if isinstance(value, str):
        return bool(value)
    if not isinstance(value, list) or not value:
        return False
    kind = type(value[0])
    if kind is str:
        return all(type(item) is str for item in value)
    if kind is list:
        return all(type(item) is list and _is_token_ids(item) for item in value)
    return _is_token_ids(value)


def _is_token_ids(value: list[Any]) -> bool:
    return bool(value) and all(type(item) is int and 0 <= item <= MAX_TOKEN_ID for item in value)


_CHECKS: Mapping[str, Callable[[Mapping[str, Any]], None]] = {
    "chat/completions": _check_chat,
    "completions": _check_prompt,
    "embeddings": _check_embeddings,
    "responses": _check_responses,
    "images/generations": _check_images,
}
