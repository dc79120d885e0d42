"""Check that everything that rendered manifests refer to is there, with the ports and labels meant.

``kustomize build config/default | python hack/lint_manifests.py`` prints one line for each problem;
``--external Secret/mine`` names what is there without being rendered, and may be repeated.
It knows the kinds that ``config/`` uses, and nothing of what a kind admits: that is for the API
server to say. Each rule is a generator over the objects; ``problems`` runs them all.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import yaml

Manifest = dict[str, Any]
Labels = Mapping[str, str]

CLUSTER_KINDS = frozenset({"Namespace", "ClusterRole", "ClusterRoleBinding"})
GATEWAY_LABEL = "gateway.networking.k8s.io/gateway-name"
SERVICE_ACCOUNT_ANNOTATION = "kubernetes.io/service-account.name"


class Objects:
    """The manifests of one output.

    Args:
        manifests: Every object.
        external: Kind and name of what may be referred to without being there.
    """

    def __init__(
        self, manifests: Collection[Manifest], external: Collection[tuple[str, str]] = ()
    ) -> None:
        self.all = manifests
        self._external = frozenset(external)

    def of_kind(self, *kinds: str) -> list[Manifest]:
        """Every object of these kinds."""
        return [manifest for manifest in self.all if manifest["kind"] in kinds]

    def find(self, kind: str, name: str, namespace: str) -> Manifest | None:
        """The object of that name, if there is one."""
        for manifest in self.of_kind(kind):
            if manifest["metadata"]["name"] == name and namespace_of(manifest) == namespace:
                return manifest
        return None

    def missing(self, referrer: Manifest, kind: str, name: str, namespace: str) -> Iterator[str]:
        """A problem when there is neither such an object nor an external one."""
        if self.find(kind, name, namespace) is None and (kind, name) not in self._external:
            where = f"{namespace}/{name}" if namespace else name
            yield f"{label_of(referrer)}: there is no {kind} {where}"

    def pods(self, namespace: str, selector: Labels) -> list[Manifest]:
        """Pod templates that a selector picks; an empty one picks nothing."""
        return [
            template
            for workload in self.of_kind("Deployment")
            if namespace_of(workload) == namespace
            for template in [workload["spec"]["template"]]
            if selector and selector.items() <= template["metadata"]["labels"].items()
        ]


Rule = Callable[[Objects], Iterator[str]]


def namespace_of(manifest: Manifest) -> str:
    """Namespace; empty for an object of cluster scope."""
    return str(manifest["metadata"].get("namespace", ""))


def label_of(manifest: Manifest) -> str:
    """``Service inference/epp``."""
    namespace = namespace_of(manifest)
    name = manifest["metadata"]["name"]
    return f"{manifest['kind']} {namespace}/{name}" if namespace else f"{manifest['kind']} {name}"


def problems(
    manifests: Collection[Manifest], external: Collection[tuple[str, str]] = ()
) -> list[str]:
    """One line for each reference that leads nowhere; empty when all is well."""
    objects = Objects(manifests, external)
    return [problem for rule in RULES for problem in rule(objects)]


def _identities(objects: Objects) -> Iterator[str]:
    counts = Counter(label_of(manifest) for manifest in objects.all)
    yield from (f"{label}: is there {count} times" for label, count in counts.items() if count > 1)
    for manifest in objects.all:
        namespace = namespace_of(manifest)
        if manifest["kind"] in CLUSTER_KINDS:
            continue
        if not namespace:
            yield f"{label_of(manifest)}: has no namespace"
        else:
            yield from objects.missing(manifest, "Namespace", namespace, "")


def _bindings(objects: Objects) -> Iterator[str]:
    for binding in objects.of_kind("RoleBinding", "ClusterRoleBinding"):
        role = binding["roleRef"]
        scope = namespace_of(binding) if role["kind"] == "Role" else ""
        yield from objects.missing(binding, role["kind"], role["name"], scope)
        for subject in binding["subjects"]:
            namespace = subject.get("namespace", "")
            yield from objects.missing(binding, subject["kind"], subject["name"], namespace)
    for secret in objects.of_kind("Secret"):
        if secret.get("type") == "kubernetes.io/service-account-token":
            name = secret["metadata"]["annotations"][SERVICE_ACCOUNT_ANNOTATION]
            yield from objects.missing(secret, "ServiceAccount", name, namespace_of(secret))


def _workloads(objects: Objects) -> Iterator[str]:
    for workload in objects.of_kind("Deployment"):
        label, namespace = label_of(workload), namespace_of(workload)
        template = workload["spec"]["template"]
        pod, labels = template["spec"], template["metadata"]["labels"]
        if not _selects(workload["spec"]["selector"], labels):
            yield f"{label}: its selector does not pick its own pods"
        for spread in pod.get("topologySpreadConstraints", ()):
            if not _selects(spread["labelSelector"], labels):
                yield f"{label}: a topologySpreadConstraint does not pick its own pods"
        if "serviceAccountName" in pod:
            name = pod["serviceAccountName"]
            yield from objects.missing(workload, "ServiceAccount", name, namespace)
        for volume in pod.get("volumes", ()):
            if "configMap" in volume:
                name = volume["configMap"]["name"]
                yield from objects.missing(workload, "ConfigMap", name, namespace)
            if "secret" in volume:
                name = volume["secret"]["secretName"]
                yield from objects.missing(workload, "Secret", name, namespace)
        yield from (f"{label}: {problem}" for problem in _pod_problems(pod))


def _pod_problems(pod: Manifest) -> Iterator[str]:
    volumes = {volume["name"] for volume in pod.get("volumes", ())}
    mounted: set[str] = set()
    for container in (*pod.get("initContainers", ()), *pod["containers"]):
        name = container["name"]
        mounts = {mount["name"] for mount in container.get("volumeMounts", ())}
        mounted |= mounts
        yield from (f"{name} mounts {mount}, no volume" for mount in sorted(mounts - volumes))
        ports = _container_ports(container)
        for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
            for action in (container.get(kind) or {}).values():
                port = action.get("port") if isinstance(action, dict) else None
                if port is not None and port not in ports:
                    yield f"the {kind} of {name} asks port {port}, which it does not have"
    yield from (f"volume {name} is not used" for name in sorted(volumes - mounted))


def _services(objects: Objects) -> Iterator[str]:
    for service in objects.of_kind("Service"):
        label, spec = label_of(service), service["spec"]
        pods = objects.pods(namespace_of(service), spec["selector"])
        if not pods:
            yield f"{label}: selects no pods"
        for port in spec["ports"]:
            target = port.get("targetPort", port["port"])
            if any(target not in _pod_ports(pod) for pod in pods):
                yield f"{label}: its pods have no port {target}"
    for budget in objects.of_kind("PodDisruptionBudget"):
        if not objects.pods(namespace_of(budget), budget["spec"]["selector"]["matchLabels"]):
            yield f"{label_of(budget)}: selects no pods"


def _pools(objects: Objects) -> Iterator[str]:
    for pool in objects.of_kind("InferencePool"):
        label, namespace, spec = label_of(pool), namespace_of(pool), pool["spec"]
        pods = objects.pods(namespace, spec["selector"]["matchLabels"])
        if not pods:
            yield f"{label}: selects no pods"
        for port in spec["targetPorts"]:
            if any(port["number"] not in _pod_ports(pod) for pod in pods):
                yield f"{label}: its pods have no port {port['number']}"
        picker = spec["endpointPickerRef"]
        yield from _service_port(objects, pool, picker["name"], picker["port"]["number"])
    for referrer in objects.of_kind(
        "InferenceModel", "InferenceObjective", "InferenceModelRewrite"
    ):
        yield from _pool_reference(objects, referrer, referrer["spec"]["poolRef"])


def _pickers(objects: Objects) -> Iterator[str]:
    """An endpoint picker serves the pool that refers to it, whatever either is called."""
    for workload in objects.of_kind("Deployment"):
        for container in workload["spec"]["template"]["spec"]["containers"]:
            arguments = container.get("args", [])
            if "--pool-name" not in arguments:
                continue
            name = arguments[arguments.index("--pool-name") + 1]
            namespace = namespace_of(workload)
            yield from objects.missing(workload, "InferencePool", name, namespace)
            pool = objects.find("InferencePool", name, namespace)
            if pool is not None and not _is_picker_of(objects, workload, pool):
                yield f"{label_of(workload)}: {label_of(pool)} refers to another endpoint picker"


def _is_picker_of(objects: Objects, workload: Manifest, pool: Manifest) -> bool:
    name = pool["spec"]["endpointPickerRef"]["name"]
    service = objects.find("Service", name, namespace_of(pool))
    if service is None:
        return False
    pods = objects.pods(namespace_of(service), service["spec"]["selector"])
    return any(pod is workload["spec"]["template"] for pod in pods)


def _routes(objects: Objects) -> Iterator[str]:
    for route in objects.of_kind("HTTPRoute"):
        namespace = namespace_of(route)
        for parent in route["spec"]["parentRefs"]:
            yield from objects.missing(route, "Gateway", parent["name"], namespace)
        for rule in route["spec"]["rules"]:
            for backend in rule["backendRefs"]:
                if backend.get("kind", "Service") == "Service":
                    yield from _service_port(objects, route, backend["name"], backend["port"])
                else:
                    yield from _pool_reference(objects, route, backend)


def _istio(objects: Objects) -> Iterator[str]:
    for rule in objects.of_kind("DestinationRule"):
        yield from objects.missing(rule, "Service", rule["spec"]["host"], namespace_of(rule))
    filters = objects.of_kind("EnvoyFilter")
    clusters = {
        patch["patch"]["value"]["name"]
        for envoy_filter in filters
        for patch in envoy_filter["spec"]["configPatches"]
        if (patch["applyTo"], patch["patch"]["operation"]) == ("CLUSTER", "ADD")
    }
    for envoy_filter in filters:
        gateway = envoy_filter["spec"]["workloadSelector"]["labels"][GATEWAY_LABEL]
        yield from objects.missing(envoy_filter, "Gateway", gateway, namespace_of(envoy_filter))
        patches = envoy_filter["spec"]["configPatches"]
        for name in _values(patches, "cluster_name"):
            if name not in clusters:
                yield f"{label_of(envoy_filter)}: nobody adds cluster {name}"
        for endpoint in _values(patches, "endpoint"):
            address = endpoint["address"]["socket_address"]
            for port in (address["port_value"], endpoint["health_check_config"]["port_value"]):
                yield from _service_port(objects, envoy_filter, address["address"], port)


def _monitors(objects: Objects) -> Iterator[str]:
    for monitor in objects.of_kind("ServiceMonitor"):
        namespace = namespace_of(monitor)
        selector = monitor["spec"]["selector"]
        services = [
            service
            for service in objects.of_kind("Service")
            if namespace_of(service) == namespace
            and _selects(selector, service["metadata"].get("labels", {}))
        ]
        if not services:
            yield f"{label_of(monitor)}: selects no Service"
        for endpoint in monitor["spec"]["endpoints"]:
            names = {port["name"] for service in services for port in service["spec"]["ports"]}
            if endpoint["port"] not in names:
                yield f"{label_of(monitor)}: its Services have no port {endpoint['port']}"
            secret = endpoint["authorization"]["credentials"]["name"]
            yield from objects.missing(monitor, "Secret", secret, namespace)


def _pool_reference(objects: Objects, referrer: Manifest, reference: Manifest) -> Iterator[str]:
    namespace = namespace_of(referrer)
    yield from objects.missing(referrer, "InferencePool", reference["name"], namespace)
    pool = objects.find("InferencePool", reference["name"], namespace)
    if pool is not None and not pool["apiVersion"].startswith(f"{reference.get('group')}/"):
        yield f"{label_of(referrer)}: {label_of(pool)} is not of group {reference.get('group')}"


def _service_port(objects: Objects, referrer: Manifest, name: str, number: int) -> Iterator[str]:
    namespace = namespace_of(referrer)
    yield from objects.missing(referrer, "Service", name, namespace)
    service = objects.find("Service", name, namespace)
    if service and number not in {port["port"] for port in service["spec"]["ports"]}:
        yield f"{label_of(referrer)}: {label_of(service)} has no port {number}"


def _selects(selector: Manifest, labels: Labels) -> bool:
    wanted = selector["matchLabels"]
    return bool(wanted) and wanted.items() <= labels.items()


def _pod_ports(template: Manifest) -> set[int | str]:
    return {port for c in template["spec"]["containers"] for port in _container_ports(c)}


def _container_ports(container: Manifest) -> set[int | str]:
    ports = container.get("ports", ())
    return {port["containerPort"] for port in ports} | {port["name"] for port in ports}


def _values(node: object, key: str) -> Iterator[Any]:
    """Every value of a key, however deep."""
    if isinstance(node, dict):
        if key in node:
            yield node[key]
        node = list(node.values())
    if isinstance(node, list):
        for child in node:
            yield from _values(child, key)


RULES: tuple[Rule, ...] = (
    _identities,
    _bindings,
    _workloads,
    _services,
    _pools,
    _pickers,
    _routes,
    _istio,
    _monitors,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Check what comes on standard input; 1 when something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--external", action="append", default=[], metavar="KIND/NAME")
    names = [name.partition("/") for name in parser.parse_args(argv).external]
    manifests = [document for document in yaml.safe_load_all(sys.stdin) if document]
    found = problems(manifests, [(kind, name) for kind, _, name in names])
    for problem in found:
        print(problem, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
