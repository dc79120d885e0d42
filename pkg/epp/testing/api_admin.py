"""A cluster administrator for tests: applies, reads and deletes objects.

It validates strictly: a misspelt field is an error that names it.
"""

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from epp.testing.api_connection import SERVED_SECONDS, ApiConnection, JsonObject, StatusError

__all__ = ["ApiAdmin", "StatusError", "identity", "service_account_subject", "user_subject"]

FIELD_MANAGER = "epp-test"
_FIRST = {"CustomResourceDefinition": 0, "Namespace": 1, "ServiceAccount": 2}
_REPLACE_ATTEMPTS = 5


def identity(api_version: str, kind: str, name: str, *, namespace: str = "") -> dict[str, Any]:
    """A manifest with nothing but an identity, for ``get``, ``delete`` and the patches."""
    metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata}


class ApiAdmin(ApiConnection):
    """A connection that knows objects.

    Methods that take a ``namespace`` use it for manifests that name none.
    """

    def __init__(self, url: str, token: str, ca_file: str = "") -> None:
        super().__init__(url, token, ca_file)
        self._kinds: dict[tuple[str, str], tuple[str, bool]] = {}

    async def apply(
        self, manifests: Iterable[JsonObject], *, namespace: str = ""
    ) -> list[dict[str, Any]]:
        """Create objects, or replace those that exist; CRDs first, and served before the rest.

        Returns:
            The objects as stored, in the order in which they were written.

        Raises:
            StatusError: One is refused; those before it are there.
        """
        ordered = sorted(manifests, key=lambda manifest: _FIRST.get(manifest["kind"], 9))
        stored = []
        crds: list[JsonObject] = []
        for manifest in ordered:
            if manifest["kind"] == "CustomResourceDefinition":
                crds.append(manifest)
            elif crds:
                await self._served(crds)
                crds = []
            stored.append(await self._create_or_replace(manifest, namespace))
        await self._served(crds)
        return stored

    async def create(self, manifest: JsonObject, *, namespace: str = "") -> dict[str, Any]:
        """Create an object. Raises StatusError, 409 when it exists."""
        return await self._create(manifest, namespace, {})

    async def dry_run(self, manifest: JsonObject, *, namespace: str = "") -> dict[str, Any]:
        """What would be stored, validated strictly; nothing is. Raises StatusError."""
        return await self._create(manifest, namespace, {"dryRun": "All"})

    async def replace(self, manifest: JsonObject, *, namespace: str = "") -> dict[str, Any]:
        """Replace an object, whatever its resourceVersion, with strict validation."""
        path = await self.path(manifest, namespace=namespace)
        attempts = _REPLACE_ATTEMPTS
        while True:
            present = (await self.request("GET", path))["metadata"]["resourceVersion"]
            metadata = {**manifest["metadata"], "resourceVersion": present}
            body = {**manifest, "metadata": metadata}
            try:
                return dict(await self.request("PUT", path, query=_strict({}), body=body))
            except StatusError as exc:
                attempts -= 1
                if exc.status != 409 or attempts == 0:
                    raise

    async def get(self, manifest: JsonObject, *, namespace: str = "") -> dict[str, Any]:
        """Read an object. Raises StatusError, 404 when there is none."""
        return dict(await self.request("GET", await self.path(manifest, namespace=namespace)))

    async def find(self, manifest: JsonObject, *, namespace: str = "") -> dict[str, Any] | None:
        """Read an object; None when there is none."""
        try:
            return await self.get(manifest, namespace=namespace)
        except StatusError as exc:
            if exc.status == 404:
                return None
            raise

    async def list(
        self, api_version: str, kind: str, *, namespace: str = "", selector: str = ""
    ) -> list[dict[str, Any]]:
        """Objects of a kind, of all namespaces without one."""
        plural, namespaced = await self._kind(api_version, kind)
        path = _collection(api_version, plural, namespace if namespaced else "")
        query = {"labelSelector": selector} if selector else {}
        return list((await self.request("GET", path, query=query))["items"])

    async def delete(
        self, manifest: JsonObject, *, namespace: str = "", grace_seconds: int | None = None
    ) -> None:
        """Delete an object; none is no error. Does not wait for finalizers or graceful ends."""
        path = await self.path(manifest, namespace=namespace)
        query = {} if grace_seconds is None else {"gracePeriodSeconds": str(grace_seconds)}
        try:
            await self.request("DELETE", path, query=query)
        except StatusError as exc:
            if exc.status != 404:
                raise

    async def patch(
        self,
        manifest: JsonObject,
        change: JsonObject,
        *,
        namespace: str = "",
        subresource: str = "",
    ) -> dict[str, Any]:
        """Merge a change into an object."""
        path = await self.path(manifest, namespace=namespace, subresource=subresource)
        content_type = "application/merge-patch+json"
        answer = await self.request(
            "PATCH", path, query=_strict({}), body=change, content_type=content_type
        )
        return dict(answer)

    async def patch_status(
        self, manifest: JsonObject, status: JsonObject, *, namespace: str = ""
    ) -> dict[str, Any]:
        """Merge into an object's status, as a kubelet or a controller does."""
        return await self.patch(
            manifest, {"status": status}, namespace=namespace, subresource="status"
        )

    async def grant(
        self, name: str, subject: JsonObject, rules: Sequence[JsonObject], *, namespace: str = ""
    ) -> None:
        """Give a subject rights: a role and its binding, both called ``name``.

        Args:
            name: Of both objects; an earlier grant of that name is replaced.
            subject: From ``user_subject`` or ``service_account_subject``.
            rules: RBAC rules: ``apiGroups``, ``resources``, ``verbs`` …
            namespace: Where they hold; empty is cluster-wide.
        """
        api = "rbac.authorization.k8s.io/v1"
        kind = "Role" if namespace else "ClusterRole"
        role = {**identity(api, kind, name, namespace=namespace), "rules": list(rules)}
        binding = {
            **identity(api, f"{kind}Binding", name, namespace=namespace),
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name},
            "subjects": [dict(subject)],
        }
        await self.apply([role, binding])

    async def service_account_token(
        self,
        name: str,
        *,
        namespace: str,
        seconds: int = 3600,
        audiences: Sequence[str] = (),
        pod: JsonObject | None = None,
    ) -> str:
        """A token of an existing ServiceAccount, as a kubelet requests it.

        Args:
            name: The ServiceAccount.
            namespace: Its namespace.
            seconds: How long it is valid, 600 at least.
            audiences: Empty is the API server.
            pod: The pod as stored that the token is bound to: it dies with the pod.
        """
        account = identity("v1", "ServiceAccount", name, namespace=namespace)
        spec: dict[str, Any] = {"expirationSeconds": seconds, "audiences": list(audiences)}
        if pod is not None:
            metadata = pod["metadata"]
            bound = {"apiVersion": "v1", "kind": "Pod", "name": metadata["name"]}
            spec["boundObjectRef"] = {**bound, "uid": metadata["uid"]}
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        path = await self.path(account, subresource="token")
        return str((await self.request("POST", path, body=body))["status"]["token"])

    async def path(
        self, manifest: JsonObject, *, namespace: str = "", subresource: str = ""
    ) -> str:
        """Path of the object that a manifest names."""
        api_version, metadata = manifest["apiVersion"], manifest["metadata"]
        plural, namespaced = await self._kind(api_version, manifest["kind"])
        place = (metadata.get("namespace") or namespace) if namespaced else ""
        parts = [_collection(api_version, plural, place), quote(metadata["name"], safe="")]
        return "/".join([*parts, *([subresource] if subresource else [])])

    async def _create_or_replace(self, manifest: JsonObject, namespace: str) -> dict[str, Any]:
        try:
            return await self._create(manifest, namespace, {})
        except StatusError as exc:
            if exc.reason != "AlreadyExists":
                raise
        return await self.replace(manifest, namespace=namespace)

    async def _create(
        self, manifest: JsonObject, namespace: str, query: Mapping[str, str]
    ) -> dict[str, Any]:
        api_version, metadata = manifest["apiVersion"], manifest.get("metadata") or {}
        plural, namespaced = await self._kind(api_version, manifest["kind"])
        named = metadata.get("namespace") if isinstance(metadata, Mapping) else None
        path = _collection(api_version, plural, (named or namespace) if namespaced else "")
        return dict(await self.request("POST", path, query=_strict(query), body=dict(manifest)))

    async def _kind(self, api_version: str, kind: str) -> tuple[str, bool]:
        """Plural and whether it is namespaced, from discovery; kinds are remembered."""
        if (api_version, kind) not in self._kinds:
            listed = await self.request("GET", _root(api_version))
            for resource in listed["resources"]:
                if "/" not in resource["name"]:
                    found = (resource["name"], resource["namespaced"])
                    self._kinds[(api_version, resource["kind"])] = found
        if (api_version, kind) not in self._kinds:
            answer = {"reason": "NotFound", "message": f"no kind {kind} in {api_version}"}
            raise StatusError("discovery", 404, answer)
        return self._kinds[(api_version, kind)]

    async def _served(self, crds: Iterable[JsonObject]) -> None:
        """Wait until the kinds of CRDs are established and in discovery."""
        for crd in crds:
            spec = crd["spec"]
            for version in spec["versions"]:
                if version["served"]:
                    api_version = f"{spec['group']}/{version['name']}"
                    await self._is_served(crd, api_version, spec["names"]["kind"])

    async def _is_served(self, crd: JsonObject, api_version: str, kind: str) -> None:
        deadline = time.monotonic() + SERVED_SECONDS
        while True:
            present = await self.get(crd)
            # A CRD that is seconds old may have a status, and null for its conditions.
            conditions = (present.get("status") or {}).get("conditions") or ()
            established = any(
                c["type"] == "Established" and c["status"] == "True" for c in conditions
            )
            try:
                plural, _ = await self._kind(api_version, kind)
                if established:
                    await self.request("GET", _collection(api_version, plural, ""))
                    return
            except StatusError as exc:
                if exc.status != 404:
                    raise
            if time.monotonic() > deadline:
                raise TimeoutError(f"{api_version} {kind} is not served: {conditions}")
            await asyncio.sleep(0.02)


def user_subject(name: str) -> dict[str, str]:
    """An RBAC subject: a user."""
    return {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": name}


def service_account_subject(name: str, namespace: str) -> dict[str, str]:
    """An RBAC subject: a ServiceAccount."""
    return {"kind": "ServiceAccount", "name": name, "namespace": namespace}


def _root(api_version: str) -> str:
    return f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"


def _collection(api_version: str, plural: str, namespace: str) -> str:
    place = f"/namespaces/{quote(namespace, safe='')}" if namespace else ""
    return f"{_root(api_version)}{place}/{plural}"


def _strict(query: Mapping[str, str]) -> dict[str, str]:
    return {**query, "fieldValidation": "Strict", "fieldManager": FIELD_MANAGER}
