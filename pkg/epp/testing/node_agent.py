"""The one node of the harness: a kubelet whose containers are processes of this machine.

Runs every pod that is bound to it, each on a loopback address of its own, and writes the pods'
status. It is a stand-in: no images, no isolation, no resource limits, no security context, and a
process sees the file system of the machine (``pod_paths`` says how it finds its own things).
"""

import asyncio
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from epp.logs import get_logger
from epp.testing.api_admin import ApiAdmin
from epp.testing.api_follow import Follower
from epp.testing.deployment_controller import DeploymentController
from epp.testing.envtest import LocalControlPlane
from epp.testing.pod_runner import PodRunner

log = get_logger(__name__)

_PODS_PER_SUBNET = 250
_SUBNETS = 250


class NodeAgent:
    """Runs pods, and makes those of Deployments.

    Args:
        control_plane: Whose node it is.
        admin: Its connection.
        directory: Of the pods' files and logs.
        name: Of the node.
        backoff_seconds: Before the second restart of a container; the kubelet's is 10.

    Attributes:
        pods: Pods of this node, as the API server has them.
    """

    def __init__(
        self,
        control_plane: LocalControlPlane,
        admin: ApiAdmin,
        directory: Path,
        *,
        name: str = "local",
        backoff_seconds: float = 10.0,
    ) -> None:
        self._control_plane = control_plane
        self._admin = admin
        self._directory = directory
        self._backoff = backoff_seconds
        self._wake = asyncio.Event()
        query = {"fieldSelector": f"spec.nodeName={name}"}
        self.pods = Follower(admin, "/api/v1/pods", self._pods_changed, query=query)
        self._deployments = DeploymentController(admin, self.pods, node=name)
        self._runners: dict[str, PodRunner] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        # Two runs on one machine must not meet: each takes a network of its own.
        self._network = f"127.{100 + secrets.randbelow(150)}"
        self._first_subnet = secrets.randbelow(_SUBNETS)
        self._given = 0

    async def run(self) -> None:
        """Work until cancelled; then every process is killed."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.pods.run(), name="follow pods")
                group.create_task(self._deployments.run(), name="deployments")
                group.create_task(self._act(), name="node agent")
        finally:
            tasks = list(self._tasks.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def runner(self, pod: Mapping[str, Any]) -> PodRunner:
        """Who runs a pod. Raises LookupError when nobody does."""
        uid = pod["metadata"]["uid"]
        if uid not in self._runners:
            raise LookupError(f"pod {pod['metadata']['name']} does not run here")
        return self._runners[uid]

    def _pods_changed(self) -> None:
        self._wake.set()
        self._deployments.wake()

    async def _act(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            for uid, pod in self.pods.objects.items():
                if uid not in self._runners:
                    self._start(uid, pod)
                self._runners[uid].update(pod)
            for uid in self._runners.keys() - self.pods.objects.keys():
                del self._runners[uid]
                if uid in self._tasks:
                    self._tasks[uid].cancel()

    def _start(self, uid: str, pod: Mapping[str, Any]) -> None:
        metadata = pod["metadata"]
        runner = self._runners[uid] = PodRunner(
            self._control_plane,
            self._admin,
            pod,
            directory=self._directory / metadata["namespace"] / metadata["name"],
            address=self._next_address(),
            backoff_seconds=self._backoff,
        )
        task = asyncio.create_task(runner.run(), name=f"pod {runner.key}")
        task.add_done_callback(lambda done: self._ended(uid, done))
        self._tasks[uid] = task

    def _ended(self, uid: str, task: asyncio.Task[None]) -> None:
        self._tasks.pop(uid, None)
        if not task.cancelled() and task.exception() is not None:
            log.error("a pod's runner failed", uid=uid, error=task.exception())

    def _next_address(self) -> str:
        """One that was never used: what still asks an old pod must not meet a new one."""
        subnet, host = divmod(self._given, _PODS_PER_SUBNET)
        self._given += 1
        return f"{self._network}.{(self._first_subnet + subnet) % _SUBNETS}.{host + 1}"
