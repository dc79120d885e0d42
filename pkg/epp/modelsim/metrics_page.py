"""The metrics page: families built from their specs, rendered whole or restricted by name.

Owner of the families of one simulated server. What the numbers mean is ``VllmMetrics``' business.
"""

from collections.abc import Callable

from epp.modelsim.exposition import Family, Histogram, Labels, Value
from epp.modelsim.vllm_families import FamilySpec

CONTENT_TYPE = "text/plain; version=1.0.0; charset=utf-8"
"""As recorded from vLLM 0.32, although the page is in format 0.0.4."""


class MetricsPage:
    """Families in page order."""

    def __init__(self, *, engine: Labels, wall_clock: Callable[[], float]) -> None:
        self._engine = engine
        self._wall_clock = wall_clock
        self._families: list[Family] = []
        self._created: dict[str, Family] = {}
        self._filler = ""

    def add(self, spec: FamilySpec, bounds: tuple[float, ...] = ()) -> "Instruments":
        """Add a family at the end of the page, together with the one of its creation times."""
        family = Family(spec.name, spec.kind, spec.text)
        self._families.append(family)
        created = None
        if spec.created_name:
            created = Family(spec.created_name, "gauge", spec.text)
            self._families.append(created)
        instruments = Instruments(spec, family, created, bounds or spec.buckets, self._wall_clock)
        if not spec.lazy:
            base = {name: self._engine[name] for name in spec.labels}
            label, values = spec.split or ("", ("",))
            for value in values:
                instruments.child({**base, label: value} if label else base)
        return instruments

    def add_plain(self, name: str, kind: str, text: str) -> Family:
        """Add a family without instruments; the caller fills in its samples."""
        family = Family(name, kind, text)
        self._families.append(family)
        return family

    def pad_to(self, size_bytes: int) -> None:
        """Append histograms that nobody observes until the page is at least this long."""
        missing = size_bytes - len(self.render())
        blocks: list[str] = []
        while missing > 0:
            block = _filler_family(len(blocks), self._engine)
            blocks.append(block)
            missing -= len(block)
        self._filler = "".join(blocks)

    def render(self, names: frozenset[str] | None = None) -> bytes:
        """Return the page, or only the samples of these names."""
        if names is not None:
            return "".join([family.render_only(names) for family in self._families]).encode()
        return ("".join([family.render() for family in self._families]) + self._filler).encode()


class Instruments:
    """The samples of one family by their labels."""

    __slots__ = ("_bounds", "_children", "_created", "_family", "_spec", "_wall_clock")

    def __init__(
        self,
        spec: FamilySpec,
        family: Family,
        created: Family | None,
        bounds: tuple[float, ...],
        wall_clock: Callable[[], float],
    ) -> None:
        self._spec = spec
        self._family = family
        self._created = created
        self._bounds = bounds
        self._wall_clock = wall_clock
        self._children: dict[tuple[str, ...], Value | Histogram] = {}

    def value(self, labels: Labels) -> Value:
        """Return the counter or gauge of these labels, made when it is new."""
        child = self.child(labels)
        if not isinstance(child, Value):
            raise TypeError(f"{self._spec.name} is a {self._spec.kind}")
        return child

    def histogram(self, labels: Labels) -> Histogram:
        """Return the histogram or summary of these labels, made when it is new."""
        child = self.child(labels)
        if not isinstance(child, Histogram):
            raise TypeError(f"{self._spec.name} is a {self._spec.kind}")
        return child

    def child(self, labels: Labels) -> Value | Histogram:
        """Return the sample of these labels, made when it is new."""
        key = tuple(labels.values())
        found = self._children.get(key)
        if found is None:
            found = self._children[key] = self._make(labels)
        return found

    def forget_oldest(self, keep: int) -> None:
        """Drop the oldest samples beyond a number."""
        while len(self._children) > keep:
            oldest = next(iter(self._children))
            self._family.samples.remove(self._children.pop(oldest))

    def _make(self, labels: Labels) -> Value | Histogram:
        spec = self._spec
        child: Value | Histogram
        if spec.kind in {"histogram", "summary"}:
            child = Histogram(spec.name, labels, self._bounds)
        else:
            child = Value(spec.name, labels)
        self._family.samples.append(child)
        if self._created is not None and spec.created_name:
            self._created.samples.append(Value(spec.created_name, labels, self._wall_clock()))
        return child


def _filler_family(index: int, labels: Labels) -> str:
    name = f"vllm:sim_filler_{index:03d}_seconds"
    family = Family(name, "histogram", "Filler: makes the page as long as a busy server's.")
    bounds = tuple(0.001 * 2**power for power in range(20))
    family.samples.append(Histogram(name, labels, bounds))
    return family.render()
