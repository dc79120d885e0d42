"""The rules of the check of manifests, on shapes that are valid and that ours do not have."""

from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]


def document(kind, spec, api_version="v1", name="x", **fields):
    """YAML of one object."""
    metadata = {"name": name, "namespace": "default"}
    whole = {"apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": spec, **fields}
    return yaml.safe_dump(whole)


def test_external_means_the_namespace_of_whoever_refers_to_it(check):
    route = document(
        "HTTPRoute",
        {"parentRefs": [{"name": "main", "namespace": "infra"}]},
        "gateway.networking.k8s.io/v1",
    )
    missing = ["HTTPRoute default/x: there is no Gateway infra/main"]

    assert check(route, [("Gateway", "main")]) == missing
    assert check(route, [("Gateway", "infra/main")]) == []


V1ALPHA2 = (ROOT / "config" / "samples" / "v1alpha2-pool.yaml").read_text("utf-8")
SERVER = document(
    "Pod",
    {"containers": [{"name": "s", "ports": [{"containerPort": 8200}]}]},
).replace("namespace: default", "namespace: default\n  labels: {app: chat-server, tier: gpu}")


@pytest.mark.parametrize(
    ("text", "want"),
    [
        pytest.param("", [], id="nothing"),
        pytest.param("null\n---\n", [], id="empty-documents"),
        pytest.param(
            V1ALPHA2,
            [
                "InferencePool chat-pool: has no namespace",
                "InferencePool chat-pool: selects no pods",
                "InferencePool chat-pool: there is no Service chat-pool-epp",
            ],
            id="the-sample-of-v1alpha2",
        ),
        pytest.param(
            V1ALPHA2.replace("name: chat-pool\n", "name: chat-pool\n  namespace: default\n", 1)
            + f"---\n{SERVER}",
            ["InferencePool default/chat-pool: there is no Service default/chat-pool-epp"],
            id="pods-of-v1alpha2",
        ),
        pytest.param(
            V1ALPHA2.replace("name: chat-pool\n", "name: chat-pool\n  namespace: default\n", 1)
            .replace("8200", "8201") + f"---\n{SERVER}",
            [
                "InferencePool default/chat-pool: its pods have no port 8201",
                "InferencePool default/chat-pool: there is no Service default/chat-pool-epp",
            ],
            id="port-of-v1alpha2",
        ),
        pytest.param(
            document("Service", {"type": "ExternalName", "externalName": "example.com"}), [],
            id="service-by-another-name",
        ),
        pytest.param(
            document("Service", {"ports": [{"port": 80}]}), [], id="service-without-selector"
        ),
        pytest.param(
            document("Service", {"selector": {"app": "x"}}),
            ["Service default/x: selects no pods"],
            id="service-without-ports",
        ),
        pytest.param(
            document("Deployment", {"selector": {}, "template": {"spec": {"containers": []}}}, "apps/v1"),
            ["Deployment default/x: its selector does not pick its own pods"],
            id="template-without-labels",
        ),
        pytest.param(
            document(
                "CronJob",
                {"jobTemplate": {"spec": {"template": {"spec": {
                    "serviceAccountName": "y", "containers": [{"name": "c"}]}}}}},
                "batch/v1",
            ),
            ["CronJob default/x: there is no ServiceAccount default/y"],
            id="pods-of-a-cron-job",
        ),
        pytest.param(
            document("Pod", {"serviceAccountName": "default", "containers": []}), [],
            id="account-that-every-namespace-has",
        ),
        pytest.param(
            document("Pod", {"containers": [], "volumes": [
                {"name": "a", "projected": {"sources": [{"secret": {"name": "s"}}]}},
                {"name": "b", "secret": {"secretName": "t", "optional": True}},
            ]}),
            [
                "Pod default/x: there is no Secret default/s",
                "Pod default/x: volume a is not used",
                "Pod default/x: volume b is not used",
            ],
            id="volumes-of-several-sources",
        ),
        pytest.param(
            document("Pod", {"containers": [{"name": "c", "envFrom": [{"secretRef": {"name": "s"}}]}]}),
            ["Pod default/x: there is no Secret default/s"],
            id="environment-of-a-secret",
        ),
        pytest.param(
            document("Pod", {"containers": [{"name": "c", "livenessProbe": {"httpGet": {"port": 80}}}]}),
            [],
            id="probe-of-a-port-that-need-not-be-declared",
        ),
        pytest.param(
            document("Pod", {"containers": [{"name": "c", "livenessProbe": {"httpGet": {"port": "web"}}}]}),
            ["Pod default/x: the livenessProbe of c asks port web, which it does not have"],
            id="probe-of-a-named-port",
        ),
        pytest.param(
            document("StatefulSet", {
                "selector": {"matchLabels": {"a": "b"}},
                "volumeClaimTemplates": [{"metadata": {"name": "data"}}],
                "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [
                    {"name": "c", "volumeMounts": [{"name": "data"}]}]}},
            }, "apps/v1"),
            [],
            id="volume-of-a-claim-template",
        ),
        pytest.param(
            document("RoleBinding", None, "rbac.authorization.k8s.io/v1",
                     roleRef={"kind": "ClusterRole", "name": "view"}),
            [],
            id="binding-of-nobody-to-a-role-of-every-cluster",
        ),
        pytest.param(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\nmetadata: {name: x}\n", [],
            id="cluster-scope-of-others",
        ),
        pytest.param(
            document("InferencePool", {"selector": {"matchLabels": {"a": "b"}},
                                       "endpointPickerRef": {"kind": "Backend", "name": "y"}},
                     "inference.networking.k8s.io/v1"),
            ["InferencePool default/x: selects no pods"],
            id="endpoint-picker-that-is-no-service",
        ),
        pytest.param(
            document("HTTPRoute", {"rules": [{"filters": []}]}, "gateway.networking.k8s.io/v1"), [],
            id="route-that-answers-by-itself",
        ),
        pytest.param(
            document("HTTPRoute", {"rules": [{"backendRefs": [
                {"name": "y", "namespace": "kube-system", "port": 80}]}]}, "gateway.networking.k8s.io/v1"),
            ["HTTPRoute default/x: there is no Service kube-system/y"],
            id="backend-in-another-namespace",
        ),
        pytest.param(
            document("Gateway", {"listeners": [{"name": "l", "port": 80}]}, "gateway.networking.k8s.io/v1")
            + "---\n"
            + document("HTTPRoute", {"parentRefs": [{"name": "x", "namespace": "default"}]},
                       "gateway.networking.k8s.io/v1").replace(
                "  namespace: default\nspec", "  namespace: kube-system\nspec"),
            ["HTTPRoute kube-system/x: Gateway default/x takes routes of its own namespace only"],
            id="gateway-that-takes-no-routes-of-others",
        ),
        pytest.param(
            document("DestinationRule", {"host": "api.example.com"}, "networking.istio.io/v1"), [],
            id="host-outside",
        ),
        pytest.param(
            document("EnvoyFilter", {"configPatches": [
                {"applyTo": "HTTP_FILTER", "patch": {"operation": "REMOVE"}},
                {"applyTo": "CLUSTER", "patch": {"operation": "ADD", "value": {
                    "name": "c", "endpoint": {"address": {"socket_address": {
                        "address": "10.0.0.1", "port_value": 1}}}}}},
                {"patch": {"value": {"cluster_name": "outbound|80||a.b.svc.cluster.local"}}},
            ]}, "networking.istio.io/v1alpha3"),
            [],
            id="filter-without-a-selector",
        ),
        pytest.param(
            document("ServiceMonitor", {"selector": {}, "endpoints": [{"targetPort": 80}]},
                     "monitoring.coreos.com/v1"),
            ["ServiceMonitor default/x: selects no Service"],
            id="monitor-without-authorization-or-port",
        ),
        pytest.param(
            document("ServiceMonitor", {"endpoints": [
                {"port": "p", "basicAuth": {"username": {"name": "s", "key": "k"}}}]},
                "monitoring.coreos.com/v1")
            + "---\n" + document("Service", {"ports": [{"port": 80}]}),
            [
                "ServiceMonitor default/x: there is no Secret default/s",
                "ServiceMonitor default/x: its Services have no port p",
            ],
            id="monitor-of-a-port-without-a-name",
        ),
        pytest.param(
            document("PodDisruptionBudget", {"selector": {}}, "policy/v1") + "---\n"
            + document("PodDisruptionBudget", {"selector": {}}, "policy/v1", name="y") + "---\n"
            + document("Pod", {"containers": []}),
            [
                (
                    "PodDisruptionBudget default/x: PodDisruptionBudget default/y picks the pods "
                    "of Pod default/x, too"
                )
            ],
            id="two-budgets-for-one-pod",
        ),
    ],
)  # fmt: skip
def test_whatever_kubernetes_takes_is_understood(check, text, want):
    assert check(text) == want
