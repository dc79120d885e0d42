"""From the model that a client names to the model that a server sees, and how much it matters.

The target, the first that applies:

1. the InferenceModelRewrite rule that wins for the client's name, if it has targets
2. the request's rewrite header
3. the targets of the InferenceModel that owns the name
4. the name itself

The priority, the first that applies:

1. that of the InferenceObjective that the request's objective header names, if there is one
2. the criticality of the InferenceModel that owns the name
3. 0

A name is *known* when an object speaks of it: an InferenceModel owns it, or a rewrite rule with
targets wins for it, for then an operator has said what becomes of it. Headers make no name known.
They come with the request, and the policy for unknown models is there to tell a client that its
name means nothing here; an objective says how much requests matter, not which models exist.

One weighted draw per request; no stickiness. Reference: llm-d-router ebab687
pkg/epp/requestcontrol/director.go, GAIE v0.5.1 of the same path for InferenceModels; departs from
them where a list of targets would crash or empty the name: without weights it is a uniform choice,
an InferenceModel with nothing above zero has no valid target, a rule without targets is no rule.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from enum import StrEnum
from itertools import accumulate
from types import MappingProxyType
from typing import Protocol

from msgspec import Struct

from epp.datastore.rewrite_store import RankedRule
from epp.errors import BadRequestError, ModelNotFoundError
from epp.scheduling.framework import RandomSource
from epp_api.v1alpha2.inferencemodel_types import Criticality, InferenceModel, TargetModel
from epp_api.v1alpha2.inferenceobjective_types import InferenceObjective

OBJECTIVE_HEADERS = ("x-llm-d-inference-objective", "x-gateway-inference-objective")
"""Name the request's InferenceObjective. The first one present counts, an empty one included."""

REWRITE_HEADERS = ("x-llm-d-model-name-rewrite", "x-gateway-model-name-rewrite")
"""Name the request's target model. The first one present counts, an empty one included."""

_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class UnknownModelPolicy(StrEnum):
    """What becomes of a model that no object of the pool speaks of."""

    AUTO = "auto"  # reject as soon as InferenceModels are in use, else serve
    REJECT = "reject"
    SERVE = "serve"


class ModelView(Protocol):
    """What resolution needs of the datastore."""

    @property
    def models_in_use(self) -> bool:
        """At least one InferenceModel of the pool is active."""
        ...

    def model_get(self, model_name: str) -> InferenceModel | None:
        """The active InferenceModel of a name."""
        ...

    def objective_get(self, name: str) -> InferenceObjective | None:
        """The pool's InferenceObjective of a name."""
        ...

    def rewrite_get(self, model_name: str) -> RankedRule | None:
        """The rewrite rule that applies to a model name."""
        ...


class ResolvedModel(Struct, frozen=True, kw_only=True):
    """What a model name means.

    Attributes:
        target_model: Name for the model server.
        priority: Higher is more important, negative may be shed.
        critical: An InferenceModel says Critical.
        objective: The InferenceObjective that gave the priority; empty when none did.
        rewrite: The rule or header that gave the target; empty when neither did.
    """

    target_model: str
    priority: int = 0
    critical: bool = False
    objective: str = ""
    rewrite: str = ""


def resolve_model(
    name: str,
    store: ModelView,
    policy: UnknownModelPolicy,
    random: RandomSource,
    *,
    headers: Mapping[str, str] = _NO_HEADERS,
    strict_v03: bool = False,
) -> ResolvedModel:
    """Look the name up and draw a target.

    Args:
        name: As the client wrote it.
        store: What is declared.
        policy: For names that nobody declared.
        random: Draws.
        headers: Of the request, lower-case names.
        strict_v03: InferenceModels alone count, as in v0.3, which knew nothing else.

    Raises:
        BadRequestError: No name.
        ModelNotFoundError: Nobody declared it, or its targets are all switched off.
    """
    if not name:
        raise BadRequestError("the request names no model", param="model")
    model = store.model_get(name)
    if strict_v03:
        rule, asked, objective = None, None, None
    else:
        rule = _with_targets(store.rewrite_get(name))
        asked = _header(headers, REWRITE_HEADERS)
        objective = _objective(headers, store)
    if model is None and rule is None:
        _check_unknown(name, store, policy)
    target, rewrite = _target(name, model, rule, asked, random)
    criticality = None if model is None else model.spec.criticality or Criticality.STANDARD
    if objective is not None:
        priority = objective.priority
    else:
        priority = 0 if criticality is None else criticality.priority
    return ResolvedModel(
        target_model=target,
        priority=priority,
        critical=criticality is Criticality.CRITICAL,
        objective="" if objective is None else objective.metadata.name,
        rewrite=rewrite,
    )


def draw_target(name: str, targets: Sequence[TargetModel], random: RandomSource) -> str:
    """Draw a target of an InferenceModel by weight; the name itself without targets.

    Targets that all lack a weight are equally likely; among weighted ones a missing weight is 0.

    Raises:
        ModelNotFoundError: No weight is above 0 (the name is reserved), or the target drawn has
            no name.
    """
    if not targets:
        return name
    drawn = _draw([target.weight for target in targets], random)
    if drawn is None or not targets[drawn].name:
        raise ModelNotFoundError(f"The model `{_shown(name)}` has no valid target.", param="model")
    return targets[drawn].name


def _target(
    name: str,
    model: InferenceModel | None,
    rule: RankedRule | None,
    asked: tuple[str, str] | None,
    random: RandomSource,
) -> tuple[str, str]:
    """The target, and which rule or header gave it."""
    if rule is not None:
        drawn = _draw([target.weight for target in rule.targets], random)
        if drawn is None:  # no weight above 0: which no admission lets pass
            drawn = random.randrange(len(rule.targets))
        return rule.targets[drawn].model_rewrite, f"{rule.rewrite} rule {rule.position}"
    if asked is not None:
        header, target = asked
        return target, f"header {header}"
    return (name if model is None else draw_target(name, model.spec.target_models, random)), ""


def _draw(weights: Sequence[int | None], random: RandomSource) -> int | None:
    """A position by weight, uniform without any weight; None when no weight is above 0."""
    if all(weight is None for weight in weights):
        return random.randrange(len(weights))
    edges = list(accumulate(max(0, weight or 0) for weight in weights))
    return bisect_right(edges, random.randrange(edges[-1])) if edges[-1] else None


def _check_unknown(name: str, store: ModelView, policy: UnknownModelPolicy) -> None:
    rejects = policy is UnknownModelPolicy.REJECT or (
        policy is UnknownModelPolicy.AUTO and store.models_in_use
    )
    if rejects:
        raise ModelNotFoundError(f"The model `{_shown(name)}` does not exist.", param="model")


def _with_targets(rule: RankedRule | None) -> RankedRule | None:
    return rule if rule is not None and rule.targets else None


def _objective(headers: Mapping[str, str], store: ModelView) -> InferenceObjective | None:
    asked = _header(headers, OBJECTIVE_HEADERS)
    return None if asked is None else store.objective_get(asked[1])


def _header(headers: Mapping[str, str], names: Sequence[str]) -> tuple[str, str] | None:
    """Name and value of the first header that is present; None when that one is empty."""
    for name in names:
        value = headers.get(name)
        if value is not None:
            return (name, value) if value else None
    return None


def _shown(name: str, limit: int = 200) -> str:
    return name if len(name) <= limit else f"{name[:limit]}…"
