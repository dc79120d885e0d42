"""Targeted scan of a Prometheus text page: decode the samples of a few names, ignore the rest.

One compiled expression finds the lines that begin with a needed sample name; only those are read.
``# TYPE`` lines are not needed: a number is a number. Lines that cannot be read are counted and
skipped. Text format 0.0.4 and 1.0.0 and OpenMetrics (``# EOF``, exemplars, seconds as timestamps)
look alike to the scan. Pure; time is linear in the page, whatever is on it.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import NamedTuple

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
MEMO_ENTRIES = 512
"""Label blocks, and long lines, that a scanner remembers: info series repeat on every page."""
MEMO_LONGER_THAN_BYTES = 256
"""Shorter lines are read faster than they are looked up."""
MEMO_UP_TO_BYTES = 4096
"""Longer texts are read each time, so that the memory of a memo is bounded."""


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
        self._labels_memo: Callable[[bytes], Labels] = lru_cache(MEMO_ENTRIES)(parse_labels)
        self._long_memo: Callable[[bytes], Sample | None] = lru_cache(MEMO_ENTRIES)(parse_sample)

    def scan(self, page: bytes) -> PageSamples:
        """Collect the samples of the needed names."""
        by_name: dict[str, list[Sample]] = {}
        malformed = 0
        if not self._names:
            return PageSamples(by_name, malformed)
        for name, rest in self._find(b"\n" + page):
            is_info = MEMO_LONGER_THAN_BYTES < len(rest) <= MEMO_UP_TO_BYTES
            sample = self._long_memo(rest) if is_info else parse_sample(rest)
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
        block = sample.label_block
        return self._labels_memo(block) if len(block) <= MEMO_UP_TO_BYTES else parse_labels(block)


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
