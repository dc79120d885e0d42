"""Rules for the kinds of Kubernetes itself: what they refer to is there, and selectors pick something."""

from collections.abc import Iterator

from manifest_objects import (
    WORKLOAD_KINDS,
    Field,
    KubeObject,
    Objects,
    PodTemplate,
    by_selector,
)
from picker_facts import pods_of_service

SERVICE_ACCOUNT_ANNOTATION = "kubernetes.io/service-account.name"
PROBES = ("startupProbe", "livenessProbe", "readinessProbe")

_CLUSTER_KINDS = frozenset(
    {
        "APIService",
        "CertificateSigningRequest",
        "CustomResourceDefinition",
        "FlowSchema",
        "MutatingAdmissionPolicy",
        "MutatingAdmissionPolicyBinding",
        "MutatingWebhookConfiguration",
        "Namespace",
        "Node",
        "PersistentVolume",
        "PriorityLevelConfiguration",
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding",
        "ValidatingWebhookConfiguration",
    }
)
_WITH_SELECTOR = frozenset({"Deployment", "StatefulSet", "DaemonSet", "ReplicaSet"})
_VOLUME_REFERENCES = (("configMap", "name", "ConfigMap"), ("secret", "secretName", "Secret"))
_ENVIRONMENT_REFERENCES = (
    ("configMapKeyRef", "ConfigMap"),
    ("secretKeyRef", "Secret"),
    ("configMapRef", "ConfigMap"),
    ("secretRef", "Secret"),
)


def identity(objects: Objects, found: KubeObject) -> Iterator[str]:
    """An object is there once, in a namespace that is there."""
    same = [
        other
        for other in objects.of_kind(found.kind)
        if (other.group, other.namespace, other.name) == (found.group, found.namespace, found.name)
    ]
    if len(same) > 1:
        yield f"{found.label}: is there {len(same)} times"
    if _is_of_cluster_scope(found.kind):
        return
    if found.namespace:
        yield from objects.missing(found, "Namespace", found.namespace, "")
    else:
        yield f"{found.label}: has no namespace"


def _is_of_cluster_scope(kind: str) -> bool:
    """By name where the kind is not one of Kubernetes: ClusterIssuer, GatewayClass."""
    return kind in _CLUSTER_KINDS or kind.startswith("Cluster") or kind.endswith("Class")


def binding(objects: Objects, found: KubeObject) -> Iterator[str]:
    """Role and ServiceAccounts of a binding are there."""
    role = found.root.get("roleRef")
    kind = role.get("kind").text()
    scope = found.namespace if kind == "Role" else ""
    yield from objects.missing(found, kind, role.get("name").text(), scope)
    for subject in found.root.get("subjects").entries():
        if subject.get("kind").text() == "ServiceAccount":
            namespace = subject.get("namespace").text(found.namespace)
            name = subject.get("name").text()
            yield from objects.missing(found, "ServiceAccount", name, namespace)


def token(objects: Objects, found: KubeObject) -> Iterator[str]:
    """A token is of a ServiceAccount that is there."""
    if found.root.get("type").value == "kubernetes.io/service-account-token":
        account = found.root.get("metadata", "annotations", SERVICE_ACCOUNT_ANNOTATION).text()
        yield from objects.missing(found, "ServiceAccount", account, found.namespace)


def workload(objects: Objects, found: KubeObject) -> Iterator[str]:
    """Whatever the pods of a workload name is there, and selectors pick those pods."""
    for template in objects.templates(found):
        selector = found.spec.get("selector")
        if found.kind in _WITH_SELECTOR and not _picks(selector, template):
            yield f"{found.label}: its selector does not pick its own pods"
        for spread in template.spec.get("topologySpreadConstraints").entries():
            chosen = spread.get("labelSelector")
            if chosen.present and not by_selector(chosen)(template.labels):
                yield f"{found.label}: a topologySpreadConstraint does not pick its own pods"
        account = template.spec.get("serviceAccountName")
        if account.present:
            yield from objects.missing(found, "ServiceAccount", account.text(), found.namespace)
        for kind, name in _pod_references(template):
            yield from objects.missing(found, kind, name, found.namespace)
        yield from (f"{found.label}: {problem}" for problem in _pod_problems(found, template))


