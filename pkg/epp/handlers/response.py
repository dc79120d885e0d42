"""What a response says: its status, whether it streams, and what it cost.

Token usage is found without parsing the response. In an event stream only complete lines that
contain ``usage`` are decoded; a chunk without that word costs one search. Of a JSON document the
last 64 KiB are kept: a document that fits is decoded whole, of a longer one the last ``usage``
object in its tail is taken (model servers write it after the choices). So memory per response
is bounded, and the result never depends on how the bytes were cut into chunks.

Reference: llm-d-router ebab687 pkg/epp/framework/plugins/requesthandling/parsers (field names).
Departures: lines split over chunks are not lost, CRLF is a line end, ``data:`` needs no blank.
"""

import json
import re
from collections.abc import Mapping
from typing import Any, Protocol

import orjson

from epp.metrics.usage import TokenUsage

RESPONSE_HEADERS = frozenset({":status", "status", "content-type"})
"""All that is read of a response's headers."""
JSON_TAIL_BYTES = 64 * 1024
"""Bytes kept of a JSON response: 4,000 generated tokens are about 16 KiB."""
MAX_LINE_BYTES = 1024 * 1024
"""Longest line of an event stream that is looked at; ``response.completed`` repeats the whole
answer in one line."""

_USAGE = b"usage"
_USAGE_OBJECT = re.compile(r'"usage"\s*:\s*(?=\{)')
_LARGEST_COUNT = 2**53
_NO_USAGE = TokenUsage()


class UsageScanner(Protocol):
    """Reads a response body chunk by chunk."""

    def feed(self, chunk: bytes) -> None:
        """Look at the next bytes."""
        ...

    def finish(self) -> TokenUsage | None:
        """Return what the response said; None when it said nothing. Call once, at the end."""
        ...


def usage_scanner(*, streaming: bool) -> UsageScanner:
    """Return the scanner for a response."""
    return SseUsage() if streaming else JsonUsage()


def is_event_stream(content_type: str) -> bool:
    """Tell whether a content type announces server-sent events."""
    return "text/event-stream" in content_type.lower()


def response_status(headers: Mapping[str, str]) -> int:
    """Return the HTTP status of response headers; 0 when it is missing or no number.

    Reference: the reference looks for ``status`` and so misses what proxies send, ``:status``.
    """
    text = headers.get(":status") or headers.get("status", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) == 3 else 0


class ResponseMeter:
    """What is known of one response.

    Attributes:
        status: HTTP status; 0 before the headers.
        streaming: It is an event stream.
        first_body_at: When its first body bytes came, on the caller's clock; None until then.
        body_bytes: Length of the body so far.
        served_by: ``ip:port`` that served, where the gateway says so in metadata; else empty.
    """

    __slots__ = ("_scanner", "body_bytes", "first_body_at", "served_by", "status", "streaming")

    def __init__(self) -> None:
        self.status = 0
        self.streaming = False
        self.first_body_at: float | None = None
        self.body_bytes = 0
        self.served_by = ""
        self._scanner: UsageScanner | None = None

    def start(self, headers: Mapping[str, str], served_by: str = "") -> None:
        """Take note of the headers, and of who served."""
        self.served_by = served_by
        self.status = response_status(headers)
        self.streaming = is_event_stream(headers.get("content-type", ""))

    def feed(self, chunk: bytes, now: float) -> None:
        """Take note of the next body bytes."""
        if not chunk:
            return
        if self._scanner is None:
            self.first_body_at = now
            self._scanner = usage_scanner(streaming=self.streaming)
        self.body_bytes += len(chunk)
        self._scanner.feed(chunk)

    def take_usage(self) -> TokenUsage | None:
        """Return the token counts seen; call once, at the end."""
        scanner, self._scanner = self._scanner, None
        return scanner.finish() if scanner else None


