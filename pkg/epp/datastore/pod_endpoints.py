"""Which endpoints a pod is: one per active target port.

Reference: llm-d-router pkg/epp/datastore/datastore.go (active-ports annotation, rank names).
"""

from collections.abc import Mapping, Sequence

from epp.backend.endpoint import Endpoint
from epp.datastore.endpoint_pool import EndpointPool
from epp_api.core_v1 import Pod

ACTIVE_PORTS_ANNOTATIONS = (
    "llm-d.ai/active-ports",
    "inference.networking.k8s.io/active-ports",
)
"""The first one present wins; the second is the older name."""


def endpoints_of(pod: Pod, pool: EndpointPool) -> list[Endpoint]:
    """Endpoints of a ready pod, by rank; none without an address.

    The rank is the position in the pool's target ports, also when other ports are inactive.
    """
    if not pod.status.pod_ip:
        return []
    active = active_ports(pod.metadata.annotations, pool.target_ports)
    return [
        Endpoint(
            namespace=pod.metadata.namespace,
            pod_name=pod.metadata.name,
            rank=rank,
            address=pod.status.pod_ip,
            port=port,
            labels=pod.metadata.labels,
        )
        for rank, port in enumerate(pool.target_ports)
        if port in active
    ]


def active_ports(annotations: Mapping[str, str], target_ports: Sequence[int]) -> frozenset[int]:
    """Target ports that the pod declares active; all of them without the annotation.

    Entries that are no number, or no target port, are ignored: an annotation without a usable
    entry switches the pod off.
    """
    for name in ACTIVE_PORTS_ANNOTATIONS:
        if name in annotations:
            entries = (entry.strip() for entry in annotations[name].split(","))
            numbers = {int(e) for e in entries if e.isascii() and e.isdigit() and len(e) <= 5}
            return frozenset(numbers & set(target_ports))
    return frozenset(target_ports)
