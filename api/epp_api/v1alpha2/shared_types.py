"""What InferenceObjective and InferenceModelRewrite share: their two API groups, their pool.

Both kinds moved from ``inference.networking.x-k8s.io`` to ``llm-d.ai`` without a change of form.
Reference: llm-d-router ebab687 apix/v1alpha2; validation lives in the CRDs.
"""

from epp_api.meta import ApiStruct

GROUP = "llm-d.ai"
LEGACY_GROUP = "inference.networking.x-k8s.io"
VERSION = "v1alpha2"
API_VERSION = f"{GROUP}/{VERSION}"
LEGACY_API_VERSION = f"{LEGACY_GROUP}/{VERSION}"


class PoolObjectReference(ApiStruct, frozen=True, kw_only=True):
    """The pool of the same namespace that an object belongs to; its group counts."""

    group: str = "inference.networking.k8s.io"
    kind: str = "InferencePool"
    name: str
