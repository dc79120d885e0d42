"""Whatever a manifest refers to is in the same output, also after a user's own changes."""

import copy

import pytest

from epp_api.crd_files import crd_files


def test_every_combination_renders_and_refers_to_what_is_there(manifests, lint):
    assert lint(manifests) == []


def test_a_prefix_and_a_namespace_of_the_user_arrive_everywhere(
    combination, overlays, render, lint
):
    changed = overlays.Combination(
        overlay=combination.overlay,
        components=combination.components,
        prefix="team-",
        namespace="prod",
    )

    manifests = render(changed)

    assert lint(manifests) == []
    assert {m["metadata"].get("namespace", "prod") for m in manifests} == {"prod"}
    assert [
        m["metadata"]["name"]
        for m in manifests
        if m["kind"] != "Namespace" and not m["metadata"]["name"].startswith("team-")
    ] == []


def test_a_renamed_pool_arrives_everywhere(combination, overlays, render, lint, one):
    rename = {
        "target": {"kind": "InferencePool"},
        "options": {"allowNameChange": True},
        "patch": '[{"op": "replace", "path": "/metadata/name", "value": "llama"}]',
    }
    changed = overlays.Combination(
        overlay=combination.overlay, components=combination.components, patches=(rename,)
    )

    manifests = render(changed)

    assert lint(manifests) == []
    assert one(manifests, "InferencePool")["metadata"]["name"] == "llama"
    assert "sim-pool" not in str(manifests)


def test_pool_and_endpoint_picker_share_a_namespace(manifests, one):
    """The endpoint picker looks for its pool in the namespace that NAMESPACE names."""
    pod = one(manifests, "Deployment", "epp")["spec"]["template"]["spec"]
    environment = {e["name"]: e["valueFrom"] for c in pod["containers"] for e in c.get("env", ())}

    assert environment["NAMESPACE"] == {"fieldRef": {"fieldPath": "metadata.namespace"}}
    namespaces = [one(manifests, "Deployment", "epp"), one(manifests, "InferencePool")]
    assert len({m["metadata"]["namespace"] for m in namespaces}) == 1


def test_what_is_external_is_referred_to(overlays, render):
    mentioned = str([render(combination) for combination in overlays.combinations()])

    assert [name for _, name in overlays.EXTERNAL if name not in mentioned] == []


def test_the_crds_are_complete(kustomize, overlays, root):
    rendered = overlays.build(kustomize, root / "config" / "crd")

    names = {f"{crd['spec']['group']}_{crd['spec']['names']['plural']}.yaml" for crd in rendered}
    assert names == {path.name for path in crd_files().values()}


def _remove(kind, name=None):
    def change(manifests):
        manifests[:] = [
            m
            for m in manifests
            if (m["kind"], name or m["metadata"]["name"]) != (kind, m["metadata"]["name"])
        ]

    return change


def _set(kind, name, path, value):
    def change(manifests):
        node = next(m for m in manifests if (m["kind"], m["metadata"]["name"]) == (kind, name))
        for key in path[:-1]:
            node = node[key]
        node[path[-1]] = value

    return change


_POD = ("spec", "template", "spec")
_EPP = (*_POD, "containers", 0)


