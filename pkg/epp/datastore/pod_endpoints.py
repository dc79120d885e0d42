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

_SHOWN = 40


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
    name = _active_ports_annotation(annotations)
    if name is None:
        return frozenset(target_ports)
    return frozenset(
        {int(e) for e in _entries(annotations[name]) if _is_number(e)} & set(target_ports)
    )


def active_ports_problem(
    annotations: Mapping[str, str], target_ports: Sequence[int]
) -> tuple[str, str] | None:
    """The annotation that does not say what its author meant, and why; None when all is well.

    An empty value is a way to say that no port is active, and a port that is not the pool's may be
    that of another pool.
    """
    name = _active_ports_annotation(annotations)
    entries = [] if name is None else _entries(annotations[name])
    if name is None or not any(entries):
        return None
    unreadable = next((entry for entry in entries if entry and not _is_number(entry)), None)
    if unreadable is not None:
        return name, f"{unreadable[:_SHOWN]!r} is not a port"
    if not active_ports(annotations, target_ports):
        return name, "none of them is a target port of the pool"
    return None


def _active_ports_annotation(annotations: Mapping[str, str]) -> str | None:
    return next((name for name in ACTIVE_PORTS_ANNOTATIONS if name in annotations), None)


def _entries(value: str) -> list[str]:
    return [entry.strip() for entry in value.split(",")]


def _is_number(entry: str) -> bool:
    return entry.isascii() and entry.isdigit() and len(entry) <= 5