class JsonUsage:
    """Usage of a JSON document, from its tail."""

    __slots__ = ("_size", "_tail")

    def __init__(self) -> None:
        self._tail = bytearray()
        self._size = 0

    def feed(self, chunk: bytes) -> None:
        """See ``UsageScanner.feed``."""
        self._size += len(chunk)
        self._tail += chunk[-JSON_TAIL_BYTES:]
        if len(self._tail) > 2 * JSON_TAIL_BYTES:
            del self._tail[:-JSON_TAIL_BYTES]

    def finish(self) -> TokenUsage | None:
        """See ``UsageScanner.finish``."""
        if _USAGE not in self._tail:
            return None
        if self._size > JSON_TAIL_BYTES:
            return _usage_in_tail(bytes(self._tail[-JSON_TAIL_BYTES:]))
        try:
            return _document_usage(orjson.loads(self._tail))
        except orjson.JSONDecodeError:
            return None


class SseUsage:
    """Usage of an event stream: the latest value of each count."""

    __slots__ = ("_held", "_held_bytes", "_usage")

    def __init__(self) -> None:
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._usage: TokenUsage | None = None

    def feed(self, chunk: bytes) -> None:
        """See ``UsageScanner.feed``."""
        end = chunk.rfind(b"\n") + 1
        start = 0
        if end and self._held_bytes:
            start = chunk.find(b"\n") + 1
            self._hold(chunk[:start])
            self._read_lines(self._release())
        if chunk.find(_USAGE, start, end) >= 0:
            self._read_lines(chunk[start:end])
        if end < len(chunk):
            self._hold(chunk[end:])

    def finish(self) -> TokenUsage | None:
        """See ``UsageScanner.finish``."""
        self._read_lines(self._release())
        return self._usage

    def _hold(self, part: bytes) -> None:
        """Keep the start of a line that is not complete; of one too long, only its length."""
        self._held_bytes += len(part)
        if self._held_bytes <= MAX_LINE_BYTES + len(b"\n"):
            self._held.append(part)
        else:
            self._held.clear()

    def _release(self) -> bytes:
        line = b"".join(self._held)
        self._held.clear()
        self._held_bytes = 0
        return line

    def _read_lines(self, lines: bytes) -> None:
        if _USAGE not in lines:
            return
        for line in lines.split(b"\n"):
            if line.startswith(b"data:") and _USAGE in line and len(line) <= MAX_LINE_BYTES:
                self._read_event(line[len(b"data:") :])

    def _read_event(self, data: bytes) -> None:
        try:
            found = _document_usage(orjson.loads(data.strip()))
        except orjson.JSONDecodeError:
            return
        if found:
            self._usage = _merge(self._usage, found) if self._usage else found


def _usage_in_tail(tail: bytes) -> TokenUsage | None:
    text = tail.decode("utf-8", "replace")
    decoder = json.JSONDecoder()
    found = None
    for match in _USAGE_OBJECT.finditer(text):
        try:
            usage, _ = decoder.raw_decode(text, match.end())
        except (ValueError, RecursionError):
            continue
        found = _counts(usage) or found
    return found


def _document_usage(document: Any) -> TokenUsage | None:
    """Read ``usage``, or that of the ``response`` or ``message`` which an event wraps."""
    if not isinstance(document, dict):
        return None
    for holder in (document, document.get("response"), document.get("message")):
        if isinstance(holder, dict):
            usage = _counts(holder.get("usage"))
            if usage:
                return usage
    return None


def _counts(usage: Any) -> TokenUsage | None:
    if not isinstance(usage, dict):
        return None
    details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else None
    found = TokenUsage(
        prompt_tokens=_first(usage, "prompt_tokens", "input_tokens"),
        completion_tokens=_first(usage, "completion_tokens", "output_tokens"),
        cached_tokens=_count(usage.get("cache_read_input_tokens") if cached is None else cached),
    )
    return None if found == _NO_USAGE else found


def _first(usage: Mapping[str, Any], *names: str) -> int:
    for name in names:
        count = _count(usage.get(name))
        if count:
            return count
    return 0


def _count(value: Any) -> int | None:
    """Return a number of tokens; None for what is none. Some servers write numbers as text."""
    if value is None:
        return None
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 16:
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    whole = isinstance(value, int) and not isinstance(value, bool)
    return value if whole and 0 <= value <= _LARGEST_COUNT else None


def _merge(old: TokenUsage, new: TokenUsage) -> TokenUsage:
    return TokenUsage(
        prompt_tokens=new.prompt_tokens or old.prompt_tokens,
        completion_tokens=new.completion_tokens or old.completion_tokens,
        cached_tokens=old.cached_tokens if new.cached_tokens is None else new.cached_tokens,
    )
