"""The caches that every source fills, one per kind and API group."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from epp.kube.cache import ObjectCache
from epp.kube.resource import PODS, Resource
from epp.sources.kinds import (
    LEGACY_OBJECTIVES,
    LEGACY_REWRITES,
    MODELS,
    OBJECTIVES,
    OLD_POOLS,
    POOLS,
    REWRITES,
    TypeId,
)
from epp_api.core_v1 import Pod
from epp_api.meta import NamespacedName
from epp_api.v1 import inferencepool_types as v1
from epp_api.v1alpha2 import inferencepool_types
from epp_api.v1alpha2.inferencemodel_types import MODEL_NAME_INDEX, InferenceModel
from epp_api.v1alpha2.inferencemodelrewrite_types import InferenceModelRewrite
from epp_api.v1alpha2.inferenceobjective_types import InferenceObjective


def _model_names(model: InferenceModel) -> Sequence[str]:
    return (model.spec.model_name,)


class SourceCaches:
    """Caches of the kinds that the EPP reads.

    Attributes:
        pods: Pods.
        pools_v1: InferencePools of the current version.
        pools_v1alpha2: InferencePools of the first generation.
        models: InferenceModels, indexed by ``spec.modelName``.
        objectives: InferenceObjectives of ``llm-d.ai``.
        legacy_objectives: Those of the kind's first API group.
        rewrites: InferenceModelRewrites of ``llm-d.ai``.
        legacy_rewrites: Those of the kind's first API group.
        by_type: Every cache, by ``(apiVersion, kind)``.
    """

    def __init__(self) -> None:
        self.pods: ObjectCache[Pod] = ObjectCache(PODS.kind)
        self.pools_v1: ObjectCache[v1.InferencePool] = ObjectCache(POOLS.kind)
        self.pools_v1alpha2: ObjectCache[inferencepool_types.InferencePool] = ObjectCache(
            OLD_POOLS.kind
        )
        self.models: ObjectCache[InferenceModel] = ObjectCache(
            MODELS.kind, {MODEL_NAME_INDEX: _model_names}
        )
        self.objectives: ObjectCache[InferenceObjective] = ObjectCache(OBJECTIVES.kind)
        self.legacy_objectives: ObjectCache[InferenceObjective] = ObjectCache(
            LEGACY_OBJECTIVES.kind
        )
        self.rewrites: ObjectCache[InferenceModelRewrite] = ObjectCache(REWRITES.kind)
        self.legacy_rewrites: ObjectCache[InferenceModelRewrite] = ObjectCache(LEGACY_REWRITES.kind)
        by_resource: Mapping[Resource, ObjectCache[Any]] = {
            PODS: self.pods,
            POOLS: self.pools_v1,
            OLD_POOLS: self.pools_v1alpha2,
            MODELS: self.models,
            OBJECTIVES: self.objectives,
            LEGACY_OBJECTIVES: self.legacy_objectives,
            REWRITES: self.rewrites,
            LEGACY_REWRITES: self.legacy_rewrites,
        }
        self.by_type: Mapping[TypeId, ObjectCache[Any]] = {
            (resource.api_version, resource.kind): cache for resource, cache in by_resource.items()
        }

    def mark_synced(self) -> None:
        """The first complete list of every kind is in."""
        for cache in self.by_type.values():
            cache.mark_synced()

    def pool_keys(self) -> Iterable[NamespacedName]:
        """Keys of the pools of either version."""
        current = {pool.metadata.key for pool in self.pools_v1.list()}
        return sorted(current | {pool.metadata.key for pool in self.pools_v1alpha2.list()})
