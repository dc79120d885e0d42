"""From families to what prometheus_client's encoders print.

A ``FamilyCollector`` exposes one family under all its names; labels that a name does not have are
summed away. Samples are made while the encoder iterates, never all at once, so a server can write
a page of any size in short steps. No ``_created`` series: the field's dashboards do not know them.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import cast

from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample
from prometheus_client.utils import floatToGoString

from epp.metrics.cells import CellStore, HistogramCell, NumberCell
from epp.metrics.families import Exposed, Family, Kind, NameSet

HELP_PREFIX = "[ALPHA] "

Numbers = Iterable[tuple[tuple[str, ...], float]]
"""Canonical label values and value of each child of a counter or gauge family."""


class StreamedMetric(Metric):
    """A metric family whose samples are made anew at each iteration."""

    def __init__(
        self, exposed: Exposed, family: Family, samples: Callable[[], Iterator[Sample]]
    ) -> None:
        name = exposed.name
        if family.kind is Kind.COUNTER:
            name = name.removesuffix("_total")  # the encoders put it back
        super().__init__(name, HELP_PREFIX + family.help, family.kind.value)
        self.samples = cast("list[Sample]", _Samples(samples))


class _Samples:
    """Iterable as often as one likes; all that the encoders ask of a list of samples."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[[], Iterator[Sample]]) -> None:
        self._make = make

    def __iter__(self) -> Iterator[Sample]:
        return self._make()


class NumberCollector(Collector):
    """Exposes a counter or gauge family.

    Args:
        family: What is exposed.
        name_sets: Generations of names to use.
        read: Returns the children as they are now.
    """

    def __init__(
        self, family: Family, name_sets: frozenset[NameSet], read: Callable[[], Numbers]
    ) -> None:
        self._family = family
        self._exposed = family.exposed(name_sets)
        self._read = read

    def describe(self) -> Iterable[Metric]:
        """Names without samples, so that a registry can tell names that clash."""
        return [_bare_metric(self._family, exposed) for exposed in self._exposed]

    def collect(self) -> Iterator[Metric]:
        """One metric family per name."""
        for exposed in self._exposed:
            yield StreamedMetric(exposed, self._family, self._samples_of(exposed))

    def _samples_of(self, exposed: Exposed) -> Callable[[], Iterator[Sample]]:
        def samples() -> Iterator[Sample]:
            project = _projection(self._family, exposed)
            sums: dict[tuple[str, ...], float] = {}
            for values, number in self._read():
                shown = project(values)
                sums[shown] = sums.get(shown, 0.0) + number
            for shown, number in sums.items():
                yield Sample(exposed.name, dict(zip(exposed.labels, shown, strict=True)), number)

        return samples


class HistogramCollector(Collector):
    """Exposes a histogram family from its store."""

    def __init__(self, store: CellStore[HistogramCell], name_sets: frozenset[NameSet]) -> None:
        self._store = store
        self._family = store.family
        self._exposed = store.family.exposed(name_sets)
        self._bounds = (*map(floatToGoString, store.family.buckets), "+Inf")

    def describe(self) -> Iterable[Metric]:
        """Names without samples, so that a registry can tell names that clash."""
        return [_bare_metric(self._family, exposed) for exposed in self._exposed]

    def collect(self) -> Iterator[Metric]:
        """One metric family per name."""
        for exposed in self._exposed:
            yield StreamedMetric(exposed, self._family, self._samples_of(exposed))

    def _samples_of(self, exposed: Exposed) -> Callable[[], Iterator[Sample]]:
        def samples() -> Iterator[Sample]:
            project = _projection(self._family, exposed)
            groups: dict[tuple[str, ...], list[HistogramCell]] = {}
            for values, cell in self._store.items():
                groups.setdefault(project(values), []).append(cell)
            for shown, cells in groups.items():
                labels = dict(zip(exposed.labels, shown, strict=True))
                yield from self._histogram_samples(exposed.name, labels, cells)

        return samples

    def _histogram_samples(
        self, name: str, labels: dict[str, str], cells: list[HistogramCell]
    ) -> Iterator[Sample]:
        cumulative = 0
        counts = [sum(column) for column in zip(*(cell.counts for cell in cells), strict=True)]
        total = sum(cell.total for cell in cells)
        for bound, count in zip(self._bounds, counts, strict=True):
            cumulative += count
            yield Sample(f"{name}_bucket", {**labels, "le": bound}, float(cumulative))
        yield Sample(f"{name}_count", labels, float(cumulative))
        yield Sample(f"{name}_sum", labels, total)


def numbers_of(store: CellStore[NumberCell]) -> Callable[[], Numbers]:
    """Reader of a store for ``NumberCollector``."""

    def read() -> Numbers:
        return [(values, cell.value) for values, cell in store.items()]

    return read


def _bare_metric(family: Family, exposed: Exposed) -> Metric:
    return StreamedMetric(exposed, family, lambda: iter(()))


def _projection(family: Family, exposed: Exposed) -> Callable[[tuple[str, ...]], tuple[str, ...]]:
    """From canonical label values to the values of an exposed name, in its order."""
    if exposed.labels == family.labels and not exposed.renamed and not exposed.fixed:
        return lambda values: values
    steps: list[tuple[int, str]] = []
    for label in exposed.labels:
        fixed = exposed.fixed.get(label)
        if fixed is not None:
            steps.append((-1, fixed))
        else:
            steps.append((family.labels.index(exposed.renamed.get(label, label)), ""))
    return lambda values: tuple(values[i] if i >= 0 else fixed for i, fixed in steps)
