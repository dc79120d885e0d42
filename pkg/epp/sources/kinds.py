"""The kinds that the EPP reads: one table for caches, validation and lists over the network.

InferencePool, InferenceObjective and InferenceModelRewrite exist in two API groups each; which
group counts is decided where objects are interpreted (``controller``), not where they are read.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from epp.kube.resource import PODS, Resource
from epp_api.core_v1 import Pod
from epp_api.v1 import inferencepool_types as v1
from epp_api.v1alpha2 import (
    inferencemodel_types,
    inferencemodelrewrite_types,
    inferenceobjective_types,
    inferencepool_types,
    shared_types,
)

ApiObject = (
    Pod
    | v1.InferencePool
    | inferencepool_types.InferencePool
    | inferencemodel_types.InferenceModel
    | inferenceobjective_types.InferenceObjective
    | inferencemodelrewrite_types.InferenceModelRewrite
)
TypeId = tuple[str, str]
"""``(apiVersion, kind)``."""

POOLS = Resource(group=v1.GROUP, version="v1", plural="inferencepools", kind=v1.KIND)
OLD_POOLS = Resource(
    group=inferencepool_types.GROUP,
    version="v1alpha2",
    plural="inferencepools",
    kind=inferencepool_types.KIND,
)
MODELS = Resource(
    group=inferencemodel_types.GROUP,
    version="v1alpha2",
    plural="inferencemodels",
    kind=inferencemodel_types.KIND,
)
OBJECTIVES, LEGACY_OBJECTIVES = (
    Resource(
        group=group,
        version=shared_types.VERSION,
        plural="inferenceobjectives",
        kind=inferenceobjective_types.KIND,
    )
    for group in (shared_types.GROUP, shared_types.LEGACY_GROUP)
)
REWRITES, LEGACY_REWRITES = (
    Resource(
        group=group,
        version=shared_types.VERSION,
        plural="inferencemodelrewrites",
        kind=inferencemodelrewrite_types.KIND,
    )
    for group in (shared_types.GROUP, shared_types.LEGACY_GROUP)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceKind:
    """A kind that is read.

    Attributes:
        resource: Where its objects live in the API.
        type: What they are decoded to.
    """

    resource: Resource
    type: type[ApiObject]

    @property
    def type_id(self) -> TypeId:
        """``(apiVersion, kind)``, as manifests spell it."""
        return self.resource.api_version, self.resource.kind


KINDS: tuple[SourceKind, ...] = (
    SourceKind(resource=PODS, type=Pod),
    SourceKind(resource=POOLS, type=v1.InferencePool),
    SourceKind(resource=OLD_POOLS, type=inferencepool_types.InferencePool),
    SourceKind(resource=MODELS, type=inferencemodel_types.InferenceModel),
    SourceKind(resource=OBJECTIVES, type=inferenceobjective_types.InferenceObjective),
    SourceKind(resource=LEGACY_OBJECTIVES, type=inferenceobjective_types.InferenceObjective),
    SourceKind(resource=REWRITES, type=inferencemodelrewrite_types.InferenceModelRewrite),
    SourceKind(resource=LEGACY_REWRITES, type=inferencemodelrewrite_types.InferenceModelRewrite),
)

TYPES: Mapping[TypeId, type[ApiObject]] = {kind.type_id: kind.type for kind in KINDS}
"""What objects are decoded to, by ``(apiVersion, kind)``."""
