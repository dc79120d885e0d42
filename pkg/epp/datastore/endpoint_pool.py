"""EndpointPool: the one pool of this process, whatever API version declared it.

Reference: llm-d-router pkg/epp/util/pool/pool.go; spec of both versions in the CRDs.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from epp_api.meta import NamespacedName
from epp_api.v1 import inferencepool_types as v1
from epp_api.v1alpha2 import inferencepool_types as v1alpha2


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointPool:
    """What the EPP needs of an InferencePool.

    Attributes:
        namespace: Namespace of the pool and of its pods and models.
        name: Name of the pool.
        selector: Labels that a pod must carry; empty matches every pod of the namespace.
        target_ports: Ports that serve, in order; each is an endpoint of its own per pod.
        app_protocol: ``http`` or ``kubernetes.io/h2c``.
        failure_mode: ``FailOpen`` or ``FailClose``; None when the pool names no endpoint picker.
        group: API group that declared the pool; objectives and rewrites refer to it.
    """

    namespace: str
    name: str
    selector: Mapping[str, str] = field(default_factory=dict)
    target_ports: tuple[int, ...]
    app_protocol: str = "http"
    failure_mode: str | None = None
    group: str = v1.GROUP

    @property
    def key(self) -> NamespacedName:
        """Namespace and name."""
        return NamespacedName(self.namespace, self.name)


def pool_from_v1(pool: v1.InferencePool) -> EndpointPool:
    """Take over a v1 pool."""
    spec = pool.spec
    picker = spec.endpoint_picker_ref
    return EndpointPool(
        namespace=pool.metadata.namespace,
        name=pool.metadata.name,
        selector=spec.selector.match_labels,
        target_ports=tuple(port.number for port in spec.target_ports),
        app_protocol=spec.app_protocol,
        failure_mode=None if picker is None else picker.failure_mode,
    )


def pool_from_v1alpha2(pool: v1alpha2.InferencePool) -> EndpointPool | None:
    """Take over a v1alpha2 pool; None when it has no spec, which its schema admits."""
    spec = pool.spec
    if spec is None:
        return None
    extension = spec.extension_ref
    return EndpointPool(
        namespace=pool.metadata.namespace,
        name=pool.metadata.name,
        selector=spec.selector,
        target_ports=(spec.target_port_number,),
        failure_mode=None if extension is None else extension.failure_mode,
        group=v1alpha2.GROUP,
    )