@pytest.mark.parametrize(
    ("change", "want"),
    [
        pytest.param(_remove("Namespace"), "there is no Namespace", id="namespace"),
        pytest.param(_remove("ServiceAccount", "epp"), "no ServiceAccount", id="service-account"),
        pytest.param(_remove("Role", "epp"), "no Role inference/epp", id="role"),
        pytest.param(_remove("ClusterRole", "epp-auth"), "no ClusterRole", id="cluster-role"),
        pytest.param(_remove("Service", "epp"), "no Service inference/epp", id="service"),
        pytest.param(_remove("InferencePool"), "no InferencePool", id="pool"),
        pytest.param(_remove("Gateway"), "", id="an-external-gateway-is-no-problem"),
        pytest.param(_remove("Secret"), "no Secret", id="token"),
        pytest.param(_remove("Deployment", "modelsim"), "selects no pods", id="model-servers"),
        pytest.param(
            _set("Service", "epp", ("spec", "ports", 0, "targetPort"), 9001),
            "its pods have no port 9001",
            id="target-port",
        ),
        pytest.param(
            _set("Service", "epp", ("spec", "ports", 0, "port"), 9001),
            "has no port 9002",
            id="service-port",
        ),
        pytest.param(
            _set("Service", "epp", ("spec", "selector"), {"app": "x"}),
            "refers to another endpoint picker",
            id="service-of-another",
        ),
        pytest.param(
            _set("PodDisruptionBudget", "epp", ("spec", "selector", "matchLabels"), {"a": "b"}),
            "PodDisruptionBudget inference/epp: selects no pods",
            id="budget",
        ),
        pytest.param(
            _set("InferencePool", "sim-pool", ("spec", "targetPorts"), [{"number": 1}]),
            "its pods have no port 1",
            id="pool-port",
        ),
        pytest.param(
            _set("InferenceModel", "chat", ("spec", "poolRef", "group"), "x"),
            "is not of group x",
            id="pool-group",
        ),
        pytest.param(
            _set("HTTPRoute", "inference", ("spec", "rules", 0, "backendRefs", 0, "name"), "x"),
            "HTTPRoute inference/inference: there is no InferencePool inference/x",
            id="backend",
        ),
        pytest.param(
            _set("DestinationRule", "epp", ("spec", "host"), "x"), "no Service inference/x", id="host"
        ),
        pytest.param(
            _set("EnvoyFilter", "epp-lean", ("spec", "configPatches", 0, "patch", "value"), {"cluster_name": "x"}),
            "nobody adds cluster x",
            id="cluster",
        ),
        pytest.param(
            _set("ServiceMonitor", "epp", ("spec", "endpoints", 0, "port"), "x"),
            "its Services have no port x",
            id="monitored-port",
        ),
        pytest.param(
            _set("ServiceMonitor", "epp", ("spec", "selector", "matchLabels"), {"a": "b"}),
            "selects no Service",
            id="monitored-service",
        ),
        pytest.param(
            _set("Secret", "epp-metrics-reader", ("metadata", "annotations"), {"kubernetes.io/service-account.name": "x"}),
            "no ServiceAccount inference/x",
            id="token-of-nobody",
        ),
        pytest.param(
            _set("Deployment", "epp", (*_EPP, "args", 2), "x"), "no InferencePool inference/x", id="argument"
        ),
        pytest.param(
            _set("Deployment", "epp", (*_EPP, "readinessProbe", "grpc", "port"), 1),
            "the readinessProbe of epp asks port 1",
            id="probe",
        ),
        pytest.param(
            _set("Deployment", "epp", (*_EPP, "volumeMounts"), [{"name": "x"}]),
            "epp mounts x, no volume",
            id="mount",
        ),
        pytest.param(
            _set("Deployment", "epp", (*_POD, "volumes"), [{"name": "x", "configMap": {"name": "y"}}]),
            "no ConfigMap inference/y",
            id="config-map",
        ),
        pytest.param(
            _set("Deployment", "epp", (*_POD, "volumes"), [{"name": "x"}]),
            "volume x is not used",
            id="volume",
        ),
        pytest.param(
            _set("Deployment", "epp", ("spec", "selector", "matchLabels"), {"a": "b"}),
            "its selector does not pick its own pods",
            id="selector",
        ),
        pytest.param(
            lambda manifests: manifests.append(manifests[0]), "is there 2 times", id="twice"
        ),
    ],
)  # fmt: skip
def test_what_leads_nowhere_is_reported(render, lint, change, want):
    """The check itself: each kind of broken reference is one that it sees."""
    rendered = render(overlay="overlays/istio", components=("monitoring", "lean-path-istio"))
    broken = copy.deepcopy(rendered)

    change(broken)

    assert want in "\n".join(lint(broken))
    assert bool(lint(broken)) == bool(want)
