"""ShippedAccount: the endpoint picker's ServiceAccount with exactly the rules that ``config/`` ships.

The manifests come from kustomize, with names of the test's own, so that accounts of several tests
do not share a ClusterRole. A permission can be taken away and given back; both wait until the API
server acts on it.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from epp.kube.connection_settings import ConnectionSettings, StaticAuthorization
from epp.testing.api_admin import ApiAdmin
from epp.testing.envtest import LocalControlPlane
from epp.testing.kube_manifests import Manifest
from epp.testing.stack import eventually

_OF_ACCESS = ("ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding")
_REVIEW = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "metadata": {}}


class Permission(NamedTuple):
    """One verb for one resource."""

    verb: str
    resource: str
    group: str = ""

    @property
    def qualified(self) -> str:
        """``verb resource.group``, as errors of ours spell it; a subresource stands last."""
        plural, slash, subresource = self.resource.partition("/")
        group = f".{self.group}" if self.group else ""
        return f"{self.verb} {plural}{group}{slash}{subresource}"


class ShippedAccount:
    """The account in one namespace.

    Args:
        control_plane: Where it lives.
        admin: Creates it.
        namespace: Its namespace, that of the pool.
        manifests: All that an overlay renders to; what is not about access is left out.
        name: Name of the ServiceAccount.
    """

    def __init__(
        self,
        control_plane: LocalControlPlane,
        admin: ApiAdmin,
        namespace: str,
        manifests: Iterable[Manifest],
        *,
        name: str,
    ) -> None:
        self.namespace = namespace
        self.name = name
        self.token = ""
        self._plane = control_plane
        self._admin = admin
        self._manifests = [one for one in manifests if one["kind"] in _OF_ACCESS]

    @property
    def permissions(self) -> list[Permission]:
        """All that is granted, to this account or to others of the overlay."""
        return [permission for role in self._roles for permission in _permissions(role)]

    def connection(self, server: str = "") -> ConnectionSettings:
        """How this account reaches the API server, or a proxy in front of it."""
        return ConnectionSettings(
            server=server or self._plane.url,
            ca_data=self._plane.ca_file.read_text("ascii"),
            identity=StaticAuthorization(header=f"Bearer {self.token}"),
        )

    async def create(self) -> None:
        """Create account and rules, and wait until they hold."""
        await self._admin.apply(self._manifests)
        self.token = await self.token_of(self.name)
        for role in self._roles:
            for permission in _permissions(role)[:1]:
                await self._wait(permission, allowed=True)

    async def delete(self) -> None:
        """Delete what does not go with the namespace."""
        for manifest in self._manifests:
            if "namespace" not in manifest["metadata"]:
                await self._admin.delete(manifest)

    async def token_of(self, name: str) -> str:
        """A token of one of the overlay's accounts."""
        return await self._admin.service_account_token(name, namespace=self.namespace)

    async def revoke(self, permission: Permission) -> None:
        """Take one permission away; every other one stays."""
        await self._write(permission)
        await self._wait(permission, allowed=False)

    async def grant(self, permission: Permission) -> None:
        """Give it back."""
        await self._write(None)
        await self._wait(permission, allowed=True)

    @property
    def _roles(self) -> Sequence[Manifest]:
        return [one for one in self._manifests if one["kind"] in {"Role", "ClusterRole"}]

    async def _write(self, without: Permission | None) -> None:
        for role in self._roles:
            rules = [part for rule in role["rules"] for part in _without(rule, without)]
            await self._admin.replace({**role, "rules": rules})

    async def _wait(self, permission: Permission, *, allowed: bool) -> None:
        resource, _, subresource = permission.resource.partition("/")
        attributes = {
            "namespace": self.namespace,
            "verb": permission.verb,
            "group": permission.group,
            "resource": resource,
            "subresource": subresource,
        }
        user = f"system:serviceaccount:{self.namespace}:{self.name}"
        spec: dict[str, Any] = {"user": user, "resourceAttributes": attributes}

        async def holds() -> bool:
            review = await self._admin.create({**_REVIEW, "spec": spec})
            return bool(review["status"]["allowed"]) == allowed

        await eventually(holds, what=f"{permission.qualified} allowed={allowed}")


def pool_account(
    control_plane: LocalControlPlane, admin: ApiAdmin, manifests: Iterable[Manifest]
) -> ShippedAccount:
    """The account that the Deployment of an overlay runs as."""
    found = list(manifests)
    (deployment,) = [
        one
        for one in found
        if one["kind"] == "Deployment"
        and one["spec"]["template"]["spec"].get("automountServiceAccountToken")
    ]
    return ShippedAccount(
        control_plane,
        admin,
        deployment["metadata"]["namespace"],
        found,
        name=deployment["spec"]["template"]["spec"]["serviceAccountName"],
    )


def _permissions(role: Manifest) -> list[Permission]:
    return [
        Permission(verb, resource, group)
        for rule in role["rules"]
        for group in rule.get("apiGroups", ())
        for resource in rule.get("resources", ())
        for verb in rule["verbs"]
    ]


def _without(rule: Manifest, gone: Permission | None) -> list[Manifest]:
    """A rule without one permission, as rules of one group and resource each."""
    if gone is None or not (
        gone.group in rule.get("apiGroups", ()) and gone.resource in rule.get("resources", ())
    ):
        return [rule]
    parts = []
    for group in rule["apiGroups"]:
        for resource in rule["resources"]:
            hit = (group, resource) == (gone.group, gone.resource)
            verbs = [verb for verb in rule["verbs"] if not (hit and verb == gone.verb)]
            if verbs:
                parts.append({"apiGroups": [group], "resources": [resource], "verbs": verbs})
    return parts


def named(manifests: Iterable[Manifest], kind: str, suffix: str) -> Manifest:
    """The only object of a kind whose name ends so: prefixes are the test's."""
    (found,) = [
        one for one in manifests if one["kind"] == kind and one["metadata"]["name"].endswith(suffix)
    ]
    return found
