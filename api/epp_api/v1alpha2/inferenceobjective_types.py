"""InferenceObjective of ``llm-d.ai/v1alpha2`` and ``inference.networking.x-k8s.io/v1alpha2``.

Reference: llm-d-router ebab687 apix/v1alpha2/inferenceobjective_types.go; validation lives in the
CRDs.
"""

from epp_api.meta import ApiStruct, Condition, ObjectMeta
from epp_api.v1alpha2.shared_types import API_VERSION, PoolObjectReference

KIND = "InferenceObjective"


class InferenceObjectiveSpec(ApiStruct, frozen=True, kw_only=True):
    """``spec`` of an objective. Higher priorities matter more, negative ones may be shed."""

    priority: int | None = None
    pool_ref: PoolObjectReference | None = None


class InferenceObjectiveStatus(ApiStruct, frozen=True, kw_only=True):
    """``status`` of an objective."""

    conditions: list[Condition] = []


class InferenceObjective(ApiStruct, frozen=True, kw_only=True):
    """How much requests matter that name this object; the request's header holds its name."""

    api_version: str = API_VERSION
    kind: str = KIND
    metadata: ObjectMeta = ObjectMeta()
    spec: InferenceObjectiveSpec = InferenceObjectiveSpec()
    status: InferenceObjectiveStatus = InferenceObjectiveStatus()

    @property
    def priority(self) -> int:
        """The priority; unset reads as 0."""
        return self.spec.priority or 0
