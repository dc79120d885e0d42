"""The control plane that the other tests of this folder stand on is a real one."""

import asyncio
import contextlib
import json
import os
import signal
import sys

import kubernetes.aio as kubernetes
import pytest
import yaml

from epp.testing.api_admin import identity, service_account_subject, user_subject
from epp.testing.api_connection import StatusError
from epp.testing.envtest import ISSUER, token_claims
from epp.testing.stack import eventually

MODELS = "inference.networking.x-k8s.io/v1alpha2"
PODS_RULE = {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}
WHO_AM_I = identity("authentication.k8s.io/v1", "SelfSubjectReview", "")
CLUSTER_ROLES = "rbac.authorization.k8s.io/v1"


def model(name="bot", **spec):
    filled = {"modelName": name, "poolRef": {"name": "pool"}, **spec}
    return {**identity(MODELS, "InferenceModel", name), "spec": filled}


def pod(name="chat-0", **spec):
    filled = {"containers": [{"name": "server", "image": "example/server"}], **spec}
    return {**identity("v1", "Pod", name), "spec": filled}


def config_map(name, **data):
    return {**identity("v1", "ConfigMap", name), "data": data}


async def who_is(control_plane, token):
    async with control_plane.admin(token) as connected:
        answer = await connected.create(WHO_AM_I)
        return answer["status"]["userInfo"]


async def refusal_of(awaitable):
    with pytest.raises(StatusError) as caught:
        await awaitable
    return caught.value


async def test_it_is_the_version_of_a_release(admin):
    version = await admin.request("GET", "/version")

    assert (version["major"], version["minor"], version["gitVersion"]) == ("1", "34", "v1.34.4")


async def test_every_version_of_our_crds_is_served(admin, crds):
    for crd in crds:
        for version in crd["spec"]["versions"]:
            api = f"{crd['spec']['group']}/{version['name']}"
            assert await admin.list(api, crd["spec"]["names"]["kind"]) is not None

    assert len(crds) >= 3


async def test_an_object_is_created_then_replaced(admin, namespace):
    await admin.apply([model(criticality="Critical")], namespace=namespace)
    await admin.apply([model(targetModels=[{"name": "r7"}])], namespace=namespace)

    spec = (await admin.get(model(), namespace=namespace))["spec"]
    assert spec["targetModels"] == [{"name": "r7"}]
    assert "criticality" not in spec


async def test_a_misspelt_field_is_refused_by_name(admin, namespace):
    refusal = await refusal_of(admin.apply([model(poolref={})], namespace=namespace))

    assert refusal.status == 400
    assert 'unknown field "spec.poolref"' in refusal.message


async def test_a_transition_rule_is_enforced_word_for_word(admin, namespace, crds):
    await admin.apply([model()], namespace=namespace)
    [crd] = [crd for crd in crds if crd["spec"]["names"]["kind"] == "InferenceModel"]
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    rule = schema["properties"]["spec"]["properties"]["modelName"]["x-kubernetes-validations"][0]

    refusal = await refusal_of(admin.replace(model(modelName="other"), namespace=namespace))

    assert [cause.field for cause in refusal.causes] == ["spec.modelName"]
    assert refusal.causes[0].message.endswith(rule["message"])


async def test_a_dry_run_shows_defaults_and_stores_nothing(admin, namespace):
    shown = await admin.dry_run(model(), namespace=namespace)

    assert shown["spec"]["poolRef"]["kind"] == "InferencePool"
    assert await admin.find(model(), namespace=namespace) is None


async def test_a_status_is_written_like_a_kubelet_does(admin, namespace):
    await admin.apply([pod()], namespace=namespace)
    ready = [{"type": "Ready", "status": "True"}]

    await admin.patch_status(pod(), {"podIP": "10.1.2.3", "conditions": ready}, namespace=namespace)

    status = (await admin.get(pod(), namespace=namespace))["status"]
    assert status["podIP"] == "10.1.2.3"
    assert [c["status"] for c in status["conditions"] if c["type"] == "Ready"] == ["True"]


async def test_deleting_what_is_not_there_is_no_error(admin, namespace):
    await admin.apply([config_map("c", a="1")], namespace=namespace)

    await admin.delete(config_map("c"), namespace=namespace)
    await admin.delete(config_map("c"), namespace=namespace)

    assert await admin.list("v1", "ConfigMap", namespace=namespace) == []


async def test_a_service_account_token_authenticates(control_plane, admin, namespace):
    await admin.apply([identity("v1", "ServiceAccount", "epp")], namespace=namespace)

    token = await admin.service_account_token("epp", namespace=namespace)

    user = await who_is(control_plane, token)
    assert user["username"] == f"system:serviceaccount:{namespace}:epp"
    assert f"system:serviceaccounts:{namespace}" in user["groups"]
    assert token_claims(token)["iss"] == ISSUER


async def test_a_token_can_be_bound_to_a_pod(control_plane, admin, namespace):
    account = identity("v1", "ServiceAccount", "epp")
    [_, stored] = await admin.apply([account, pod(serviceAccountName="epp")], namespace=namespace)

    token = await admin.service_account_token("epp", namespace=namespace, pod=stored)

    user = await who_is(control_plane, token)
    assert user["extra"]["authentication.kubernetes.io/pod-name"] == ["chat-0"]


