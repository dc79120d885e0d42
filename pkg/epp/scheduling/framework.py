"""The contract of scheduling plugins, on one page.

A plugin gets a ``Cycle`` (the request, the random source, the place to leave its trace), the
immutable ``EndpointTable`` and the mask of candidates; its arrays are read-only.

* A **filter** returns the mask of candidates it keeps: a subset of what it was given. All false
  means that nobody qualifies.
* A **scorer** returns an array with a float per row of the table, higher is better, 0 to 1;
  values outside are clamped, NaN counts as 0. Rows that are no candidates are ignored.
* A **picker** returns rows, best first, all of them candidates; at least one.
* A **profile handler** says which profile runs next, and which one's picks are the answer.

Plugins are synchronous and pure: no clock, no I/O, no await. State that learns from requests is
the plugin's own and is written from request-control hooks, never from here. A plugin that raises
does not fail the request: a filter keeps everything, a scorer scores 0, and both are counted.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from epp.backend.endpoint_table import EndpointTable, Floats, Mask
from epp.scheduling.types import FilterStep, InferenceRequest, PluginFailure, ProfileRunResult


class RandomSource(Protocol):
    """What scheduling needs of ``random.Random``."""

    def random(self) -> float:
        """Uniform in [0, 1)."""
        ...

    def randrange(self, stop: int, /) -> int:
        """Uniform integer in [0, stop)."""
        ...


class TypedName(NamedTuple):
    """Type and instance name of a plugin: the labels of its metrics."""

    type: str
    name: str


@dataclass(slots=True)
class Cycle:
    """One scheduling run: what plugins share and where they leave their trace."""

    request: InferenceRequest
    random: RandomSource
    steps: list[FilterStep] = field(default_factory=list)
    failures: list[PluginFailure] = field(default_factory=list)


class Plugin(Protocol):
    """What every plugin has."""

    @property
    def typed_name(self) -> TypedName:
        """Type and instance name."""
        ...


class Filter(Plugin, Protocol):
    """Keeps some candidates."""

    def filter(self, cycle: Cycle, table: EndpointTable, candidates: Mask) -> Mask:
        """Return the candidates that stay."""
        ...


class Scorer(Plugin, Protocol):
    """Rates candidates."""

    def score(self, cycle: Cycle, table: EndpointTable, candidates: Mask) -> Floats:
        """Return a score per row of the table, 0 to 1, higher is better."""
        ...


class Picker(Plugin, Protocol):
    """Chooses among what is left."""

    def pick(
        self, cycle: Cycle, table: EndpointTable, candidates: Mask, totals: Floats
    ) -> Sequence[int]:
        """Return rows, best first. ``totals`` is all zeros without scorers."""
        ...


class ProfileHandler(Plugin, Protocol):
    """Decides which profiles run."""

    def next_profile(
        self, cycle: Cycle, profiles: Sequence[str], results: Mapping[str, ProfileRunResult]
    ) -> str | None:
        """Return the profile to run next, None when done."""
        ...

    def primary(self, results: Mapping[str, ProfileRunResult]) -> str:
        """Return the profile whose picks are the answer."""
        ...


class PluginTimer(Protocol):
    """Context manager around one plugin call; counts the exception it sees, does not swallow it."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: object, trace: object, /) -> None: ...


PluginObserver = Callable[[str, TypedName], PluginTimer]
"""Called as ``observer("Filter", plugin.typed_name)`` around each plugin call; owns the clock."""
