"""Rules for inference pools and for what gateways make of them, those of Istio included.

What the gateway says on its connection to an endpoint picker is compared with what the picker's
command line makes it speak, not with how our own overlays are written.
"""

import re
from collections.abc import Iterator

from manifest_objects import Field, KubeObject, Objects
from picker_facts import (
    Picker,
    PickerReference,
    picker_reference,
    pickers_of,
    pickers_of_pool,
    pods_of_pool,
    pods_of_service,
)

POOL_GROUP = "inference.networking.k8s.io"
POOL_GROUPS = (POOL_GROUP, "inference.networking.x-k8s.io")
GATEWAY_LABEL = "gateway.networking.k8s.io/gateway-name"
ISTIO_CLASSES = ("istio", "istio-remote")

HTTP2_PROTOCOLS = frozenset({"http2", "grpc", "grpc-web", "kubernetes.io/h2c"})
"""Values of ``appProtocol`` that make Istio speak HTTP/2."""

_HTTP2_PREFIXES = ("http2-", "grpc-", "grpc-web-")
_TLS_MODES = frozenset({"SIMPLE", "MUTUAL"})
_SERVICE_HOST = re.compile(r"(?P<name>[a-z0-9-]+)(\.(?P<namespace>[a-z0-9-]+)\.svc(\..+)?)?")
_IP_ADDRESS = re.compile(r"[\d.]+|.*:.*")
_ENVOY_CLUSTERS = re.compile(r".*\|.*|BlackHoleCluster|PassthroughCluster|xds-grpc|sds-grpc|agent")
"""Clusters that Istio has by itself."""


def pool(objects: Objects, found: KubeObject) -> Iterator[str]:
    """A pool has pods with its ports, and an endpoint picker that is asked at a port that is there."""
    if found.group not in POOL_GROUPS:
        return
    pods = pods_of_pool(objects, found)
    if not pods:
        yield f"{found.label}: selects no pods"
    old = found.spec.get("targetPortNumber")
    current = [port.get("number") for port in found.spec.get("targetPorts").entries()]
    for number in [old] if old.present else current:
        if any(template.lacks_port(number.number()) for template in pods):
            yield f"{found.label}: its pods have no port {number.number()}"
    reference = picker_reference(found)
    if reference is not None:
        name, port = reference.name, reference.port
        yield from service_port(objects, found, name, port, found.namespace)
        yield from _others_behind(objects, found, reference)
        yield from _istio_needs(objects, found, reference)


def _others_behind(
    objects: Objects, found: KubeObject, reference: PickerReference
) -> Iterator[str]:
    """The Service of an endpoint picker has no pods but those of pickers of this pool."""
    service = objects.find("Service", reference.name, found.namespace)
    for pods in pods_of_service(objects, service) if service else ():
        served = [picker.pool_name for picker in pickers_of(pods)]
        if served and found.name not in served:
            other = f"the pods of {pods.workload.label}, which serves InferencePool {served[0]}"
            yield f"{found.label}: Service {reference.name} picks {other}"


def _istio_needs(objects: Objects, found: KubeObject, reference: PickerReference) -> Iterator[str]:
    """Behind Istio an endpoint picker with TLS needs a DestinationRule."""
    rules = [
        rule
        for rule in objects.of_kind("DestinationRule")
        if _service_of(rule.spec.get("host").text(), rule.namespace)
        == (reference.name, found.namespace)
    ]
    known = objects.is_external(found, "DestinationRule", reference.name, found.namespace)
    if rules or known or not _is_behind_istio(objects, found):
        return
    for picker in pickers_of_pool(objects, found):
        if picker.serves_tls:
            label = picker.pods.workload.label
            yield (
                f"{found.label}: no DestinationRule for Service {reference.name}, so Istio speaks "
                f"plain text to {label}, which expects TLS"
            )


def _is_behind_istio(objects: Objects, found: KubeObject) -> bool:
    for route in objects.of_kind("HTTPRoute", "GRPCRoute"):
        backends = [
            _reference_target(backend, route)
            for rule in route.spec.get("rules").entries()
            for backend in rule.get("backendRefs").entries()
            if backend.get("kind").value == "InferencePool"
        ]
        if (found.name, found.namespace) not in backends:
            continue
        for parent in route.spec.get("parentRefs").entries():
            gateway = objects.find("Gateway", *_reference_target(parent, route))
            if gateway and gateway.spec.get("gatewayClassName").value in ISTIO_CLASSES:
                return True
    return False


