"""InferencePool of ``inference.networking.x-k8s.io/v1alpha2``.

Reference: GAIE v0.5.1 api/v1alpha2/inferencepool_types.go; validation lives in the CRD.
"""

from epp_api.meta import ApiStruct, ObjectMeta

GROUP = "inference.networking.x-k8s.io"
API_VERSION = f"{GROUP}/v1alpha2"
KIND = "InferencePool"


class Extension(ApiStruct, frozen=True, kw_only=True):
    """How the gateway reaches its endpoint picker; only ``failure_mode`` concerns us."""

    group: str = ""
    kind: str = "Service"
    name: str = ""
    port_number: int | None = None
    failure_mode: str = "FailClose"


class InferencePoolSpec(ApiStruct, frozen=True, kw_only=True):
    """``spec`` of a pool; an absent one is admitted by the schema and selects nothing usable."""

    selector: dict[str, str] = {}
    target_port_number: int
    extension_ref: Extension | None = None


class InferencePool(ApiStruct, frozen=True, kw_only=True):
    """A set of model-server pods behind one endpoint picker, first generation."""

    api_version: str = API_VERSION
    kind: str = KIND
    metadata: ObjectMeta = ObjectMeta()
    spec: InferencePoolSpec | None = None
