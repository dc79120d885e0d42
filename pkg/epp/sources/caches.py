"""The caches that every source fills, one per kind."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from epp.kube.cache import ObjectCache
from epp_api.core_v1 import Pod
from epp_api.meta import NamespacedName
from epp_api.v1 import inferencepool_types as v1
from epp_api.v1alpha2 import inferencemodel_types, inferencepool_types
from epp_api.v1alpha2.inferencemodel_types import InferenceModel


def _model_names(model: InferenceModel) -> Sequence[str]:
    return (model.spec.model_name,)


class SourceCaches:
    """Caches of the kinds that the EPP reads.

    Attributes:
        pods: Pods.
        pools_v1: InferencePools of the current version.
        pools_v1alpha2: InferencePools of the first generation.
        models: InferenceModels, indexed by ``spec.modelName``.
    """

    def __init__(self) -> None:
        self.pods: ObjectCache[Pod] = ObjectCache("Pod")
        self.pools_v1: ObjectCache[v1.InferencePool] = ObjectCache("InferencePool")
        self.pools_v1alpha2: ObjectCache[inferencepool_types.InferencePool] = ObjectCache(
            "InferencePool"
        )
        self.models: ObjectCache[InferenceModel] = ObjectCache(
            "InferenceModel", {inferencemodel_types.MODEL_NAME_INDEX: _model_names}
        )
        self.by_type: Mapping[tuple[str, str], ObjectCache[Any]] = {
            (v1.API_VERSION, v1.KIND): self.pools_v1,
            (inferencepool_types.API_VERSION, inferencepool_types.KIND): self.pools_v1alpha2,
            (inferencemodel_types.API_VERSION, inferencemodel_types.KIND): self.models,
            ("v1", "Pod"): self.pods,
        }

    def mark_synced(self) -> None:
        """The first complete list of every kind is in."""
        for cache in self.by_type.values():
            cache.mark_synced()

    def pool_keys(self) -> Iterable[NamespacedName]:
        """Keys of the pools of either version."""
        current = {pool.metadata.key for pool in self.pools_v1.list()}
        return sorted(current | {pool.metadata.key for pool in self.pools_v1alpha2.list()})
