"""InferenceModelRewrite rules: which one applies to a model name.

A rule that matches the name exactly comes before one for every request; among equals that of the
oldest object wins, then namespace/name, then the position in the object. The order is a property
of the rules, never of events: any sequence of ``set`` and ``delete`` that leaves the same objects
leaves the same answers.
Reference: llm-d-router ebab687 pkg/epp/datastore/modelrewritestore.go, whose sort by creation time
alone leaves ties to the order of events.
"""

from bisect import insort
from collections.abc import Sequence
from dataclasses import dataclass

from epp.datastore.age import Age, age_key
from epp_api.meta import NamespacedName
from epp_api.v1alpha2.inferencemodelrewrite_types import (
    EXACT,
    InferenceModelRewrite,
    InferenceModelRewriteRule,
    TargetModel,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RankedRule:
    """A rule with its place among all of them.

    Attributes:
        age: Of the object that holds it.
        position: In that object's list, from 0.
        targets: What the name becomes, those without a name left out; none: the name stays.
    """

    age: Age
    position: int
    targets: tuple[TargetModel, ...]

    @property
    def rewrite(self) -> NamespacedName:
        """The object that holds the rule."""
        return self.age[1]

    @property
    def rank(self) -> tuple[Age, int]:
        """Sorts by precedence, the first wins; no two rules share one."""
        return self.age, self.position


class RewriteStore:
    """Rules by exact model name, and rules for every request, each list by precedence."""

    def __init__(self) -> None:
        self._objects: dict[NamespacedName, InferenceModelRewrite] = {}
        self._exact: dict[str, list[RankedRule]] = {}
        self._generic: list[RankedRule] = []

    def __len__(self) -> int:
        return len(self._objects)

    def get(self, model_name: str) -> RankedRule | None:
        """The rule that applies to a model name; exact, case-sensitive."""
        exact = self._exact.get(model_name)
        if exact:
            return exact[0]
        return self._generic[0] if self._generic else None

    def list(self) -> Sequence[InferenceModelRewrite]:
        """Every object, by key."""
        return [self._objects[key] for key in sorted(self._objects)]

    def model_names(self) -> frozenset[str]:
        """Names that rules match, and names that they give."""
        given = (
            target.model_rewrite
            for rewrite in self._objects.values()
            for rule in rewrite.spec.rules
            for target in rule.targets
        )
        return frozenset(self._exact) | frozenset(given)

    def set(self, rewrite: InferenceModelRewrite) -> bool:
        """Store an object in place of the one of its key; True when that changed something."""
        key = rewrite.metadata.key
        if self._objects.get(key) == rewrite:
            return False
        self.delete(key)
        self._objects[key] = rewrite
        age = age_key(rewrite.metadata)
        for position, rule in enumerate(rewrite.spec.rules):
            ranked = RankedRule(age=age, position=position, targets=named_targets(rule))
            if not rule.matches:
                insort(self._generic, ranked, key=_rank)
            for name in sorted(matched_names(rule)):
                insort(self._exact.setdefault(name, []), ranked, key=_rank)
        return True

    def delete(self, key: NamespacedName) -> bool:
        """Forget an object; False when there was none of this key."""
        rewrite = self._objects.pop(key, None)
        if rewrite is None:
            return False
        self._generic = _without(self._generic, key)
        for name in {name for rule in rewrite.spec.rules for name in matched_names(rule)}:
            left = _without(self._exact[name], key)
            if left:
                self._exact[name] = left
            else:
                del self._exact[name]
        return True

    def clear(self) -> None:
        """Forget everything."""
        self._objects.clear()
        self._exact.clear()
        self._generic.clear()


def matched_names(rule: InferenceModelRewriteRule) -> frozenset[str]:
    """Model names that a rule matches; a match of a kind we do not know matches nothing."""
    models = (match.model for match in rule.matches)
    return frozenset(m.value for m in models if m is not None and m.type == EXACT)


def named_targets(rule: InferenceModelRewriteRule) -> tuple[TargetModel, ...]:
    """Targets that have a name: a request cannot be sent to a model without one."""
    return tuple(target for target in rule.targets if target.model_rewrite)


def _rank(rule: RankedRule) -> tuple[Age, int]:
    return rule.rank


def _without(rules: Sequence[RankedRule], key: NamespacedName) -> list[RankedRule]:
    return [rule for rule in rules if rule.rewrite != key]
