"""A cluster on this machine: a real API server, and one node whose containers are processes.

There is no kube-proxy: who calls a Service picks one of its ready pods for every connection, as
kube-proxy would, and no ClusterIP answers.
"""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from epp.errors import TransportError
from epp.testing.api_admin import ApiAdmin, identity
from epp.testing.cluster import Address, ClusterError, Pod
from epp.testing.deployment_plan import is_ready, is_terminating
from epp.testing.envtest import LocalControlPlane
from epp.testing.node_agent import NodeAgent

BACKOFF_SECONDS = 1.0
"""Before the second restart of a container, where a kubelet waits 10: a test has no minutes."""

_TAIL_BYTES = 3000


class LocalCluster:
    """A node beside a control plane.

    Args:
        control_plane: Runs, and has no other node.
        directory: For the pods' files and logs; they stay when it stops.

    Attributes:
        admin: The administrator's connection.
        patience: 1.
    """

    admin: ApiAdmin
    patience = 1.0

    def __init__(self, control_plane: LocalControlPlane, directory: Path) -> None:
        self._control_plane = control_plane
        self._directory = directory
        self._stack = contextlib.AsyncExitStack()
        self._agent: NodeAgent | None = None
        self._random = random.Random()

    async def __aenter__(self) -> Self:
        """Connect and start the node."""
        self.admin = await self._stack.enter_async_context(self._control_plane.admin())
        self._agent = NodeAgent(
            self._control_plane, self.admin, self._directory, backoff_seconds=BACKOFF_SECONDS
        )
        running = asyncio.create_task(self._agent.run(), name="node agent")
        self._stack.push_async_callback(_cancelled, running)
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _exc: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        """Kill every pod and disconnect."""
        await self._stack.aclose()

    async def service(self, namespace: str, name: str, port: str) -> Callable[[], Address]:
        """See ``Cluster``. Raises StatusError when there is no such Service."""
        found = await self.admin.get(identity("v1", "Service", name, namespace=namespace))
        selector: Mapping[str, str] = found["spec"]["selector"]
        targets = {p["name"]: p["targetPort"] for p in found["spec"]["ports"]}
        return lambda: self._endpoint(namespace, selector, targets[port])

    @contextlib.asynccontextmanager
    async def reach(self, pod: Pod, port: int) -> AsyncIterator[Address]:
        """See ``Cluster``: pods have addresses of this machine."""
        yield self._node().runner(pod).address, port

    async def kill(self, pod: Pod, container: str) -> None:
        """See ``Cluster``."""
        self._node().runner(pod).container(container).kill()

    async def logs(self, pod: Pod, container: str) -> str:
        """See ``Cluster``."""
        place = Path(pod["metadata"]["namespace"], pod["metadata"]["name"], f"{container}.log")
        return (self._directory / place).read_text(errors="replace")

    def describe(self) -> str:
        """See ``Cluster``."""
        parts = []
        for pod in self._node().pods.objects.values():
            status = pod.get("status") or {}
            parts.append(f"{pod['metadata']['name']}: {status.get('message') or ''}")
            parts += [
                f"  {c['name']} ready={c['ready']} restarts={c['restartCount']} {c['state']}"
                for c in status.get("containerStatuses") or ()
            ]
        for log in sorted(self._directory.glob("*/*/*.log")):
            tail = log.read_bytes()[-_TAIL_BYTES:].decode(errors="replace")
            parts.append(f"--- {log}\n{tail}")
        return "\n".join(parts)

    def _endpoint(self, namespace: str, selector: Mapping[str, str], port: Any) -> Address:
        """A ready pod; one that is going, and still ready, where there is no other."""
        ready = [
            pod
            for pod in self._node().pods.objects.values()
            if pod["metadata"]["namespace"] == namespace
            and selector.items() <= (pod["metadata"].get("labels") or {}).items()
            and is_ready(pod)
        ]
        chosen = [pod for pod in ready if not is_terminating(pod)] or ready
        if not chosen:
            raise TransportError(f"no pod with {dict(selector)} is ready")
        pod = self._random.choice(chosen)
        return str(pod["status"]["podIP"]), _port_number(pod, port)

    def _node(self) -> NodeAgent:
        if self._agent is None:
            raise ClusterError("LocalCluster is used outside of `async with`")
        return self._agent


def _port_number(pod: Pod, port: str | int) -> int:
    if isinstance(port, int):
        return port
    for container in pod["spec"]["containers"]:
        for offered in container.get("ports") or ():
            if offered.get("name") == port:
                return int(offered["containerPort"])
    raise TransportError(f"pod {pod['metadata']['name']} has no port {port}")


async def _cancelled(task: asyncio.Task[None]) -> None:
    """Cancel and wait; what it failed with before is the caller's matter."""
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
