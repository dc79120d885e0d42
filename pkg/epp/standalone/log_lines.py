"""The log of a standalone run: one format for the supervisor's lines and its children's.

Both arrive as JSON lines. With ``--log-format json`` they leave as they came, else as text:
``epp: warning: endpoint fails endpoint=demo/sim-1``. Lines that are no JSON are passed on whole.
"""

import io
import json
from collections.abc import Callable

_NOISE = frozenset({"time", "level", "event", "logger_name"})


def readable(line: str, *, program: str, everything: bool = True) -> str:
    """One log line as text.

    Args:
        line: JSON object or plain text.
        program: Who said it.
        everything: Information, too; otherwise only from warnings on.

    Returns:
        The text; empty when it need not be shown.
    """
    try:
        record = json.loads(line)
        level = str(record.get("level", "info"))
    except (ValueError, AttributeError):
        text = line.strip()
        return text if not text or text.startswith(f"{program}: ") else f"{program}: {text}"
    if level in {"info", "debug"} and not everything:
        return ""
    fields = " ".join(f"{key}={value}" for key, value in record.items() if key not in _NOISE)
    prefix = "" if level == "info" else f"{level}: "
    return f"{program}: {prefix}{record.get('event', '')} {fields}".rstrip()


class LineSink(io.TextIOBase):
    """A text stream that hands on whole lines: where our own logger writes."""

    def __init__(self, on_line: Callable[[str], None]) -> None:
        super().__init__()
        self._on_line = on_line
        self._rest = ""

    def write(self, text: str, /) -> int:
        """Take some text."""
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._on_line(line)
        return len(text)
