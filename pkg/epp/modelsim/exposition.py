"""Prometheus text of one simulated server: instruments that remember their own text.

A model server is scraped up to twenty times a second, and a process may simulate a hundred of them:
an instrument renders only what changed since the last page. Owner of the values; no clock.
Not a general library: labels are fixed when an instrument is made.
"""

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Protocol

Labels = Mapping[str, str]


def format_float(value: float) -> str:
    """Write a number as Python model servers do: ``1.0``, ``1.7e+09``, ``+Inf``."""
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    text = repr(float(value))
    whole, _, fraction = text.partition(".")
    if "e" in text or "n" in text or len(whole) <= 6 or value < 0:
        return text
    digits = (whole + fraction).rstrip("0")
    mantissa = digits[0] + (f".{digits[1:]}" if len(digits) > 1 else "")
    return f"{mantissa}e+{len(whole) - 1:02d}"


def series(name: str, labels: Labels) -> str:
    """Write name and labels of a sample, labels in alphabetical order."""
    if not labels:
        return name
    inside = ",".join(f'{key}="{_escape(labels[key])}"' for key in sorted(labels))
    return f"{name}{{{inside}}}"


class Sample(Protocol):
    """Something with a current text: a line, or the lines of a histogram."""

    def lines(self) -> str:
        """Return the sample lines, each ended by a newline."""
        ...


class Value:
    """A counter or a gauge: one line."""

    __slots__ = ("_prefix", "_text", "_value")

    def __init__(self, name: str, labels: Labels, value: float = 0.0) -> None:
        self._prefix = series(name, labels)
        self._value = value
        self._text: str | None = None

    @property
    def value(self) -> float:
        """The current value."""
        return self._value

    def set(self, value: float) -> None:
        """Replace the value."""
        if value != self._value:
            self._value = value
            self._text = None

    def inc(self, amount: float = 1.0) -> None:
        """Add to the value."""
        if amount:
            self._value += amount
            self._text = None

    def lines(self) -> str:
        """Return the line."""
        if self._text is None:
            self._text = f"{self._prefix} {format_float(self._value)}\n"
        return self._text


class Histogram:
    """Buckets, count and sum; a summary when there are no buckets at all."""

    __slots__ = ("_bounds", "_counts", "_prefixes", "_sum", "_tail", "_text")

    def __init__(self, name: str, labels: Labels, bounds: Sequence[float]) -> None:
        self._bounds = (*bounds, math.inf) if bounds else ()
        self._counts = [0] * max(len(self._bounds), 1)
        self._sum = 0.0
        self._prefixes = [
            series(f"{name}_bucket", {**labels, "le": format_float(bound)})
            for bound in self._bounds
        ]
        self._tail = (series(f"{name}_count", labels), series(f"{name}_sum", labels))
        self._text: str | None = None

    def observe(self, value: float, times: int = 1) -> None:
        """Count a value, possibly several times."""
        self._counts[bisect_left(self._bounds, value) if self._bounds else 0] += times
        self._sum += value * times
        self._text = None

    def lines(self) -> str:
        """Return the bucket lines, then count and sum."""
        if self._text is None:
            total = 0
            lines = []
            for index, count in enumerate(self._counts):
                total += count
                if self._prefixes:
                    lines.append(f"{self._prefixes[index]} {format_float(total)}\n")
            lines.append(f"{self._tail[0]} {format_float(total)}\n")
            lines.append(f"{self._tail[1]} {format_float(self._sum)}\n")
            self._text = "".join(lines)
        return self._text


class Family:
    """Samples below one HELP and TYPE; samples may be added while the server runs."""

    __slots__ = ("header", "name", "samples")

    def __init__(self, name: str, kind: str, text: str) -> None:
        self.name = name
        self.header = f"# HELP {name} {text}\n# TYPE {name} {kind}\n"
        self.samples: list[Sample] = []

    def render(self) -> str:
        """Return the header and every sample line."""
        return self.header + "".join([sample.lines() for sample in self.samples])

    def render_only(self, names: frozenset[str]) -> str:
        """Return the header and the samples of these names; empty when there are none."""
        kept = [
            line
            for sample in self.samples
            for line in sample.lines().splitlines(keepends=True)
            if line.partition("{")[0].partition(" ")[0] in names
        ]
        return self.header + "".join(kept) if kept else ""


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
