"""Metric specs: which series of a page carries a signal, as an operator writes it in a flag.

A spec is ``name`` or ``name{label=value,label2="value, with = and comma"}``. A series matches when
every listed label has exactly that value; unlisted labels do not matter. An empty text switches
the signal off. Pure: text in, value or ``ConfigError`` out.

Reference: GAIE pkg/epp/backend/metrics/metrics_spec.go (v0.3.0) and llm-d-router's spec.go; we
accept what either accepts, and refuse what both refuse.
"""

import re
from dataclasses import dataclass

from epp.errors import ConfigError
from epp.logs import get_logger

log = get_logger(__name__)

_METRIC_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_ESCAPE = re.compile(r'\\(["\\])')
_PAIR = re.compile(
    r"""\s*+
    (?P<label>[^=,{}"]*+) = \s*+
    (?: "(?P<quoted>(?:[^"\\]|\\.)*+)" | (?P<bare>[^",}][^,}]*+)? )
    \s*+
    """,
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricSpec:
    """One sample name and the label values it must have.

    Attributes:
        name: Sample name, not family name: a counter carries its ``_total``.
        labels: Required label values; empty means that every series matches.
    """

    name: str
    labels: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        if not self.labels:
            return self.name
        pairs = ",".join(f"{label}={_quote(value)}" for label, value in self.labels)
        return f"{self.name}{{{pairs}}}"


def parse_metric_spec(text: str, *, source: str = "metric spec") -> MetricSpec | None:
    r"""Read a spec.

    Values may be in double quotes, where ``\"`` and ``\\`` are escapes and commas, braces and
    equals signs are ordinary; unquoted values end at a comma or brace. A name that no exposition
    can contain is accepted with a warning, because v0.3 did.

    Args:
        text: The operator's text.
        source: The flag or field it comes from, for the error.

    Returns:
        The spec; None when the text is empty, which switches the signal off.

    Raises:
        ConfigError: A spec that neither version of the reference accepts.
    """
    if not text:
        return None
    name, brace, block = text.partition("{")
    name = name.strip()
    if not name:
        raise _error(text, source, "the metric name is empty")
    if not brace and "}" in text:
        raise _error(text, source, "a closing brace without an opening one")
    labels = _parse_labels(block, text, source) if brace else ()
    _warn_about_names(name, labels, source)
    return MetricSpec(name=name, labels=labels)


def _parse_labels(block: str, text: str, source: str) -> tuple[tuple[str, str], ...]:
    """Read ``a=b,c="d"}``, the part behind the opening brace."""
    labels: dict[str, str] = {}
    position = len(block) - len(block.lstrip())
    if block.startswith("}", position):
        _require_end(block, position + 1, text, source)
        return ()
    while True:
        match = _PAIR.match(block, position)
        if match is None:
            raise _error(text, source, "each label needs the form name=value")
        label, value = match["label"].strip(), _value(match)
        if not label:
            raise _error(text, source, "a label name is empty")
        if value is None:
            raise _error(text, source, f"the value of label {label!r} is empty")
        if label in labels:
            raise _error(text, source, f"label {label!r} is given twice")
        labels[label] = value
        position = match.end()
        following = block[position : position + 1]
        if following == "}":
            _require_end(block, position + 1, text, source)
            return tuple(labels.items())
        if following != ",":
            problem = "characters after a quoted value" if following else "no closing brace"
            raise _error(text, source, problem)
        position += 1


def _value(match: re.Match[str]) -> str | None:
    quoted: str | None = match["quoted"]
    if quoted is not None:
        return _ESCAPE.sub(r"\1", quoted)
    return (match["bare"] or "").strip() or None


def _require_end(block: str, position: int, text: str, source: str) -> None:
    if block[position:].strip():
        raise _error(text, source, "characters after the label section")


def _warn_about_names(name: str, labels: tuple[tuple[str, str], ...], source: str) -> None:
    if not _METRIC_NAME.fullmatch(name):
        log.warning("metric name matches no exposition", source=source, name=name)
    for label, _ in labels:
        if not _LABEL_NAME.fullmatch(label):
            log.warning("label name matches no exposition", source=source, name=label)


def _quote(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _error(text: str, source: str, problem: str) -> ConfigError:
    return ConfigError(problem, source=source, value=text)