def _picks(selector: Field, template: PodTemplate) -> bool:
    return bool(selector.mapping()) and by_selector(selector)(template.labels)


def _pod_references(template: PodTemplate) -> Iterator[tuple[str, str]]:
    """Kind and name of what volumes and environment are filled from."""
    for volume in template.spec.get("volumes").entries():
        for key, name, kind in _VOLUME_REFERENCES:
            yield from _needed(volume.get(key), name, kind)
        claim = volume.get("persistentVolumeClaim")
        yield from _needed(claim, "claimName", "PersistentVolumeClaim")
        for source in volume.get("projected", "sources").entries():
            yield from _needed(source.get("configMap"), "name", "ConfigMap")
            yield from _needed(source.get("secret"), "name", "Secret")
    for container in template.containers():
        sources = [variable.get("valueFrom") for variable in container.get("env").entries()]
        for source in (*sources, *container.get("envFrom").entries()):
            for key, kind in _ENVIRONMENT_REFERENCES:
                yield from _needed(source.get(key), "name", kind)


def _needed(reference: Field, name: str, kind: str) -> Iterator[tuple[str, str]]:
    if reference.present and reference.get("optional").value is not True:
        yield kind, reference.get(name).text()


def _pod_problems(found: KubeObject, template: PodTemplate) -> Iterator[str]:
    volumes = {volume.get("name").text() for volume in template.spec.get("volumes").entries()}
    claims = {
        claim.get("metadata", "name").text()
        for claim in found.spec.get("volumeClaimTemplates").entries()
    }
    mounted: set[str] = set()
    for container in template.containers():
        name = container.get("name").text()
        entries = [
            *container.get("volumeMounts").entries(),
            *container.get("volumeDevices").entries(),
        ]
        mounts = {mount.get("name").text() for mount in entries}
        mounted |= mounts
        nowhere = sorted(mounts - volumes - claims)
        yield from (f"{name} mounts {mount}, no volume" for mount in nowhere)
        yield from _probe_problems(name, container)
    yield from (f"volume {name} is not used" for name in sorted(volumes - mounted))


def _probe_problems(name: str, container: Field) -> Iterator[str]:
    """A probe asks a port by a name, or by a number among those that are declared, if any are."""
    declared = container.get("ports").entries()
    known = {port.get("containerPort").number() for port in declared} | {
        port.get("name").text("") for port in declared
    }
    for kind in PROBES:
        for action in ("httpGet", "tcpSocket", "grpc"):
            field = container.get(kind, action, "port")
            if (
                field.present
                and field.port() not in known
                and (declared or isinstance(field.value, str))
            ):
                yield f"the {kind} of {name} asks port {field.port()}, which it does not have"


def service(objects: Objects, found: KubeObject) -> Iterator[str]:
    """A Service with a selector picks pods, and those have its ports."""
    if not found.spec.get("selector").mapping():
        return
    pods = pods_of_service(objects, found)
    if not pods:
        yield f"{found.label}: selects no pods"
    for port in found.spec.get("ports").entries():
        target = port.get("targetPort")
        wanted = (target if target.present else port.get("port")).port()
        if any(template.lacks_port(wanted) for template in pods):
            yield f"{found.label}: its pods have no port {wanted}"


def budget(objects: Objects, found: KubeObject) -> Iterator[str]:
    """A budget picks pods, and no other budget picks them: Kubernetes would evict none of them."""
    pods = objects.pods(found.namespace, by_selector(found.spec.get("selector")))
    if not pods:
        yield f"{found.label}: selects no pods"
    for other in objects.of_kind(found.kind):
        if (other.namespace, other.name) <= (found.namespace, found.name):
            continue
        shared = objects.pods(other.namespace, by_selector(other.spec.get("selector")))
        for template in pods:
            if any(template.workload is also.workload for also in shared):
                label = template.workload.label
                yield f"{found.label}: {other.label} picks the pods of {label}, too"


RULES = (
    ((), identity),
    (("RoleBinding", "ClusterRoleBinding"), binding),
    (("Secret",), token),
    (WORKLOAD_KINDS, workload),
    (("Service",), service),
    (("PodDisruptionBudget",), budget),
)
"""Kinds, every one when none is named, and what is asked of each object of them."""
