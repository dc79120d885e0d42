"""Which InferenceModels claim a model name in a pool."""

from collections.abc import Sequence

from epp.kube.cache import ObjectCache
from epp_api.meta import NamespacedName
from epp_api.v1alpha2.inferencemodel_types import MODEL_NAME_INDEX, InferenceModel


def is_relevant(model: InferenceModel, pool: NamespacedName) -> bool:
    """Tell whether a model counts for a pool: same namespace, refers to it, not being deleted.

    Group and kind of the reference do not count: both pool groups are accepted.
    """
    metadata = model.metadata
    return (
        metadata.namespace == pool.namespace
        and model.spec.pool_ref.name == pool.name
        and metadata.deletion_timestamp is None
    )


def relevant_models(
    models: ObjectCache[InferenceModel], model_name: str, pool: NamespacedName
) -> Sequence[InferenceModel]:
    """All objects that claim a name in a pool."""
    claims = models.by_index(MODEL_NAME_INDEX, model_name)
    return [model for model in claims if is_relevant(model, pool)]
