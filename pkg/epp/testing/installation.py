"""What a user has applied from ``config/`` to a cluster, and what they do with it afterwards.

The questions and changes are those of ``kubectl``: get, patch, scale, rollout status. Deadlines are
the cluster's patience times what is said.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from epp.testing.api_admin import identity
from epp.testing.cluster import Cluster
from epp.testing.deployment_plan import is_ready, is_terminating
from epp.testing.stack import eventually

POOL_API = "inference.networking.k8s.io/v1"
MODEL_API = "inference.networking.x-k8s.io/v1alpha2"
NAME_LABEL = "app.kubernetes.io/name"

Manifest = Mapping[str, Any]


class Installation:
    """The objects of one namespace.

    Args:
        cluster: Where.
        namespace: Theirs.
        manifests: What was applied.
    """

    def __init__(self, cluster: Cluster, namespace: str, manifests: Sequence[Manifest]) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self.manifests = manifests

    def manifest(self, kind: str, name: str) -> Manifest:
        """One of the applied manifests, by kind and end of its name. Raises LookupError."""
        for manifest in self.manifests:
            if manifest["kind"] == kind and manifest["metadata"]["name"].endswith(name):
                return manifest
        raise LookupError(f"nothing applied is {kind} {name}")

    async def apply(self, *manifests: Manifest) -> None:
        """Create or replace objects."""
        await self.cluster.admin.apply(manifests, namespace=self.namespace)

    async def delete(self, manifest: Manifest, *, grace_seconds: int | None = None) -> None:
        """Delete an object; none is no error."""
        await self.cluster.admin.delete(
            manifest, namespace=self.namespace, grace_seconds=grace_seconds
        )

    async def get(self, api_version: str, kind: str, name: str) -> dict[str, Any]:
        """Read an object. Raises StatusError, 404 when there is none."""
        return await self.cluster.admin.get(self._named(api_version, kind, name))

    async def patch(
        self, api_version: str, kind: str, name: str, change: Manifest
    ) -> dict[str, Any]:
        """Merge a change into an object."""
        return await self.cluster.admin.patch(self._named(api_version, kind, name), change)

    async def scale(self, deployment: str, replicas: int) -> None:
        """Change the number of pods of a Deployment, and wait until they are there."""
        await self.cluster.admin.patch(
            self._named("apps/v1", "Deployment", deployment),
            {"spec": {"replicas": replicas}},
            subresource="scale",
        )
        await self.rolled_out(deployment)

    async def rolled_out(self, deployment: str, *, seconds: float = 60.0) -> None:
        """Wait as ``kubectl rollout status`` does."""

        async def complete() -> bool:
            found = await self.get("apps/v1", "Deployment", deployment)
            wanted, status = found["spec"]["replicas"], found.get("status") or {}
            numbers = [
                status.get(key) or 0 for key in ("replicas", "updatedReplicas", "availableReplicas")
            ]
            seen = status.get("observedGeneration", 0) >= found["metadata"]["generation"]
            return seen and numbers == [wanted] * 3

        await self.wait(complete, seconds=seconds, what=f"rollout of {deployment}")

    async def pods(self, name: str, *, ready: bool = True) -> list[dict[str, Any]]:
        """Pods by the value of their name label, oldest first, without those that are going.

        Args:
            name: Value of the label.
            ready: Only those that are.
        """
        found = await self.cluster.admin.list(
            "v1", "Pod", namespace=self.namespace, selector=f"{NAME_LABEL}={name}"
        )
        pods = [
            {"apiVersion": "v1", "kind": "Pod", **pod}  # items of a list do not say it
            for pod in found
            if not is_terminating(pod) and (not ready or is_ready(pod))
        ]
        return sorted(pods, key=lambda pod: str(pod["metadata"]["creationTimestamp"]))

    async def find_pod(self, pod: Manifest) -> dict[str, Any] | None:
        """The pod as it is now; None once it is gone."""
        name = pod["metadata"]["name"]
        return await self.cluster.admin.find(self._named("v1", "Pod", name))

    async def wait(self, condition: Any, *, seconds: float = 20.0, what: str) -> Any:
        """Poll until a condition holds, as ``eventually``, with the cluster's patience."""
        return await eventually(condition, seconds=seconds * self.cluster.patience, what=what)

    def _named(self, api_version: str, kind: str, name: str) -> dict[str, Any]:
        return identity(api_version, kind, name, namespace=self.namespace)


def restarts(pod: Manifest, container: str) -> int:
    """How often a container of a pod was restarted."""
    for status in (pod.get("status") or {}).get("containerStatuses") or ():
        if status["name"] == container:
            return int(status["restartCount"])
    return 0


def containers_patch(deployment: str, *containers: Manifest) -> dict[str, Any]:
    """A patch of a user's kustomization that changes containers of a Deployment, by their names."""
    manifest = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": deployment},
        "spec": {"template": {"spec": {"containers": [dict(c) for c in containers]}}},
    }
    return {"patch": yaml.safe_dump(manifest)}


def arguments_patch(deployment: str, *arguments: str) -> dict[str, Any]:
    """A patch of a user's kustomization that adds arguments to the first container."""
    path = "/spec/template/spec/containers/0/args/-"
    steps = [{"op": "add", "path": path, "value": argument} for argument in arguments]
    target = {"kind": "Deployment", "name": deployment}
    return {"target": target, "patch": yaml.safe_dump(steps)}
