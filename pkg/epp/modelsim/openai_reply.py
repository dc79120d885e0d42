"""Building reply bodies and events of chats, completions and embeddings, in vLLM's shapes.

Pure: text is a function of the prompt and the position; ids and times come from the caller.
Responses have a file of their own, ``openai_responses``.
"""

import base64
import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from zlib import crc32

import orjson

from epp.modelsim.openai_request import ApiRequest

EVENT_STREAM = "text/event-stream; charset=utf-8"
DEFAULT_DIMENSIONS = 8

_DONE = b"data: [DONE]\n\n"
_WORDS = (
    *("the", "gateway", "asks", "and", "a", "pod", "answers", "with", "words", "that", "mean"),
    *("nothing", "at", "all", "but", "arrive", "one", "by"),
)


def word(prompt: bytes, position: int) -> str:
    """Return the text of the output token at a position, counted from 0."""
    text = _WORDS[(crc32(prompt) + position) % len(_WORDS)]
    return f" {text}" if position else text


def text_of(prompt: bytes, tokens: int) -> str:
    """Return the text of the first tokens of an output."""
    start = crc32(prompt)
    return " ".join([_WORDS[(start + position) % len(_WORDS)] for position in range(tokens)])


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Token counts of a whole request."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int

    @property
    def total_tokens(self) -> int:
        """Prompt and completion together."""
        return self.prompt_tokens + self.completion_tokens

    def document(self) -> dict[str, Any]:
        """Return the ``usage`` object."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "total_tokens": self.total_tokens,
            "completion_tokens": self.completion_tokens,
            "prompt_tokens_details": {"cached_tokens": self.cached_tokens},
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplyHead:
    """What every body and event of a reply repeats.

    Attributes:
        request_id: Id of the request, without the prefix of the kind of reply.
        created: Unix time in seconds.
        model: Name that was asked for.
    """

    request_id: str
    created: int
    model: str


class ReplyShape(Protocol):
    """The pieces of one kind of reply: a body, or first event, token events, last events."""

    def body(self, outputs: Sequence[str], usage: Usage) -> bytes:
        """Return the whole body."""
        ...

    def first_event(self, index: int) -> bytes:
        """Return what comes before the first token of a choice."""
        ...

    def token_event(self, index: int, position: int, text: str, reason: str | None) -> bytes:
        """Return the event of a token; the last one of a choice has a finish reason."""
        ...

    def last_events(self, outputs: Sequence[str], usage: Usage) -> bytes:
        """Return what comes after the last token."""
        ...


class ChatShape:
    """Replies of chats."""

    __slots__ = ("_base", "_include_usage", "_reason")

    def __init__(self, request: ApiRequest, head: ReplyHead) -> None:
        self._base = _base("chatcmpl-", head)
        self._include_usage = request.include_usage
        self._reason = request.finish_reason

    def body(self, outputs: Sequence[str], usage: Usage) -> bytes:
        """See ``ReplyShape``."""
        pieces = [{"message": {"role": "assistant", "content": text}} for text in outputs]
        return _completion_body("chat.completion", self._base, pieces, self._reason, usage)

    def first_event(self, index: int) -> bytes:
        """Return the event with the role and an empty content."""
        return self._chunk(index, {"role": "assistant", "content": ""}, None)

    def token_event(self, index: int, position: int, text: str, reason: str | None) -> bytes:  # noqa: ARG002 - responses need the position
        """See ``ReplyShape``."""
        return self._chunk(index, {"content": text}, reason)

    def last_events(self, outputs: Sequence[str], usage: Usage) -> bytes:  # noqa: ARG002 - responses need the outputs
        """See ``ReplyShape``."""
        return _usage_and_done(
            "chat.completion.chunk", self._base, usage, wanted=self._include_usage
        )

    def _chunk(self, index: int, delta: dict[str, str], reason: str | None) -> bytes:
        return _chunk("chat.completion.chunk", self._base, index, {"delta": delta}, reason)


class CompletionShape:
    """Replies of completions."""

    __slots__ = ("_base", "_include_usage", "_reason")

    def __init__(self, request: ApiRequest, head: ReplyHead) -> None:
        self._base = _base("cmpl-", head)
        self._include_usage = request.include_usage
        self._reason = request.finish_reason

    def body(self, outputs: Sequence[str], usage: Usage) -> bytes:
        """See ``ReplyShape``."""
        pieces = [{"text": text} for text in outputs]
        return _completion_body("text_completion", self._base, pieces, self._reason, usage)

    def first_event(self, index: int) -> bytes:  # noqa: ARG002 - chats need it
        """Return nothing: a completion begins with its first token."""
        return b""

    def token_event(self, index: int, position: int, text: str, reason: str | None) -> bytes:  # noqa: ARG002 - responses need the position
        """See ``ReplyShape``."""
        return _chunk("text_completion", self._base, index, {"text": text}, reason)

    def last_events(self, outputs: Sequence[str], usage: Usage) -> bytes:  # noqa: ARG002 - responses need the outputs
        """See ``ReplyShape``."""
        return _usage_and_done("text_completion", self._base, usage, wanted=self._include_usage)


def embeddings_body(request: ApiRequest, head: ReplyHead, usage: Usage) -> bytes:
    """Return the body of an embeddings request, as numbers or packed in base64."""
    size = request.dimensions or DEFAULT_DIMENSIONS
    data = []
    for index, prompt in enumerate(request.prompts):
        vector = [byte / 127.5 - 1.0 for byte in hashlib.shake_256(prompt).digest(size)]
        packed = base64.b64encode(struct.pack(f"<{size}f", *vector)).decode()
        value = packed if request.base64 else vector
        data.append({"index": index, "object": "embedding", "embedding": value})
    return orjson.dumps(
        {**_base("embd-", head), "object": "list", "data": data, "usage": usage.document()}
    )


def _base(prefix: str, head: ReplyHead) -> dict[str, Any]:
    return {"id": prefix + head.request_id, "created": head.created, "model": head.model}


def _completion_body(
    kind: str,
    base: dict[str, Any],
    pieces: Sequence[dict[str, Any]],
    reason: str,
    usage: Usage,
) -> bytes:
    choices = [
        {"index": index, **piece, "logprobs": None, "finish_reason": reason}
        for index, piece in enumerate(pieces)
    ]
    return orjson.dumps({**base, "object": kind, "choices": choices, "usage": usage.document()})


def _chunk(
    kind: str, base: dict[str, Any], index: int, piece: dict[str, Any], reason: str | None
) -> bytes:
    choice = {"index": index, **piece, "logprobs": None, "finish_reason": reason}
    return _event({**base, "object": kind, "choices": [choice]})


def _usage_and_done(kind: str, base: dict[str, Any], usage: Usage, *, wanted: bool) -> bytes:
    if not wanted:
        return _DONE
    return _event({**base, "object": kind, "choices": [], "usage": usage.document()}) + _DONE


def _event(document: dict[str, Any]) -> bytes:
    return b"data: %b\n\n" % orjson.dumps(document)
