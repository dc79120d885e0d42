"""InferencePool of ``inference.networking.k8s.io/v1``.

Reference: GAIE v1.6.0 api/v1/inferencepool_types.go; validation lives in the CRD
(``config/crd/bases``), not here.
"""

from epp_api.meta import ApiStruct, ObjectMeta

GROUP = "inference.networking.k8s.io"
API_VERSION = f"{GROUP}/v1"
KIND = "InferencePool"


class LabelSelector(ApiStruct, frozen=True, kw_only=True):
    """Equality selector over pod labels of the pool's namespace."""

    match_labels: dict[str, str] = {}


class Port(ApiStruct, frozen=True, kw_only=True):
    """A port number, 1 to 65535."""

    number: int


class EndpointPickerRef(ApiStruct, frozen=True, kw_only=True):
    """How the gateway reaches its endpoint picker; only ``failure_mode`` concerns us."""

    group: str = ""
    kind: str = "Service"
    name: str = ""
    port: Port | None = None
    failure_mode: str = "FailClose"


class InferencePoolSpec(ApiStruct, frozen=True, kw_only=True):
    """``spec`` of a pool: which pods, which ports; each port is an endpoint of its own per pod."""

    selector: LabelSelector
    target_ports: list[Port]
    app_protocol: str = "http"
    endpoint_picker_ref: EndpointPickerRef | None = None


class InferencePool(ApiStruct, frozen=True, kw_only=True):
    """A set of model-server pods behind one endpoint picker."""

    api_version: str = API_VERSION
    kind: str = KIND
    metadata: ObjectMeta = ObjectMeta()
    spec: InferencePoolSpec
