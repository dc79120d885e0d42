"""StaticSource: model servers named on the command line, as a pool and ready pods.

The rest of the program cannot tell: the same kinds fill the same caches. Servers on different
ports share one pool with all the ports, and each pod says which of them is its own.
"""

import ipaddress
from collections.abc import Sequence

from epp.errors import ConfigError
from epp.sources.caches import SourceCaches
from epp_api.core_v1 import Pod, PodStatus
from epp_api.meta import Condition, ObjectMeta
from epp_api.v1.inferencepool_types import InferencePool, InferencePoolSpec, LabelSelector, Port

POOL_NAME = "endpoints"
MAX_PORT = 65535
MAX_PORTS = 8
"""Limit of ``spec.targetPorts``."""

ACTIVE_PORTS = "llm-d.ai/active-ports"
_LABELS = {"endpoint-picker/static": "true"}


class StaticSource:
    """Fills the caches once.

    Args:
        endpoints: ``(ip, port)`` of each server.
        pool_name: Name of the pool; ``endpoints`` when empty.
        namespace: Namespace of everything.

    Raises:
        ConfigError: An address that is no IP address, a duplicate, or too many different ports.
    """

    def __init__(
        self,
        endpoints: Sequence[tuple[str, int]],
        *,
        pool_name: str = "",
        namespace: str = "default",
    ) -> None:
        self.caches = SourceCaches()
        self._namespace = namespace
        self._pool_name = pool_name or POOL_NAME
        self._endpoints = list(endpoints)
        _check(self._endpoints)
        self._ports = sorted({port for _, port in self._endpoints})
        if len(self._ports) > MAX_PORTS:
            raise ConfigError(
                f"more than {MAX_PORTS} different ports; use --manifests with several pools",
                source="--endpoint",
                value=self._ports,
            )

    async def start(self) -> None:
        """Fill the caches."""
        self.caches.pools_v1.upsert(self._pool())
        self.caches.pods.replace(self._pods())
        self.caches.mark_synced()

    async def stop(self) -> None:
        """Nothing runs."""

    def _pool(self) -> InferencePool:
        return InferencePool(
            metadata=ObjectMeta(name=self._pool_name, namespace=self._namespace),
            spec=InferencePoolSpec(
                selector=LabelSelector(match_labels=_LABELS),
                target_ports=[Port(number=port) for port in self._ports],
            ),
        )

    def _pods(self) -> Sequence[Pod]:
        by_address: dict[str, list[int]] = {}
        for address, port in self._endpoints:
            by_address.setdefault(address, []).append(port)
        return [self._pod(address, ports) for address, ports in by_address.items()]

    def _pod(self, address: str, ports: Sequence[int]) -> Pod:
        whole = ipaddress.ip_address(address).exploded  # ::1 and 1:: must not share a name
        name = f"endpoint-{whole.replace('.', '-').replace(':', '-')}"
        active = ",".join(str(port) for port in ports)
        return Pod(
            metadata=ObjectMeta(
                name=name,
                namespace=self._namespace,
                labels=_LABELS,
                annotations={ACTIVE_PORTS: active},
            ),
            status=PodStatus(pod_ip=address, conditions=[Condition(type="Ready", status="True")]),
        )


def _check(endpoints: Sequence[tuple[str, int]]) -> None:
    seen = set()
    for address, port in endpoints:
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError as exc:
            raise ConfigError(
                "must be an IP address and a port", source="--endpoint", value=f"{address}:{port}"
            ) from exc
        if not 1 <= port <= MAX_PORT:
            raise ConfigError(
                f"the port must be from 1 to {MAX_PORT}", source="--endpoint", value=port
            )
        if (parsed, port) in seen:
            raise ConfigError("given twice", source="--endpoint", value=f"{address}:{port}")
        seen.add((parsed, port))
