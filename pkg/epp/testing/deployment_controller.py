"""A Deployment controller and garbage collector for a control plane that has neither.

Makes and deletes the pods of every Deployment, and writes its status. What it decides is in
``deployment_plan``. It is replica set, controller manager and scheduler in one: the pods come bound
to the one node there is.
"""

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from epp.logs import get_logger
from epp.testing import deployment_plan as planning
from epp.testing.api_admin import ApiAdmin, StatusError
from epp.testing.api_follow import Follower

log = get_logger(__name__)

_RETRY_SECONDS = 0.2
_SUFFIX_LETTERS = "bcdfghjklmnpqrstvwxz2456789"


class DeploymentController:
    """Acts on Deployments of all namespaces.

    Args:
        admin: The API server.
        pods: Pods of the node, followed by its owner; call ``wake`` when they change.
        node: Where pods go.
    """

    def __init__(self, admin: ApiAdmin, pods: Follower, *, node: str) -> None:
        self._admin = admin
        self._pods = pods
        self._node = node
        self._deployments = Follower(admin, "/apis/apps/v1/deployments", self.wake)
        self._wake = asyncio.Event()
        self._deleted: set[str] = set()
        self._written: dict[str, dict[str, Any]] = {}

    def wake(self) -> None:
        """Something has changed."""
        self._wake.set()

    async def run(self) -> None:
        """Act until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._deployments.run(), name="follow deployments")
            group.create_task(self._act(), name="deployment controller")

    async def _act(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            if not (self._pods.has_synced and self._deployments.has_synced):
                continue
            try:
                await self._reconcile()
            except (StatusError, OSError, TimeoutError) as exc:
                log.warning("deployment controller failed, trying again", error=exc)
                await asyncio.sleep(_RETRY_SECONDS)
                self._wake.set()

    async def _reconcile(self) -> None:
        self._deleted &= self._pods.objects.keys()
        owned: dict[str, list[Mapping[str, Any]]] = {}
        for pod in self._pods.objects.values():
            owned.setdefault(planning.owner_uid(pod), []).append(pod)
        for uid, deployment in list(self._deployments.objects.items()):
            await self._step(deployment, owned.pop(uid, []))
        owned.pop("", None)
        for orphans in owned.values():
            await self._delete(orphans)

    async def _step(self, deployment: Mapping[str, Any], pods: Sequence[Mapping[str, Any]]) -> None:
        if deployment["metadata"].get("deletionTimestamp"):
            return
        staying = [pod for pod in pods if pod["metadata"]["uid"] not in self._deleted]
        step = planning.plan(deployment, staying)
        for _ in range(step.create):
            suffix = "".join(secrets.choice(_SUFFIX_LETTERS) for _ in range(5))
            made = planning.new_pod(deployment, suffix, node=self._node)
            self._pods.note(await self._admin.create(made))
        await self._delete(step.delete)
        await self._write_status(deployment, staying)

    async def _delete(self, pods: Sequence[Mapping[str, Any]]) -> None:
        for pod in pods:
            uid = pod["metadata"]["uid"]
            if uid not in self._deleted and not planning.is_terminating(pod):
                self._deleted.add(uid)
                await self._admin.delete({"apiVersion": "v1", "kind": "Pod", **pod})

    async def _write_status(
        self, deployment: Mapping[str, Any], pods: Sequence[Mapping[str, Any]]
    ) -> None:
        status = planning.status(deployment, pods)
        uid = deployment["metadata"]["uid"]
        if self._written.get(uid) == status:
            return
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        times = {"lastUpdateTime": now, "lastTransitionTime": now}
        stamped = {**status, "conditions": [{**c, **times} for c in status["conditions"]]}
        named = {"apiVersion": "apps/v1", "kind": "Deployment", **deployment}
        await self._admin.patch_status(named, stamped)
        self._written[uid] = status
