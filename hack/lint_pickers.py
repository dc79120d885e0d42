"""Rules for endpoint pickers, and for what must agree with their command line."""

from collections.abc import Iterator

from manifest_objects import WORKLOAD_KINDS, Field, KubeObject, Objects, by_selector
from picker_facts import (
    LIVENESS,
    METRICS_PATHS,
    Picker,
    pickers_of,
    pickers_of_pool,
    pods_of_service,
)

LEASES = ("coordination.k8s.io", "leases")

_SECRETS = (
    ("authorization", "credentials"),
    ("bearerTokenSecret",),
    ("basicAuth", "username"),
    ("basicAuth", "password"),
    ("tlsConfig", "ca", "secret"),
    ("tlsConfig", "cert", "secret"),
    ("tlsConfig", "keySecret"),
)
_IDENTITIES = (
    "authorization",
    "basicAuth",
    "bearerTokenFile",
    "bearerTokenSecret",
    "oauth2",
)
"""Fields of a ServiceMonitor's endpoint that say who is asking; a certificate may, too."""


def picker(objects: Objects, found: KubeObject) -> Iterator[str]:
    """An endpoint picker serves the pool that refers to it, and its pods stay alive for it."""
    for template in objects.templates(found):
        for each in pickers_of(template):
            yield from _pool_of(objects, found, each)
            if found.spec.get("replicas").value == 0:
                yield f"{found.label}: spec.replicas is 0, so nobody picks endpoints"
            if each.asks_kubernetes and not template.spec.get("serviceAccountName").present:
                path = template.spec.get("serviceAccountName").path
                yield f"{found.label}: {path} is missing, so it may neither list nor watch"
            yield from _probes(found, each)


def _pool_of(objects: Objects, found: KubeObject, each: Picker) -> Iterator[str]:
    if "$(" in each.pool_name or not each.asks_kubernetes:
        return
    yield from objects.missing(found, "InferencePool", each.pool_name, found.namespace)
    pool = objects.find("InferencePool", each.pool_name, found.namespace)
    if pool is not None and all(
        other.pods.workload is not found for other in pickers_of_pool(objects, pool)
    ):
        yield f"{found.label}: {pool.label} refers to another endpoint picker"


def _probes(found: KubeObject, each: Picker) -> Iterator[str]:
    """Waiting for a Lease or for the API server is no reason to be restarted."""
    name = each.container.get("name").text()
    alive = each.container.get("livenessProbe", "grpc")
    if alive.present and alive.get("service").text("") != LIVENESS:
        asked = alive.get("service").text("")
        yield (
            f"{found.label}: the livenessProbe of {name} asks for service {asked!r}, so who waits "
            f"for a Lease or for its first lists is restarted; {LIVENESS!r} is meant for it"
        )
    ready = each.container.get("readinessProbe", "grpc", "service")
    if ready.value == LIVENESS:
        yield (
            f"{found.label}: the readinessProbe of {name} asks for service {LIVENESS!r}, so who "
            "cannot pick yet, or does not lead, is asked"
        )


def lease_role(objects: Objects, found: KubeObject) -> Iterator[str]:
    """Where a Role names the Lease that may be written, it is that of an endpoint picker."""
    group, resource = LEASES
    for rule in found.root.get("rules").entries():
        named = rule.get("resourceNames").texts()
        if not named or group not in rule.get("apiGroups").texts():
            continue
        wanted = {
            f"epp-{found.namespace}-{each.pool_name}.llm-d.ai"
            for template in objects.templates()
            if template.workload.namespace == found.namespace
            for each in pickers_of(template)
            if each.elects_a_leader
        }
        if resource in rule.get("resources").texts() and wanted and not wanted & set(named):
            yield f"{found.label}: {rule.path}.resourceNames has no Lease {min(wanted)}"


def monitor(objects: Objects, found: KubeObject) -> Iterator[str]:
    """A ServiceMonitor finds Services with its port, its Secrets, and asks as the port wants it."""
    services = _monitored(objects, found)
    if not services:
        yield f"{found.label}: selects no Service"
    for endpoint in found.spec.get("endpoints").entries():
        for path in _SECRETS:
            secret = endpoint.get(*path)
            if secret.present:
                name = secret.get("name").text()
                yield from objects.missing(found, "Secret", name, found.namespace)
        if not endpoint.get("port").present:
            continue
        name = endpoint.get("port").text()
        ports = [
            (service, port)
            for service in services
            for port in service.spec.get("ports").entries()
            if port.get("name").text("") == name
        ]
        if services and not ports:
            yield f"{found.label}: its Services have no port {name}"
        for service, port in ports:
            for each in _pickers_at(objects, service, port):
                yield from _scrape_problems(found, endpoint, each)


def _monitored(objects: Objects, found: KubeObject) -> list[KubeObject]:
    chosen = found.spec.get("namespaceSelector")
    names = chosen.get("matchNames").texts() or [found.namespace]
    everywhere = chosen.get("any").value is True
    is_picked = by_selector(found.spec.get("selector"))
    return [
        service
        for service in objects.of_kind("Service")
        if (everywhere or service.namespace in names)
        and is_picked(service.root.get("metadata", "labels").labels())
    ]


def _pickers_at(objects: Objects, service: KubeObject, port: Field) -> Iterator[Picker]:
    """Endpoint pickers whose metrics port a port of a Service leads to."""
    target = port.get("targetPort")
    wanted = (target if target.present else port.get("port")).port()
    for template in pods_of_service(objects, service):
        for each in pickers_of(template):
            if template.port_number(wanted) == each.metrics_port:
                yield each


def _scrape_problems(found: KubeObject, endpoint: Field, each: Picker) -> Iterator[str]:
    label = each.pods.workload.label
    path = endpoint.get("path").text("/metrics")
    if path not in METRICS_PATHS:
        yield f"{found.label}: {endpoint.path}.path is {path}; {label} has {METRICS_PATHS[0]}"
    scheme = endpoint.get("scheme").text("http").lower()
    speaks = "https" if each.serves_metrics_with_tls else "http"
    if scheme != speaks:
        yield f"{found.label}: {endpoint.path}.scheme is {scheme}; {label} speaks {speaks}"
    shows = [key for key in _IDENTITIES if endpoint.get(key).present]
    shows += ["cert"] * endpoint.get("tlsConfig", "cert").present
    if each.asks_who_reads_metrics and not shows:
        yield f"{found.label}: {endpoint.path}.authorization is missing; {label} asks for a token"


RULES = (
    (WORKLOAD_KINDS, picker),
    (("Role",), lease_role),
    (("ServiceMonitor",), monitor),
)
"""Kinds, and what is asked of each object of them."""
