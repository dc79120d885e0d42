"""Gateways, Prometheus and probes speak to the endpoint picker as its arguments make it speak.

That ours do is ``test_references``: what is reported here is reported there of what we ship. These
are the rules themselves, each shown by one change of a rendered output.
"""

import copy

import pytest

EPP = ("spec", "template", "spec", "containers", 0)
TLS = ("spec", "trafficPolicy", "tls")
CLASSES = {"overlays/istio": "istio", "overlays/kgateway": "kgateway"}
"""The class whose controller configures the gateway of an overlay."""


def edit(kind, *path, to=None, name="epp"):
    """Set a field; without a value, take it away."""

    def change(manifests):
        node = find(manifests, kind, name)
        for key in path[:-1]:
            node = node.setdefault(key, {}) if isinstance(node, dict) else node[key]
        if to is None:
            del node[path[-1]]
        else:
            node[path[-1]] = to

    return change


def argue(*words, without=""):
    """Change the arguments of the endpoint picker."""

    def change(manifests):
        node = find(manifests, "Deployment", "epp")
        container = node["spec"]["template"]["spec"]["containers"][0]
        kept = [a for a in container["args"] if not (without and a.startswith(without))]
        container["args"] = [*kept, *words]

    return change


def drop(kind):
    """Leave out every object of a kind."""

    def change(manifests):
        manifests[:] = [m for m in manifests if m["kind"] != kind]

    return change


def both(*changes):
    """One change after another."""

    def change(manifests):
        for each in changes:
            each(manifests)

    return change


def find(manifests, kind, name):
    return next(m for m in manifests if (m["kind"], m["metadata"]["name"]) == (kind, name))


@pytest.fixture
def broken(render):
    """A copy of an overlay's output that may be changed."""

    def made(change, components=("monitoring",)):
        manifests = copy.deepcopy(render(overlay="overlays/istio", components=components))
        change(manifests)
        return manifests

    return made


PORT_TLS = [{"port": {"number": 9002}, "tls": {"mode": "DISABLE"}}]
OTHER_PORT_TLS = [{"port": {"number": 9003}, "tls": {"mode": "DISABLE"}}]


@pytest.mark.parametrize(
    ("change", "want"),
    [
        pytest.param(
            edit("DestinationRule", *TLS, "mode", to="DISABLE"),
            "TLS mode DISABLE, but Deployment inference/epp serves TLS: SIMPLE is needed",
            id="plain-text-to-tls",
        ),
        pytest.param(
            edit("DestinationRule", *TLS), "TLS mode DISABLE, but", id="no-tls-settings"
        ),
        pytest.param(
            edit("DestinationRule", "spec", "trafficPolicy"), "TLS mode DISABLE, but", id="no-policy"
        ),
        pytest.param(
            edit("DestinationRule", *TLS, "mode", to="ISTIO_MUTUAL"),
            "TLS mode ISTIO_MUTUAL, but",
            id="certificates-of-the-mesh",
        ),
        pytest.param(
            edit("DestinationRule", *TLS, "mode", to="MUTUAL"), "", id="a-client-certificate-besides"
        ),
        pytest.param(
            edit("DestinationRule", *TLS, "insecureSkipVerify"),
            "insecureSkipVerify is not true, but the certificate of Deployment inference/epp is",
            id="self-signed-and-verified",
        ),
        pytest.param(
            both(edit("DestinationRule", *TLS, "insecureSkipVerify"), argue("--cert-path=/x")),
            "",
            id="a-certificate-of-ones-own-is-verified",
        ),
        pytest.param(
            argue("--secure-serving=false"),
            "TLS mode SIMPLE, but Deployment inference/epp serves plain text",
            id="tls-to-plain-text",
        ),
        pytest.param(
            argue("--secure-serving", "false"), "serves plain text", id="value-as-a-word"
        ),
        pytest.param(argue("-secureServing=false"), "serves plain text", id="spelling-of-v0"),
        pytest.param(argue("--secure-serving"), "", id="a-bare-flag-is-on"),
        pytest.param(
            edit("DestinationRule", "spec", "trafficPolicy", "portLevelSettings", to=PORT_TLS),
            "TLS mode DISABLE, but",
            id="settings-of-the-port",
        ),
        pytest.param(
            edit("DestinationRule", "spec", "trafficPolicy", "portLevelSettings", to=OTHER_PORT_TLS),
            "",
            id="settings-of-another-port",
        ),
        pytest.param(drop("DestinationRule"), "no DestinationRule for Service epp", id="no-rule"),
        pytest.param(
            both(drop("DestinationRule"), argue("--secure-serving=false")),
            "",
            id="plain-text-needs-no-rule",
        ),
        pytest.param(
            edit("DestinationRule", "spec", "host", to="epp.inference.svc.cluster.local"),
            "",
            id="full-host",
        ),
        pytest.param(
            edit("DestinationRule", "spec", "host", to="epp.other.svc.cluster.local"),
            "there is no Service other/epp",
            id="host-elsewhere",
        ),
        pytest.param(
            both(
                edit("DestinationRule", "spec", "host", to="epp.inference.svc.cluster.local"),
                edit("DestinationRule", *TLS, "mode", to="DISABLE"),
            ),
            "TLS mode DISABLE, but",
            id="full-host-is-the-same-service",
        ),
        pytest.param(
            edit("DestinationRule", "spec", "host", to="*.example.com"),
            "no DestinationRule for Service epp",
            id="host-of-others",
        ),
        pytest.param(
            edit("Service", "spec", "ports", 0, "appProtocol"),
            "Service inference/epp: appProtocol of port 9002 is not http2 or grpc",
            id="protocol-not-said",
        ),
        pytest.param(
            edit("Service", "spec", "ports", 0, "appProtocol", to="http"),
            "appProtocol of port 9002",
            id="protocol-http-1",
        ),
        pytest.param(
            edit("Service", "spec", "ports", 0, "appProtocol", to="grpc"), "", id="protocol-grpc"
        ),
        pytest.param(
            both(
                edit("Service", "spec", "ports", 0, "appProtocol"),
                edit("Service", "spec", "ports", 0, "name", to="grpc-ext-proc"),
            ),
            "",
            id="protocol-by-name",
        ),
    ],
)  # fmt: skip
def test_istio_speaks_what_the_endpoint_picker_does(broken, lint, change, want):
    found = lint(broken(change))

    assert want in "\n".join(found)
    assert bool(found) == bool(want)


