"""Endpoint: who a model server is. What it last said of itself is in ``metrics_state``."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NewType

EndpointKey = NewType("EndpointKey", str)
"""``namespace/pod-rank-i``: identity of an endpoint; survives a change of address."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One port of one pod.

    Attributes:
        namespace: Namespace of the pod.
        pod_name: Name of the pod.
        rank: Position of the port in the pool's list of target ports.
        address: IP address of the pod, without brackets.
        port: Port that serves requests and ``/metrics``.
        labels: The pod's labels.
        name: ``pod-rank-i``, the name of the per-endpoint metric labels; derived.
        key: ``namespace/pod-rank-i``; derived.
        target: ``ip:port`` as the gateway wants it, IPv6 in brackets; derived.
    """

    namespace: str
    pod_name: str
    rank: int = 0
    address: str
    port: int
    labels: Mapping[str, str] = field(default_factory=dict)
    name: str = field(init=False)
    key: EndpointKey = field(init=False)
    target: str = field(init=False)

    def __post_init__(self) -> None:
        """Derive names and target once; they are read on every request."""
        object.__setattr__(self, "name", f"{self.pod_name}-rank-{self.rank}")
        object.__setattr__(self, "key", EndpointKey(f"{self.namespace}/{self.name}"))
        object.__setattr__(self, "target", join_host_port(self.address, self.port))


def join_host_port(host: str, port: int) -> str:
    """Return ``host:port``, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
