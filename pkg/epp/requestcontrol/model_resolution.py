"""From the model that a client names to the model that a server sees, and how much it matters.

One weighted draw per request; no stickiness. Reference: GAIE v0.5.1
pkg/epp/requestcontrol/director.go; a list of targets without weights, or with zeros only, is a
uniform choice or no valid target, never a crash.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from epp.errors import BadRequestError, ModelNotFoundError
from epp.scheduling.framework import RandomSource
from epp_api.v1alpha2.inferencemodel_types import Criticality, InferenceModel, TargetModel


class UnknownModelPolicy(StrEnum):
    """What becomes of a model that no InferenceModel of the pool declares."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedModel:
    """What a model name means.

    Attributes:
        target_model: Name for the model server.
        priority: Higher is more important, negative may be shed.
        critical: An InferenceModel says Critical.
    """

    target_model: str
    priority: int = 0
    critical: bool = False


def resolve_model(
    name: str, models: ModelView, policy: UnknownModelPolicy, random: RandomSource
) -> ResolvedModel:
    """Look the name up and draw a target.

    Raises:
        BadRequestError: No name.
        ModelNotFoundError: Nobody declared it, or its targets are all switched off.
    """
    if not name:
        raise BadRequestError("the request names no model", param="model")
    model = models.model_get(name)
    if model is None:
        if policy is UnknownModelPolicy.SERVE or (
            policy is UnknownModelPolicy.AUTO and not models.models_in_use
        ):
            return ResolvedModel(target_model=name)
        raise ModelNotFoundError(f"The model `{_shown(name)}` does not exist.", param="model")
    criticality = model.spec.criticality or Criticality.STANDARD
    return ResolvedModel(
        target_model=draw_target(name, model.spec.target_models, random),
        priority=criticality.priority,
        critical=criticality is Criticality.CRITICAL,
    )


def draw_target(name: str, targets: Sequence[TargetModel], random: RandomSource) -> str:
    """Draw a target by weight; the name itself without targets.

    Targets that all lack a weight are equally likely; among weighted ones a missing weight is 0.

    Raises:
        ModelNotFoundError: Every weight is 0: the name is reserved.
    """
    if not targets:
        return name
    if all(target.weight is None for target in targets):
        return targets[random.randrange(len(targets))].name
    weights = [target.weight or 0 for target in targets]
    total = sum(weights)
    if total <= 0:
        raise ModelNotFoundError(f"The model `{_shown(name)}` has no valid target.", param="model")
    point = random.randrange(total)
    for target, weight in zip(targets, weights, strict=True):
        if point < weight:
            return target.name
        point -= weight
    raise AssertionError("a point below the total lies in one of the weights")


def _shown(name: str, limit: int = 200) -> str:
    return name if len(name) <= limit else f"{name[:limit]}…"
