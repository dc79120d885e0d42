"""InferenceModel of ``inference.networking.x-k8s.io/v1alpha2``.

Reference: GAIE v0.3.0 api/v1alpha2/inferencemodel_types.go; validation lives in the CRD.
"""

from enum import StrEnum

from epp_api.meta import ApiStruct, Condition, ObjectMeta

GROUP = "inference.networking.x-k8s.io"
API_VERSION = f"{GROUP}/v1alpha2"
KIND = "InferenceModel"

MODEL_NAME_INDEX = "spec.modelName"
"""Name of the cache index over model names."""


class Criticality(StrEnum):
    """How much a request matters. Unset reads as Standard."""

    CRITICAL = "Critical"
    STANDARD = "Standard"
    SHEDDABLE = "Sheddable"

    @property
    def priority(self) -> int:
        """The priority that the criticality stands for: 2, 1, -1 (negative may be shed)."""
        return {"Critical": 2, "Standard": 1, "Sheddable": -1}[self.value]


class TargetModel(ApiStruct, frozen=True, kw_only=True):
    """One target of a traffic split; its share is weight / sum of weights."""

    name: str
    weight: int | None = None


class PoolObjectReference(ApiStruct, frozen=True, kw_only=True):
    """The pool of the same namespace that a model belongs to."""

    group: str = GROUP
    kind: str = "InferencePool"
    name: str


class InferenceModelSpec(ApiStruct, frozen=True, kw_only=True):
    """``spec`` of a model: the name that clients use, and what it becomes."""

    model_name: str
    criticality: Criticality | None = None
    target_models: list[TargetModel] = []
    pool_ref: PoolObjectReference


class InferenceModelStatus(ApiStruct, frozen=True, kw_only=True):
    """``status`` of a model."""

    conditions: list[Condition] = []


class InferenceModel(ApiStruct, frozen=True, kw_only=True):
    """A model name of a pool, its criticality and its traffic split."""

    api_version: str = API_VERSION
    kind: str = KIND
    metadata: ObjectMeta = ObjectMeta()
    spec: InferenceModelSpec
    status: InferenceModelStatus = InferenceModelStatus()
