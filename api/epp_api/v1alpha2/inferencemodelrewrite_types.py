"""InferenceModelRewrite of ``llm-d.ai/v1alpha2`` and ``inference.networking.x-k8s.io/v1alpha2``.

Reference: llm-d-router ebab687 apix/v1alpha2/inferencemodelrewrite_types.go, and GAIE v1.2.1 for
the older name of ``targets``; validation lives in the CRDs.
"""

import msgspec

from epp_api.meta import ApiStruct, Condition, ObjectMeta
from epp_api.v1alpha2.shared_types import API_VERSION, PoolObjectReference

KIND = "InferenceModelRewrite"
EXACT = "Exact"


class ModelMatch(ApiStruct, frozen=True, kw_only=True):
    """A model name of a request, compared exactly."""

    type: str = EXACT
    value: str


class Match(ApiStruct, frozen=True, kw_only=True):
    """What a request must look like."""

    model: ModelMatch | None = None


class TargetModel(ApiStruct, frozen=True, kw_only=True):
    """One target of a rule; its share is weight / sum of weights."""

    model_rewrite: str
    weight: int | None = None


class InferenceModelRewriteRule(ApiStruct, frozen=True, kw_only=True):
    """What matching requests become. Without matches the rule is for every request.

    ``split`` is what ``targets`` was called at first: read into ``targets`` unless they are given,
    and empty afterwards.
    """

    matches: list[Match] = []
    targets: list[TargetModel] = []
    split: list[TargetModel] = []

    def __post_init__(self) -> None:
        """Take over the older name."""
        if self.split:
            targets = self.targets or self.split
            msgspec.structs.force_setattr(self, "targets", targets)
            msgspec.structs.force_setattr(self, "split", [])


class InferenceModelRewriteSpec(ApiStruct, frozen=True, kw_only=True):
    """``spec`` of a rewrite; of the rules that match, one applies."""

    pool_ref: PoolObjectReference | None = None
    rules: list[InferenceModelRewriteRule] = []


class InferenceModelRewriteStatus(ApiStruct, frozen=True, kw_only=True):
    """``status`` of a rewrite."""

    conditions: list[Condition] = []


class InferenceModelRewrite(ApiStruct, frozen=True, kw_only=True):
    """What model names of requests become on their way to a pool."""

    api_version: str = API_VERSION
    kind: str = KIND
    metadata: ObjectMeta = ObjectMeta()
    spec: InferenceModelRewriteSpec = InferenceModelRewriteSpec()
    status: InferenceModelRewriteStatus = InferenceModelRewriteStatus()