def _reference_target(reference: Field, referrer: KubeObject) -> tuple[str, str]:
    """Name and namespace of what a Gateway API reference means."""
    return reference.get("name").text(), reference.get("namespace").text(referrer.namespace)


def model(objects: Objects, found: KubeObject) -> Iterator[str]:
    """An InferenceModel refers to a pool, whichever generation it is of if it does not say."""
    yield from _pool_reference(objects, found, found.spec.get("poolRef"), found.namespace)


def pool_user(objects: Objects, found: KubeObject) -> Iterator[str]:
    """An InferenceObjective or InferenceModelRewrite refers to a pool of v1 if it does not say."""
    reference = found.spec.get("poolRef")
    yield from _pool_reference(objects, found, reference, found.namespace, POOL_GROUP)


def _pool_reference(
    objects: Objects,
    referrer: KubeObject,
    reference: Field,
    namespace: str,
    default_group: str | None = None,
) -> Iterator[str]:
    name = reference.get("name").text()
    yield from objects.missing(referrer, "InferencePool", name, namespace)
    given = reference.get("group")
    group = given.text() if given.present else default_group
    groups = [
        other.group
        for other in objects.of_kind("InferencePool")
        if (other.name, other.namespace) == (name, namespace)
    ]
    if groups and group is not None and group not in groups:
        label = f"InferencePool {namespace}/{name}" if namespace else f"InferencePool {name}"
        yield f"{referrer.label}: {label} is not of group {group or '(core)'}"


def route(objects: Objects, found: KubeObject) -> Iterator[str]:
    """Gateways and backends of a route are there, and the gateway lets the route in."""
    for parent in found.spec.get("parentRefs").entries():
        kind = parent.get("kind").text("Gateway")
        name, namespace = _reference_target(parent, found)
        yield from objects.missing(found, kind, name, namespace)
        gateway = objects.find("Gateway", name, namespace) if kind == "Gateway" else None
        if gateway:
            yield from _attachment(found, parent, gateway)
    for rule in found.spec.get("rules").entries():
        for backend in rule.get("backendRefs").entries():
            name, namespace = _reference_target(backend, found)
            kind = backend.get("kind").text("Service")
            if kind == "Service":
                port = backend.get("port").number()
                yield from service_port(objects, found, name, port, namespace)
            elif kind == "InferencePool":
                yield from _pool_reference(objects, found, backend, namespace, default_group="")
            else:
                yield from objects.missing(found, kind, name, namespace)


def _attachment(found: KubeObject, parent: Field, gateway: KubeObject) -> Iterator[str]:
    section, port = parent.get("sectionName"), parent.get("port")
    listeners = [
        listener
        for listener in gateway.spec.get("listeners").entries()
        if not section.present or listener.get("name").text() == section.text()
        if not port.present or listener.get("port").number() == port.number()
    ]
    if not listeners:
        wanted = f"{section.text('of any name')}, port {port.value or 'any'}"
        yield f"{found.label}: {gateway.label} has no listener {wanted}"
    elif gateway.namespace != found.namespace and not any(
        listener.get("allowedRoutes", "namespaces", "from").text("Same") != "Same"
        for listener in listeners
    ):
        yield f"{found.label}: {gateway.label} takes routes of its own namespace only"


def service_port(
    objects: Objects, referrer: KubeObject, name: str, number: int, namespace: str
) -> Iterator[str]:
    """A problem when there is no such Service, or it has no such port."""
    yield from objects.missing(referrer, "Service", name, namespace)
    service = objects.find("Service", name, namespace)
    if service and _port_of(service, number) is None:
        yield f"{referrer.label}: {service.label} has no port {number}"


def _port_of(service: KubeObject, number: int) -> Field | None:
    for port in service.spec.get("ports").entries():
        if port.get("port").number() == number:
            return port
    return None


def _service_of(host: str, namespace: str) -> tuple[str, str] | None:
    """Name and namespace of the Service that a host of Istio means; None for any other host."""
    match = _SERVICE_HOST.fullmatch(host)
    return match and (match["name"], match["namespace"] or namespace)


