"""Text of others that goes into our errors and logs: short, printable, and without secrets."""

import re

_SECRET = re.compile(r"[\w\-.=+]{32,}")
_MARKUP = ("<", "{", "[")
SHOWN_CHARACTERS = 200


def without_secrets(text: str) -> str:
    """Replace every long word that could be a token or a key."""
    return _SECRET.sub("…", text)


def first_line(body: bytes, *, hide: str = "") -> str:
    """What a plain-text answer says, to be shown; empty when it is markup or says nothing.

    Args:
        body: The answer.
        hide: A secret that the answer may repeat, however short; so is each of its words.
    """
    text = body.decode(errors="replace").strip()
    if text.startswith(_MARKUP):
        return ""
    line = "".join(c if c.isprintable() else " " for c in text.partition("\n")[0])
    for secret in sorted({hide, *hide.split()} - {""}, key=len, reverse=True):
        line = line.replace(secret, "…")
    return without_secrets(line).strip()[:SHOWN_CHARACTERS]
