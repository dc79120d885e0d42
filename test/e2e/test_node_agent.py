"""The stand-in for a kubelet does what the other tests take for granted. Local cluster only."""

import json
import os

import pytest
import pytest_asyncio

from epp.testing.api_admin import identity
from epp.testing.deployment_plan import is_ready
from epp.testing.envtest import token_claims
from epp.testing.installation import Installation

pytestmark = [
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.skipif(
        os.environ.get("EPP_E2E_CLUSTER", "local") != "local", reason="kind has a kubelet"
    ),
]

NAMESPACE = "node"
SHOW = """\
import json, os, time, yaml
config = yaml.safe_load(open(os.environ["KUBECONFIG"]))
token = open(config["users"][0]["user"]["tokenFile"]).read()
text = open("/etc/app/greeting").read()
print(json.dumps({"name": os.environ["POD_NAME"], "token": token, "text": text}), flush=True)
time.sleep(60)
"""


@pytest_asyncio.fixture(loop_scope="session")
async def place(cluster):
    made = Installation(cluster, NAMESPACE, ())
    await made.apply(
        identity("v1", "Namespace", NAMESPACE), identity("v1", "ServiceAccount", "app")
    )
    yield made
    for deployment in await cluster.admin.list("apps/v1", "Deployment", namespace=NAMESPACE):
        await made.delete({"apiVersion": "apps/v1", "kind": "Deployment", **deployment})


def deployment(name, command, *, image="endpoint-picker:0.1.0", **pod):
    labels = {"app.kubernetes.io/name": name}
    env = [{"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]
    container = {"name": "c", "image": image, "command": command, "env": env}
    mounts = [{"name": v["name"], "mountPath": "/etc/app"} for v in pod.get("volumes", ())]
    template = {
        "metadata": {"labels": labels},
        "spec": {
            "serviceAccountName": "app",
            **pod,
            "containers": [{**container, "volumeMounts": mounts}],
        },
    }
    spec = {"selector": {"matchLabels": labels}, "template": template}
    return {**identity("apps/v1", "Deployment", name), "spec": spec}


async def the_pod(place, name):
    async def found():
        return await place.pods(name, ready=False)

    [pod] = await place.wait(found, what=f"pod of {name}")
    return pod


async def when(place, pod, condition, what):
    """The pod, as soon as it is as it should be."""

    async def found():
        now = await place.find_pod(pod)
        return now if now is not None and condition(now) else None

    return await place.wait(found, what=what)


async def test_a_container_finds_name_files_and_token_of_its_pod(place):
    volumes = [{"name": "config", "configMap": {"name": "app"}}]
    await place.apply(deployment("app", ["python", "-c", SHOW], volumes=volumes))
    pod = await the_pod(place, "app")

    waiting = await when(place, pod, lambda p: "configmaps" in message(p), "the wait for a file")
    greeting = {"greeting": "address 127.0.0.1, file /etc/app/greeting"}
    await place.apply({**identity("v1", "ConfigMap", "app"), "data": greeting})
    running = await when(place, pod, is_ready, "readiness")
    await place.wait(lambda: place.cluster.logs(pod, "c"), what="its output")

    told = json.loads(await place.cluster.logs(pod, "c"))
    address = running["status"]["podIP"]
    assert waiting["status"]["phase"] == "Pending"
    assert told["name"] == pod["metadata"]["name"]
    assert token_claims(told["token"])["sub"] == f"system:serviceaccount:{NAMESPACE}:app"
    assert told["text"].startswith(f"address {address}, file /")
    assert told["text"].endswith("volumes/c/config/greeting")


def message(pod):
    return (pod.get("status") or {}).get("message") or ""


async def test_an_image_that_is_not_there_is_told_and_nothing_runs(place):
    await place.apply(deployment("no-image", ["x"], image="example.com/none:1"))

    pod = await when(place, await the_pod(place, "no-image"), message, "its message")

    assert "example.com/none:1" in message(pod)
    assert pod["status"]["phase"] == "Pending"


async def test_a_deleted_deployment_takes_its_pods_with_it(place):
    manifest = deployment("short", ["python", "-c", "import time; time.sleep(60)"])
    await place.apply(manifest)
    pod = await when(place, await the_pod(place, "short"), is_ready, "readiness")

    await place.delete(manifest)

    async def is_gone():
        return await place.find_pod(pod) is None

    await place.wait(is_gone, what="the end of its pod")


async def test_a_pod_that_is_deleted_by_force_is_replaced_at_once(place):
    ignores = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    await place.apply(deployment("stubborn", ["python", "-c", ignores]))
    pod = await when(place, await the_pod(place, "stubborn"), is_ready, "readiness")

    await place.delete(pod, grace_seconds=0)

    async def replaced():
        return [p for p in await place.pods("stubborn") if p["metadata"] != pod["metadata"]]

    [other] = await place.wait(replaced, what="another pod")
    assert other["metadata"]["uid"] != pod["metadata"]["uid"]
    assert other["status"]["podIP"] != pod["status"]["podIP"]