def destination_rule(objects: Objects, found: KubeObject) -> Iterator[str]:
    """A DestinationRule is for a Service that is there, and speaks as an endpoint picker does."""
    target = _service_of(found.spec.get("host").text(), found.namespace)
    if target is None:
        return
    yield from objects.missing(found, "Service", *target)
    for pool_found in objects.of_kind("InferencePool"):
        reference = picker_reference(pool_found)
        if reference is None or (reference.name, pool_found.namespace) != target:
            continue
        tls = _tls_of(found, reference.port)
        for picker in pickers_of_pool(objects, pool_found):
            yield from _tls_problems(found, tls, picker)
        service = objects.find("Service", *target)
        port = service and _port_of(service, reference.port)
        if service and port and not _is_http2(port):
            yield (
                f"{service.label}: appProtocol of port {reference.port} is not http2 or grpc, so "
                f"Istio speaks HTTP/1.1 to the endpoint picker of {pool_found.label}"
            )


def _tls_of(found: KubeObject, port: int) -> Field:
    """TLS settings for a port; those of the port come first."""
    policy = found.spec.get("trafficPolicy")
    for setting in policy.get("portLevelSettings").entries():
        if setting.get("port", "number").number() == port:
            return setting.get("tls")
    return policy.get("tls")


def _tls_problems(found: KubeObject, tls: Field, picker: Picker) -> Iterator[str]:
    mode = tls.get("mode").text("DISABLE")
    label = picker.pods.workload.label
    if mode in _TLS_MODES and not picker.serves_tls:
        yield f"{found.label}: TLS mode {mode}, but {label} serves plain text"
    elif mode not in _TLS_MODES and picker.serves_tls:
        yield f"{found.label}: TLS mode {mode}, but {label} serves TLS: SIMPLE is needed"
    elif (
        picker.serves_tls
        and picker.is_self_signed
        and tls.get("insecureSkipVerify").value is not True
    ):
        yield (
            f"{found.label}: insecureSkipVerify is not true, but the certificate of {label} is "
            "self-signed"
        )


def _is_http2(port: Field) -> bool:
    protocol = port.get("appProtocol")
    if protocol.present:
        return protocol.text() in HTTP2_PROTOCOLS
    name = port.get("name").text("")
    return name in HTTP2_PROTOCOLS or name.startswith(_HTTP2_PREFIXES)


def envoy_filter(objects: Objects, found: KubeObject) -> Iterator[str]:
    """Gateway, clusters and addresses of an EnvoyFilter are there."""
    gateway = found.spec.get("workloadSelector", "labels", GATEWAY_LABEL)
    if gateway.present:
        yield from objects.missing(found, "Gateway", gateway.text(), found.namespace)
    added = _added_clusters(objects)
    patches = found.spec.get("configPatches")
    for name in _values(patches, "cluster_name"):
        if name.text() not in added and not _ENVOY_CLUSTERS.fullmatch(name.text()):
            yield f"{found.label}: nobody adds cluster {name.text()}"
    for endpoint in _values(patches, "endpoint"):
        address = endpoint.get("address", "socket_address")
        target = _service_of(address.get("address").text(""), found.namespace)
        if target is None or _IP_ADDRESS.fullmatch(address.get("address").text("")):
            continue
        ports = (address.get("port_value"), endpoint.get("health_check_config", "port_value"))
        for port in ports:
            if port.present:
                yield from service_port(objects, found, target[0], port.number(), target[1])


def _added_clusters(objects: Objects) -> set[str]:
    return {
        patch.get("patch", "value", "name").text()
        for found in objects.of_kind("EnvoyFilter")
        for patch in found.spec.get("configPatches").entries()
        if patch.get("applyTo").value == "CLUSTER"
        and patch.get("patch", "operation").value == "ADD"
    }


def _values(field: Field, key: str) -> Iterator[Field]:
    """Every value of a key, however deep."""
    if isinstance(field.value, dict):
        found = field.get(key)
        if found.present:
            yield found
        for name in field.value:
            yield from _values(field.get(name), key)
    elif isinstance(field.value, list):
        for entry in field.entries():
            yield from _values(entry, key)


RULES = (
    (("InferencePool",), pool),
    (("InferenceModel",), model),
    (("InferenceObjective", "InferenceModelRewrite"), pool_user),
    (("HTTPRoute", "GRPCRoute"), route),
    (("DestinationRule",), destination_rule),
    (("EnvoyFilter",), envoy_filter),
)
"""Kinds, and what is asked of each object of them."""
