"""Replace the top-level ``model`` of a JSON body and leave every other byte alone.

Parsing and serialising again would reorder keys, turn big integers into floats and cost a second
pass over a prompt of half a megabyte. Here the value's bytes are located and replaced.

Two ways to locate it. Nearly always the text ``"model"`` occurs once and no escape sequence can
spell one of its letters: a top-level key named ``model`` then can only be that occurrence, and no
scan is needed. Otherwise the structure is walked, a string or a nested value at a time, never
byte by byte. Every top-level ``model`` with a string value is replaced, so a duplicate key cannot
smuggle the old name past a decoder that prefers the first.
"""

import json
import re

_KEY = b'"model"'
_ESCAPED_LETTER = b"\\u006"
"""Every letter of ``model`` is one of U+0064 to U+006F."""
_LONGEST_KEY = len('"') + 6 * len("model") + len('"')
"""Each letter may be written as an escape of six characters."""
_QUICK_QUOTES = 32
"""Quotes looked at with ``find``, which is fastest for prose, before a pattern takes over."""
_MAX_STEPS = 200_000
"""Brackets or keys that a scan visits at most: about 0.1 s. No honest prompt has as many."""

_COLON = re.compile(rb"[ \t\r\n]*:[ \t\r\n]*")
_STRUCTURE = re.compile(rb'["{}\[\]]')
_STRING_REST = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_FLAT = re.compile(rb'[^"{}\[\]]*+(?:"[^"\\]*+(?:\\.[^"\\]*+)*+"[^"{}\[\]]*+)*+', re.DOTALL)

Span = tuple[int, int]


def splice_model(body: bytes, model: str) -> bytes:
    """Return ``body`` with the value of its top-level ``model`` replaced.

    Args:
        body: A JSON object that a decoder accepted, with a string at its top-level ``model``.
        model: The new name.

    Returns:
        The body, byte for byte the same but for that value. Only a body whose key cannot be
        located (UTF-16, an absurd number of brackets) is serialised again.
    """
    value = json.dumps(model).encode()
    spans = [] if b"\0" in body[:4] else _only_occurrence(body) or _scan(body)
    if not spans:
        return json.dumps({**json.loads(body), "model": model}).encode()
    parts: list[bytes] = []
    copied = 0
    for start, end in spans:
        parts += (body[copied:start], value)
        copied = end
    parts.append(body[copied:])
    return b"".join(parts)


def _only_occurrence(body: bytes) -> list[Span]:
    at = body.find(_KEY)
    if at < 0 or body.find(_KEY, at + 1) >= 0 or _ESCAPED_LETTER in body:
        return []
    value = _string_value(body, at + len(_KEY))
    return [value] if value else []


def _scan(body: bytes) -> list[Span]:
    """Return the string values of the top-level keys that decode to ``model``, in order."""
    spans: list[Span] = []
    position = body.find(b"{") + 1
    if not position or body.count(b"{") + body.count(b"[") > _MAX_STEPS:
        return spans
    for _ in range(_MAX_STEPS):
        found = _STRUCTURE.search(body, position)
        if found is None or found.group() in b"}]":
            return spans
        start = found.start()
        if found.group() != b'"':
            position = _nested_end(body, start)
            continue
        position = _string_end(body, start)
        value = _string_value(body, position) if _is_model(body[start:position]) else None
        if value:
            spans.append(value)
            position = value[1]
    return []


def _string_value(body: bytes, after_key: int) -> Span | None:
    """Return where the string lies that follows a key and its colon; None for anything else."""
    colon = _COLON.match(body, after_key)
    if colon is None or body[colon.end() : colon.end() + 1] != b'"':
        return None
    return colon.end(), _string_end(body, colon.end())


def _string_end(body: bytes, start: int) -> int:
    """Return the index after the closing quote of the string that opens at ``start``."""
    searched = start + 1
    for _ in range(_QUICK_QUOTES):
        quote = body.find(b'"', searched)
        if quote < 0:
            return len(body)
        run = body[searched:quote]
        if (len(run) - len(run.rstrip(b"\\"))) % 2 == 0:
            return quote + 1
        searched = quote + 1
    rest = _STRING_REST.match(body, searched)
    return rest.end() if rest else len(body)


def _nested_end(body: bytes, start: int) -> int:
    """Return the index after the object or array that opens at ``start``."""
    depth = 1
    position = start + 1
    while depth:
        flat = _FLAT.match(body, position)
        position = flat.end() if flat else len(body)
        bracket = body[position : position + 1]
        if not bracket:
            return len(body)
        depth += 1 if bracket in b"{[" else -1
        position += 1
    return position


def _is_model(text: bytes) -> bool:
    """Tell whether a JSON string decodes to ``model``."""
    if text == _KEY:
        return True
    return len(text) <= _LONGEST_KEY and _ESCAPED_LETTER in text and json.loads(text) == "model"