async def test_users_have_their_groups(control_plane):
    user = await who_is(control_plane, control_plane.token("bob"))

    assert user["username"] == "bob"
    assert "operators" in user["groups"]


async def test_an_unknown_token_is_refused(control_plane):
    assert (await refusal_of(who_is(control_plane, "nobody"))).status == 401


async def test_a_user_may_do_what_is_granted_and_nothing_else(control_plane, admin, namespace):
    async with control_plane.admin(control_plane.token("alice")) as alice:
        before = await refusal_of(alice.list("v1", "Pod", namespace=namespace))

        await admin.grant("pods", user_subject("alice"), [PODS_RULE], namespace=namespace)

        async def allowed():
            try:
                return await alice.list("v1", "Pod", namespace=namespace) == []
            except StatusError:
                return False

        await eventually(allowed, what="the grant to be seen")
        elsewhere = await refusal_of(alice.list("v1", "Pod", namespace="default"))
    assert (before.status, before.reason) == (403, "Forbidden")
    assert 'User "alice" cannot list resource "pods"' in before.message
    assert elsewhere.status == 403


async def test_a_cluster_wide_grant_holds_in_every_namespace(control_plane, admin, namespace):
    await admin.apply([identity("v1", "ServiceAccount", "epp")], namespace=namespace)
    subject = service_account_subject("epp", namespace)
    await admin.grant(f"{namespace}-pods", subject, [PODS_RULE])
    token = await admin.service_account_token("epp", namespace=namespace)

    async with control_plane.admin(token) as account:

        async def allowed():
            try:
                return await account.list("v1", "Pod") is not None
            except StatusError:
                return False

        assert await eventually(allowed, what="the grant to be seen")


async def test_other_clients_find_it_through_a_kubeconfig(control_plane, namespace):
    path = control_plane.kubeconfig(control_plane.token("bob"), namespace=namespace)

    loaded = kubernetes.client.Configuration()
    await kubernetes.config.load_kube_config(str(path), client_configuration=loaded)
    async with kubernetes.client.ApiClient(loaded) as client:
        api = kubernetes.client.AuthenticationV1Api(client)
        review = await api.create_self_subject_review(kubernetes.client.V1SelfSubjectReview())
    assert review.to_dict()["status"]["user_info"]["username"] == "bob"
    assert yaml.safe_load(path.read_text())["contexts"][0]["context"]["namespace"] == namespace


async def test_a_pod_finds_it_through_mounted_files(control_plane, tmp_path):
    files = control_plane.in_cluster_files(tmp_path, "secret", namespace="apps")

    assert (files / "token").read_text() == "secret"
    assert (files / "namespace").read_text() == "apps"
    assert (files / "ca.crt").read_bytes() == control_plane.ca_file.read_bytes()


async def test_objects_survive_a_killed_api_server(control_plane, admin, namespace):
    await admin.apply([config_map("kept", a="1")], namespace=namespace)
    url, processes = control_plane.url, dict(control_plane.process_ids)

    await control_plane.kill_apiserver()
    with pytest.raises(OSError):
        await admin.get(config_map("kept"), namespace=namespace)
    await control_plane.restart_apiserver()

    assert (await admin.get(config_map("kept"), namespace=namespace))["data"] == {"a": "1"}
    assert control_plane.url == url
    assert control_plane.process_ids["etcd"] == processes["etcd"]
    assert control_plane.process_ids["kube-apiserver"] != processes["kube-apiserver"]


async def test_a_killed_api_server_breaks_its_watches(control_plane, admin, namespace):
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    async with contextlib.aclosing(admin.watch(path)) as events:
        await admin.apply([config_map("seen")], namespace=namespace)
        assert (await anext(events))["object"]["metadata"]["name"] == "seen"

        await control_plane.kill_apiserver()

        with pytest.raises(OSError):
            await anext(events)
    await control_plane.restart_apiserver()


async def test_a_restarted_api_server_no_longer_knows_old_versions(control_plane, admin, namespace):
    [old] = await admin.apply([config_map("a")], namespace=namespace)
    await admin.apply([config_map("b"), config_map("c")], namespace=namespace)
    await control_plane.restart_apiserver()
    query = {"resourceVersion": old["metadata"]["resourceVersion"]}

    path = f"/api/v1/namespaces/{namespace}/configmaps"
    async with contextlib.aclosing(admin.watch(path, query=query)) as events:
        event = await anext(events)

    assert (event["type"], event["object"]["code"]) == ("ERROR", 410)


STARTER = """
import asyncio, json, sys
from pathlib import Path
from epp.testing.envtest import LocalControlPlane

async def main():
    async with LocalControlPlane(Path(sys.argv[1]), Path(sys.argv[2])) as plane:
        print(json.dumps(dict(plane.process_ids)), flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


def is_running(process_id):
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    return True


async def test_nothing_is_left_of_a_run_that_was_killed(assets, tmp_path):
    argv = [sys.executable, "-c", STARTER, str(assets), str(tmp_path / "plane")]
    run = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.PIPE)
    assert run.stdout is not None
    processes = json.loads(await run.stdout.readline())

    run.send_signal(signal.SIGKILL)
    await run.wait()

    def ended():
        return not any(is_running(process_id) for process_id in processes.values())

    assert set(processes) == {"etcd", "kube-apiserver"}
    await eventually(ended, what="etcd and kube-apiserver to be gone")
