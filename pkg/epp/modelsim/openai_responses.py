"""Building bodies and events of the responses endpoint: one message, one text part.

Pure. Events are numbered from 0 without a gap: three before the first token, four after the last.
"""

from collections.abc import Sequence
from typing import Any

import orjson

from epp.modelsim.openai_reply import ReplyHead, Usage

_EVENTS_BEFORE_TEXT = 3


class ResponseShape:
    """Replies of the responses endpoint; see ``ReplyShape``."""

    __slots__ = ("_head", "_id", "_place")

    def __init__(self, head: ReplyHead) -> None:
        self._head = head
        self._id = f"resp_{head.request_id}"
        self._place = {"item_id": f"msg_{head.request_id}", "output_index": 0, "content_index": 0}

    def body(self, outputs: Sequence[str], usage: Usage) -> bytes:
        """Return the whole body."""
        return orjson.dumps(self._response(outputs[0], usage))

    def first_event(self, index: int) -> bytes:  # noqa: ARG002 - there is one choice
        """Return the events that open the response, its message and its text."""
        return b"".join(
            (
                _event("response.created", 0, response=self._response(None, None)),
                _event("response.output_item.added", 1, output_index=0, item=self._message(None)),
                _event("response.content_part.added", 2, **self._place, part=_part("")),
            )
        )

    def token_event(self, index: int, position: int, text: str, reason: str | None) -> bytes:  # noqa: ARG002 - there is one choice, and no reason
        """Return the event of one token."""
        number = _EVENTS_BEFORE_TEXT + position
        return _event("response.output_text.delta", number, **self._place, delta=text, logprobs=[])

    def last_events(self, outputs: Sequence[str], usage: Usage) -> bytes:
        """Return the events that close the text, its message and the response."""
        text = outputs[0]
        number = _EVENTS_BEFORE_TEXT + usage.completion_tokens
        place = self._place
        return b"".join(
            (
                _event("response.output_text.done", number, **place, text=text, logprobs=[]),
                _event("response.content_part.done", number + 1, **place, part=_part(text)),
                _event(
                    "response.output_item.done",
                    number + 2,
                    output_index=0,
                    item=self._message(text),
                ),
                _event("response.completed", number + 3, response=self._response(text, usage)),
            )
        )

    def _response(self, text: str | None, usage: Usage | None) -> dict[str, Any]:
        return {
            "id": self._id,
            "object": "response",
            "created_at": self._head.created,
            "model": self._head.model,
            "status": "in_progress" if text is None else "completed",
            "error": None,
            "incomplete_details": None,
            "instructions": None,
            "metadata": {},
            "output": [] if text is None else [self._message(text)],
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
            "usage": None if usage is None else _usage(usage),
        }

    def _message(self, text: str | None) -> dict[str, Any]:
        return {
            "type": "message",
            "id": self._place["item_id"],
            "role": "assistant",
            "status": "in_progress" if text is None else "completed",
            "content": [] if text is None else [_part(text)],
        }


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.total_tokens,
    }


def _event(name: str, number: int, **fields: object) -> bytes:
    body = orjson.dumps({"type": name, "sequence_number": number, **fields})
    return b"event: %b\ndata: %b\n\n" % (name.encode(), body)
