"""Cells and their stores: the numbers behind a family, written from the event loop only.

A cell is one child of a family. It takes no lock and allocates nothing when written: the event
loop is its only writer, so a reader sees each number whole. Callers keep cells and write to them
directly; a ``CellStore`` finds or creates them by label values and bounds how many there are.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from epp.metrics.families import Family

OTHER = "other"
"""Label value of everything beyond a limit. Reference: llm-d-router ebab687 pkg/epp/metrics."""

MAX_CELLS = 20_000
"""Children of one family; a bound on memory (a histogram of 36 buckets: 20 MB), not a target."""


class NumberCell:
    """A counter or a gauge."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    def inc(self, amount: float = 1.0) -> None:
        """Add; a counter's caller never passes a negative amount."""
        self.value += amount

    def set(self, value: float) -> None:
        """Replace the value of a gauge."""
        self.value = value


class HistogramCell:
    """Counts per bucket (not cumulative, ``+Inf`` last) and the sum of what was observed."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count one value; a value equal to a bound belongs to that bound's bucket."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


CellT = TypeVar("CellT", NumberCell, HistogramCell)


class CellStore(Generic[CellT]):
    """The children of one family by their canonical label values.

    Args:
        family: What the children measure.
        create: Makes a fresh cell.
        max_cells: Beyond this many, new label values share one child named ``other``.
        kept_labels: Canonical labels that keep their value in the shared child, because their
            values are few (a status, an error code).
    """

    def __init__(
        self,
        family: Family,
        create: Callable[[], CellT],
        *,
        max_cells: int = MAX_CELLS,
        kept_labels: Iterable[str] = (),
    ) -> None:
        self.family = family
        self._create: Callable[[], CellT] = create
        self._max_cells = max_cells
        kept = frozenset(kept_labels)
        self._kept = tuple(label in kept for label in family.labels)
        self._cells: dict[tuple[str, ...], CellT] = {}

    def __len__(self) -> int:
        return len(self._cells)

    def cell(self, *values: str) -> CellT:
        """The child with these label values; created at zero when new."""
        return self.at(values)

    def at(self, values: tuple[str, ...]) -> CellT:
        """The same for values that the caller keeps in a tuple."""
        cell = self._cells.get(values)
        if cell is None:
            cell = self._add(values)
        return cell

    def items(self) -> list[tuple[tuple[str, ...], CellT]]:
        """Every child with its label values, in the order of their creation."""
        return list(self._cells.items())

    def discard(self, is_gone: Callable[[tuple[str, ...]], bool]) -> None:
        """Forget children whose label values name something that no longer exists."""
        for values in [values for values in self._cells if is_gone(values)]:
            del self._cells[values]

    def _add(self, values: tuple[str, ...]) -> CellT:
        if len(self._cells) >= self._max_cells:
            values = self._overflow_values(values)
        return self._cells.setdefault(values, self._create())

    def _overflow_values(self, values: tuple[str, ...]) -> tuple[str, ...]:
        pairs = zip(values, self._kept, strict=True)
        return tuple(value if kept or not value else OTHER for value, kept in pairs)


def number_store(
    family: Family, *, kept_labels: Iterable[str] = (), max_cells: int = MAX_CELLS
) -> CellStore[NumberCell]:
    """Children of a counter or gauge family."""
    return CellStore(family, NumberCell, kept_labels=kept_labels, max_cells=max_cells)


def histogram_store(
    family: Family, *, kept_labels: Iterable[str] = (), max_cells: int = MAX_CELLS
) -> CellStore[HistogramCell]:
    """Children of a histogram family."""
    bounds = family.buckets

    def create() -> HistogramCell:
        return HistogramCell(bounds)

    return CellStore(family, create, kept_labels=kept_labels, max_cells=max_cells)
