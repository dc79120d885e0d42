"""The rules that we ship are the requests that the code makes, no more and no less."""

import pytest

READ = ("list", "watch")
X_GROUP = "inference.networking.x-k8s.io"

USED = {
    **{("", "pods", verb): "the reflector of pods" for verb in READ},
    **{("inference.networking.k8s.io", "inferencepools", verb): "the pool, v1" for verb in READ},
    **{(X_GROUP, "inferencepools", verb): "the pool, v1alpha2" for verb in READ},
    **{(X_GROUP, "inferencemodels", verb): "model names and splits" for verb in READ},
    **{
        (group, resource, verb): "priorities and rewrites"
        for group in (X_GROUP, "llm-d.ai")
        for resource in ("inferenceobjectives", "inferencemodelrewrites")
        for verb in READ
    },
    (X_GROUP, "inferencemodels/status", "patch"): "conditions",
    ("events.k8s.io", "events", "create"): "an event",
    ("events.k8s.io", "events", "patch"): "a series of it",
}
"""API group, resource and verb, and what needs it, in the namespace of the pool."""

USED_WITH_LEADER_ELECTION = {
    ("coordination.k8s.io", "leases", "get"): "who leads",
    ("coordination.k8s.io", "leases", "create"): "the first election",
    ("coordination.k8s.io", "leases", "update"): "taking, renewing and releasing it",
}

USED_IN_THE_CLUSTER = {
    ("authentication.k8s.io", "tokenreviews", "create"): "who reads /metrics",
    ("authorization.k8s.io", "subjectaccessreviews", "create"): "may they",
}


def granted(manifests, service_account, kinds):
    """What bindings of these kinds give to a ServiceAccount."""
    roles = {(m["kind"], m["metadata"]["name"]): m["rules"] for m in manifests if "rules" in m}
    return [
        rule
        for binding in manifests
        if binding["kind"] in kinds
        for subject in binding["subjects"]
        if (subject["kind"], subject["name"]) == ("ServiceAccount", service_account)
        for rule in roles[binding["roleRef"]["kind"], binding["roleRef"]["name"]]
    ]


def triples(rules):
    return {
        (group, resource, verb)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def test_in_its_namespace_the_endpoint_picker_may_do_what_it_does(manifests, combination):
    used = dict(USED)
    if "ha" in combination.components:
        used |= USED_WITH_LEADER_ELECTION

    assert triples(granted(manifests, "epp", {"RoleBinding"})) == set(used)


def test_in_the_cluster_it_may_only_ask_who_somebody_is(manifests):
    rules = granted(manifests, "epp", {"ClusterRoleBinding"})

    assert triples(rules) == set(USED_IN_THE_CLUSTER)


def test_no_rule_is_repeated_or_open_ended(manifests):
    rules = [rule for m in manifests for rule in m.get("rules", ()) if "verbs" in rule]

    words = [word for rule in rules for values in rule.values() for word in values]
    assert [word for word in words if "*" in word] == []


def test_who_reads_metrics_may_do_nothing_else(render):
    manifests = render(overlay="default", components=("monitoring",))

    rules = granted(manifests, "epp-metrics-reader", {"ClusterRoleBinding", "RoleBinding"})
    assert rules == [{"nonResourceURLs": ["/metrics"], "verbs": ["get"]}]


@pytest.mark.parametrize("overlay", ["default", "overlays/standalone"])
def test_only_the_endpoint_picker_gets_a_token(render, overlay):
    manifests = render(overlay=overlay)

    pods = {
        m["metadata"]["name"]: m["spec"]["template"]["spec"]["automountServiceAccountToken"]
        for m in manifests
        if m["kind"] == "Deployment"
    }
    accounts = [m for m in manifests if m["kind"] == "ServiceAccount"]
    assert pods == {"epp": True, "modelsim": False}
    assert [account["automountServiceAccountToken"] for account in accounts] == [False]
