"""What a metric family is: one canonical meaning, exposed under several names.

The field has renamed its metrics twice; dashboards of every generation exist. A family is recorded
once under canonical labels and exposed under a name per enabled ``NameSet``. An exposed name
may rename labels, drop them (values are then summed) or add a label of fixed value.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum


class NameSet(StrEnum):
    """Generations of names; the values are what ``--metric-names`` takes."""

    LLM_D = "llm-d-epp"
    """``llm_d_epp_*``: the newest names."""

    INFERENCE = "inference-extension"
    """``inference_objective_*``, ``inference_pool_*``, ``inference_extension_*``: v1.x names."""

    INFERENCE_MODEL = "inference-model"
    """``inference_model_*`` with the pool and extension names of v0."""

    OWN = "epp"
    """``epp_*``: what only this EPP says. Always exposed, in no generation of the field."""


SELECTABLE_NAME_SETS = (NameSet.LLM_D, NameSet.INFERENCE, NameSet.INFERENCE_MODEL)


class Kind(Enum):
    """Prometheus types that we use; the values are the words of the exposition format."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Exposed:
    """One name of a family.

    Attributes:
        name: Full name as scraped; counters end in ``_total``.
        labels: Exposed label names in order.
        renamed: Exposed label name to canonical label, where they differ.
        fixed: Exposed label name to a value that never changes.
    """

    name: str
    labels: tuple[str, ...] = ()
    renamed: Mapping[str, str] = field(default_factory=dict)
    fixed: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One instrument.

    Attributes:
        key: Canonical name, for code and documentation.
        kind: Counter, gauge or histogram.
        unit: ``seconds``, ``bytes``, ``tokens``, ``requests`` …: for documentation.
        help: One sentence, shown in the exposition after ``[ALPHA] ``.
        labels: Canonical labels; the order of values in every record call.
        buckets: Upper bounds of a histogram.
        names: Exposed name by name set. Equal names in two sets are exposed once.
    """

    key: str
    kind: Kind
    unit: str
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    names: Mapping[NameSet, Exposed]

    def exposed(self, name_sets: frozenset[NameSet]) -> tuple[Exposed, ...]:
        """Names under these sets, in the order of ``NameSet``, without repetition."""
        found: dict[str, Exposed] = {}
        for name_set in NameSet:
            name = self.names.get(name_set)
            if name is not None and (name_set in name_sets or name_set is NameSet.OWN):
                found.setdefault(name.name, name)
        return tuple(found.values())


def newest_only(
    rest: str, labels: tuple[str, ...] = (), *, fixed: Mapping[str, str] | None = None
) -> Mapping[NameSet, Exposed]:
    """Names of a family that only the newest generation has; ``rest`` follows ``llm_d_epp_``."""
    return {NameSet.LLM_D: Exposed(f"llm_d_epp_{rest}", labels, fixed=fixed or {})}


def own_name(rest: str, labels: tuple[str, ...] = ()) -> Mapping[NameSet, Exposed]:
    """Names of a family of ours; ``rest`` follows ``epp_``."""
    return {NameSet.OWN: Exposed(f"epp_{rest}", labels)}