@pytest.mark.parametrize(
    ("change", "want"),
    [
        pytest.param(
            edit("ServiceMonitor", "spec", "endpoints", 0, "path", to="/metricz"),
            "spec.endpoints[0].path is /metricz; Deployment inference/epp has /metrics",
            id="path",
        ),
        pytest.param(edit("ServiceMonitor", "spec", "endpoints", 0, "path"), "", id="usual-path"),
        pytest.param(
            edit("ServiceMonitor", "spec", "endpoints", 0, "scheme"),
            "spec.endpoints[0].scheme is http; Deployment inference/epp speaks https",
            id="http-to-https",
        ),
        pytest.param(
            argue(without="--metrics-cert-dir"),
            "spec.endpoints[0].scheme is https; Deployment inference/epp speaks http",
            id="https-to-http",
        ),
        pytest.param(
            edit("ServiceMonitor", "spec", "endpoints", 0, "authorization"),
            "spec.endpoints[0].authorization is missing; Deployment inference/epp asks for a token",
            id="nobody",
        ),
        pytest.param(
            both(
                edit("ServiceMonitor", "spec", "endpoints", 0, "authorization"),
                argue("--metrics-endpoint-auth=false"),
            ),
            "",
            id="open-to-everyone",
        ),
        pytest.param(
            edit("ServiceMonitor", "spec", "namespaceSelector", to={"matchNames": ["other"]}),
            "selects no Service",
            id="namespace",
        ),
        pytest.param(
            edit("ServiceMonitor", "spec", "namespaceSelector", to={"any": True}), "", id="any"
        ),
    ],
)
def test_prometheus_asks_as_the_metrics_port_wants_it(broken, lint, change, want):
    found = lint(broken(change))

    assert want in "\n".join(found)
    assert bool(found) == bool(want)


@pytest.mark.parametrize(
    ("change", "want"),
    [
        pytest.param(
            edit("Deployment", "spec", "replicas", to=0), "spec.replicas is 0", id="no-replicas"
        ),
        pytest.param(
            edit("Deployment", *EPP, "livenessProbe", "grpc", "service", to="readiness"),
            "the livenessProbe of epp asks for service 'readiness'",
            id="alive-only-when-ready",
        ),
        pytest.param(
            edit("Deployment", *EPP, "livenessProbe", "grpc", "service"),
            "the livenessProbe of epp asks for service ''",
            id="alive-only-when-all-is-well",
        ),
        pytest.param(
            edit("Deployment", *EPP, "readinessProbe", "grpc", "service", to="liveness"),
            "the readinessProbe of epp asks for service 'liveness'",
            id="ready-as-soon-as-alive",
        ),
        pytest.param(
            edit("Deployment", "spec", "template", "spec", "serviceAccountName"),
            "spec.template.spec.serviceAccountName is missing",
            id="no-account",
        ),
        pytest.param(
            both(
                edit("Deployment", "spec", "template", "spec", "serviceAccountName"),
                argue("--kubeconfig=/x"),
            ),
            "",
            id="no-account-but-a-kubeconfig",
        ),
        pytest.param(
            edit("HTTPRoute", "spec", "parentRefs", 0, "namespace", to="x", name="inference"),
            "there is no Gateway x/inference-gateway",
            id="gateway-elsewhere",
        ),
        pytest.param(
            edit("HTTPRoute", "spec", "parentRefs", 0, "sectionName", to="https", name="inference"),
            "Gateway inference/inference-gateway has no listener https",
            id="listener",
        ),
    ],
)
def test_a_pod_that_cannot_do_its_work_is_reported(broken, lint, change, want):
    found = lint(broken(change))

    assert want in "\n".join(found)
    assert bool(found) == bool(want)


def test_gateways_are_of_the_class_that_the_overlay_is_for(manifests, combination):
    classes = [m["spec"]["gatewayClassName"] for m in manifests if m["kind"] == "Gateway"]

    assert classes == [name for overlay, name in CLASSES.items() if overlay == combination.overlay]


def test_an_external_rule_of_istio_is_taken_on_trust(broken, overlays, lint_with):
    manifests = broken(drop("DestinationRule"))

    found = lint_with(manifests, {*overlays.EXTERNAL, ("DestinationRule", "epp")})

    assert found == []
