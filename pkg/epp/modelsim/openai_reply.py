"""Building OpenAI reply bodies and events, in the shapes that vLLM sends.

Pure: text is a function of the prompt and the position, ids and times come from the caller.
"""

import base64
import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from zlib import crc32

import orjson

from epp.modelsim.openai_request import Api

EVENT_STREAM = "text/event-stream; charset=utf-8"
DONE = b"data: [DONE]\n\n"
DEFAULT_DIMENSIONS = 8

_WORDS = (
    *("the", "gateway", "asks", "and", "a", "pod", "answers", "with", "words", "that", "mean"),
    *("nothing", "at", "all", "but", "arrive", "one", "by"),
)
_ID_PREFIX = {
    Api.COMPLETIONS: "cmpl-",
    Api.CHAT: "chatcmpl-",
    Api.EMBEDDINGS: "embd-",
    Api.RESPONSES: "resp_",
}


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

    def document(self) -> dict[str, Any]:
        """Return the ``usage`` object of completions and chats."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
            "completion_tokens": self.completion_tokens,
            "prompt_tokens_details": {"cached_tokens": self.cached_tokens},
        }

    def response_document(self) -> dict[str, Any]:
        """Return the ``usage`` object of responses."""
        return {
            "input_tokens": self.prompt_tokens,
            "input_tokens_details": {"cached_tokens": self.cached_tokens},
            "output_tokens": self.completion_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": self.prompt_tokens + self.completion_tokens,
        }


class ReplyShape:
    """The bodies and events of one reply."""

    __slots__ = ("_api", "_head")

    def __init__(self, api: Api, *, request_id: str, created: int, model: str) -> None:
        """Take what every body repeats; ``request_id`` comes without the prefix of the kind."""
        self._api = api
        self._head = {"id": _ID_PREFIX[api] + request_id, "created": created, "model": model}

    def completion(self, outputs: Sequence[str], reason: str, usage: Usage) -> bytes:
        """Return the whole body of a completion or a chat."""
        chat = self._api is Api.CHAT
        choices = [
            {
                "index": index,
                **({"message": {"role": "assistant", "content": text}} if chat else {"text": text}),
                "logprobs": None,
                "finish_reason": reason,
            }
            for index, text in enumerate(outputs)
        ]
        kind = "chat.completion" if chat else "text_completion"
        body = {"object": kind, **self._head, "choices": choices, "usage": usage.document()}
        return orjson.dumps(body)

    def first_event(self, index: int) -> bytes:
        """Return the event with the role and no content that begins a chat; else nothing."""
        if self._api is not Api.CHAT:
            return b""
        return self._chunk(index, {"delta": {"role": "assistant", "content": ""}}, None)

    def token_event(self, index: int, text: str, reason: str | None) -> bytes:
        """Return the event of one token; the last one carries the finish reason."""
        piece = {"delta": {"content": text}} if self._api is Api.CHAT else {"text": text}
        return self._chunk(index, piece, reason)

    def usage_event(self, usage: Usage) -> bytes:
        """Return the event with the token counts and no choices."""
        return _event(
            {"object": self._kind(), **self._head, "choices": [], "usage": usage.document()}
        )

    def embeddings(
        self, prompts: Sequence[bytes], usage: Usage, *, size: int, packed: bool
    ) -> bytes:
        """Return the whole body of an embeddings request, as numbers or packed in base64."""
        data = []
        for index, prompt in enumerate(prompts):
            vector = _embedding(prompt, size)
            value = (
                base64.b64encode(struct.pack(f"<{size}f", *vector)).decode() if packed else vector
            )
            data.append({"index": index, "object": "embedding", "embedding": value})
        return orjson.dumps(
            {"object": "list", **self._head, "data": data, "usage": usage.document()}
        )

    def response(self, text: str, usage: Usage) -> bytes:
        """Return the whole body of a response."""
        return orjson.dumps(self._response("completed", text, usage))

    def response_created(self) -> bytes:
        """Return the first event of a streamed response."""
        return self._named_event(
            "response.created", 0, response=self._response("in_progress", None, None)
        )

    def response_delta(self, text: str, sequence_number: int) -> bytes:
        """Return the event of one token of a streamed response."""
        place = {"item_id": self._item_id(), "output_index": 0, "content_index": 0}
        return self._named_event(
            "response.output_text.delta", sequence_number, **place, delta=text, logprobs=[]
        )

    def response_completed(self, text: str, usage: Usage, sequence_number: int) -> bytes:
        """Return the last event of a streamed response."""
        whole = self._response("completed", text, usage)
        return self._named_event("response.completed", sequence_number, response=whole)

    def _chunk(self, index: int, piece: dict[str, Any], reason: str | None) -> bytes:
        choice = {"index": index, **piece, "logprobs": None, "finish_reason": reason}
        return _event({"object": self._kind(), **self._head, "choices": [choice]})

    def _kind(self) -> str:
        return "chat.completion.chunk" if self._api is Api.CHAT else "text_completion"

    def _item_id(self) -> str:
        return f"msg_{self._head['id']}"

    def _named_event(self, name: str, number: int, **fields: object) -> bytes:
        body = orjson.dumps({"type": name, "sequence_number": number, **fields})
        return b"event: %b\ndata: %b\n\n" % (name.encode(), body)

    def _response(self, status: str, text: str | None, usage: Usage | None) -> dict[str, Any]:
        content: dict[str, object] = {"type": "output_text", "text": text, "annotations": []}
        message = {
            "type": "message",
            "id": self._item_id(),
            "role": "assistant",
            "status": status,
            "content": [content],
        }
        return {
            "id": self._head["id"],
            "object": "response",
            "created_at": self._head["created"],
            "model": self._head["model"],
            "status": status,
            "error": None,
            "incomplete_details": None,
            "instructions": None,
            "metadata": {},
            "output": [] if text is None else [message],
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
            "usage": None if usage is None else usage.response_document(),
        }


def _event(document: dict[str, Any]) -> bytes:
    return b"data: %b\n\n" % orjson.dumps(document)


def _embedding(prompt: bytes, size: int) -> list[float]:
    raw = hashlib.shake_256(prompt).digest(size)
    return [byte / 127.5 - 1.0 for byte in raw]
