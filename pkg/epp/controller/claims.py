"""Which InferenceModels claim a model name in a pool."""

from collections.abc import Sequence

from epp.kube.cache import ObjectCache
from epp_api.meta import NamespacedName
from epp_api.v1alpha2.inferencemodel_types import MODEL_NAME_INDEX, InferenceModel, TargetModel


def refers_to(model: InferenceModel, pool: NamespacedName) -> bool:
    """Tell whether a model names this pool as its own.

    Group and kind of the reference do not count: both pool groups are accepted.
    """
    return model.metadata.namespace == pool.namespace and model.spec.pool_ref.name == pool.name


def claims_name(model: InferenceModel, pool: NamespacedName) -> bool:
    """Tell whether a model counts for a pool: refers to it, usable, not being deleted."""
    return (
        refers_to(model, pool)
        and model.metadata.deletion_timestamp is None
        and split_problem(model.spec.target_models) is None
    )


def claims_of(
    models: ObjectCache[InferenceModel], model_name: str, pool: NamespacedName
) -> Sequence[InferenceModel]:
    """All objects that claim a name in a pool."""
    named = models.by_index(MODEL_NAME_INDEX, model_name)
    return [model for model in named if claims_name(model, pool)]


def split_problem(targets: Sequence[TargetModel]) -> str | None:
    """Why a traffic split cannot be drawn from; None when it can.

    Admission refuses such objects; this is for sources that have no admission.
    """
    weights = [target.weight for target in targets]
    if None in weights and any(weight is not None for weight in weights):
        return "spec.targetModels: either every target has a weight, or none has"
    if any(weight is not None and weight < 0 for weight in weights):
        return "spec.targetModels: a weight is negative"
    return None
