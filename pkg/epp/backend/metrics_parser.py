"""Targeted scan of a Prometheus text page: decode the samples of a few names, ignore the rest.

One compiled expression finds the lines that begin with a needed sample name; only those are read.
``# TYPE`` lines are not needed: a number is a number. Lines that cannot be read are counted and
skipped. Text format 0.0.4 and 1.0.0 and OpenMetrics (``# EOF``, exemplars, seconds as timestamps)
look alike to the scan. Pure; time is linear in the page, whatever is on it.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import NamedTuple, TypeVar

_LABEL = rb'[ \t]*+([^\s"=,{}]++)[ \t]*+=[ \t]*+"((?:[^"\\]++|\\.)*+)"[ \t]*+'
_LABEL_QUIET = _LABEL.replace(b"([^", b"(?:[^").replace(b'"((?:', b'"(?:(?:')
_LABELS = re.compile(_LABEL)
_SAMPLE = re.compile(
    rb"[ \t]*+(?:\{((?:" + _LABEL_QUIET + rb",)*+(?:" + _LABEL_QUIET + rb")?)[ \t]*+\})?"
    rb"[ \t]*+([^\s_#]++)(?:[ \t]++([^\s_#]++))?[ \t]*+\r?(?:[ \t]*+#.*+)?\Z",
    re.DOTALL,
)
_ESCAPE = re.compile(r'\\([\\n"])')
_UNESCAPED = {"\\": "\\", "n": "\n", '"': '"'}

Labels = Mapping[str, str]
MEMO_ENTRIES = 1024
"""Lines and label blocks that are remembered: info series and small counts repeat all the time."""
MEMO_UP_TO_BYTES = 4096
"""Longer texts are read each time, so that the memory of a memo is bounded."""

V = TypeVar("V")


def remembered(read: Callable[[bytes], V]) -> Callable[[bytes], V]:
    """Wrap a pure function of some bytes of a page in a memo of bounded size."""
    memo = lru_cache(MEMO_ENTRIES)(read)

    def look_up(text: bytes) -> V:
        return memo(text) if len(text) <= MEMO_UP_TO_BYTES else read(text)

    return look_up


class Sample(NamedTuple):
    """One sample line, its labels still as they stand on the page.

    Attributes:
        label_block: What stands between the braces; empty without labels.
        value: May be NaN or infinite.
        timestamp: As exposed; 0.0 when there is none. Only ever compared with its siblings.
    """

    label_block: bytes
    value: float
    timestamp: float


class PageSamples(NamedTuple):
    """What a scan found.

    Attributes:
        by_name: Samples of each needed name that has any, in page order.
        malformed: Lines that begin with a needed name and cannot be read.
    """

    by_name: dict[str, list[Sample]]
    malformed: int


class PageScanner:
    """Scans pages for a fixed set of sample names.

    Args:
        names: Sample names (``x_total`` for a counter ``x`` of a Python server).
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._names = {name.encode(): name for name in names}
        longest_first = sorted(self._names, key=len, reverse=True)
        alternatives = b"|".join(re.escape(name) for name in longest_first)
        self._find = re.compile(rb"\n[ \t]*+(" + alternatives + rb")([ \t{][^\n]*+)").findall
        self._parse_sample = remembered(parse_sample)
        self._parse_labels = remembered(parse_labels)

    def scan(self, page: bytes) -> PageSamples:
        """Collect the samples of the needed names."""
        by_name: dict[str, list[Sample]] = {}
        malformed = 0
        if not self._names:
            return PageSamples(by_name, malformed)
        for name, rest in self._find(b"\n" + page):
            sample = self._parse_sample(rest)
            if sample is None:
                malformed += 1
                continue
            found = by_name.get(self._names[name])
            if found is None:
                by_name[self._names[name]] = [sample]
            else:
                found.append(sample)
        return PageSamples(by_name, malformed)

    def labels(self, sample: Sample) -> Labels:
        """The labels of a sample, decoded and unescaped."""
        return self._parse_labels(sample.label_block)


def parse_sample(rest: bytes) -> Sample | None:
    """Read what follows the name on a sample line; None when it cannot be read."""
    match = _SAMPLE.match(rest)
    if match is None:
        return None
    block, value, timestamp = match.groups()
    try:
        return Sample(block or b"", float(value), float(timestamp) if timestamp else 0.0)
    except ValueError:
        return None


def parse_labels(block: bytes) -> Labels:
    """Decode a label block that a scan accepted; invalid UTF-8 becomes replacement characters."""
    return {
        name.decode(errors="replace"): _unescape(value.decode(errors="replace"))
        for name, value in _LABELS.findall(block)
    }


def _unescape(value: str) -> str:
    if "\\" not in value:
        return value
    return _ESCAPE.sub(lambda match: _UNESCAPED[match[1]], value)
