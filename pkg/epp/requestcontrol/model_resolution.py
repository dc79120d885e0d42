"""From the model that a client names to the model that a server sees, and how much it matters.

One weighted draw per request; no stickiness. Reference: GAIE v0.5.1
pkg/epp/requestcontrol/director.go; departs from it where a list of targets would crash: without
weights it is a uniform choice, with nothing above zero the model has no valid target.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import accumulate
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
        ModelNotFoundError: No weight is above 0 (the name is reserved), or the target drawn has
            no name.
    """
    if not targets:
        return name
    if all(target.weight is None for target in targets):
        drawn = targets[random.randrange(len(targets))].name
    else:
        weights = [max(0, target.weight or 0) for target in targets]
        edges = list(accumulate(weights))
        point = random.randrange(edges[-1]) if edges[-1] else 0
        drawn = targets[bisect_right(edges, point)].name if edges[-1] else ""
    if not drawn:
        raise ModelNotFoundError(f"The model `{_shown(name)}` has no valid target.", param="model")
    return drawn


def _shown(name: str, limit: int = 200) -> str:
    return name if len(name) <= limit else f"{name[:limit]}…"
