"""Pods come and go while requests flow: through the real API server, and faster from a replay.

The served set is right within a second of the last event, no request is sent to a pod that has
been gone for a second, and memory is flat. ``test/perf/bench_churn.py`` does the same for 30 s and
prints numbers.
"""

import time

import pytest
import yaml

from epp.kube.resource import PODS
from epp.sources.kinds import KINDS, POOLS
from epp.standalone import local_http
from epp.testing.fake_kube import DEFAULT_RESOURCES, FakeKube
from epp.testing.kube_manifests import pod, pool
from epp.testing.pick_stream import PickStream
from epp.testing.pod_churn import ApiPods, FakePods, PodChurn
from epp.testing.process_usage import resident_mb
from epp.testing.serve import Serve
from epp.testing.stack import eventually

PORT = 8124
KEPT = [pod(f"kept-{number}", f"127.89.0.{number}") for number in range(1, 4)]
RIGHT_SECONDS = 1.0
WARM_UP_SECONDS = 2

GROWTH_MB = 16.0
"""What memory may grow by after the warm-up: 5 to 8 are measured, while the log of decisions and
other things with a bound fill up. A kilobyte that each event left behind would be too much."""


def arguments(kubeconfig, namespace):
    return [
        *("--pool-name", "pool", "--pool-namespace", namespace, "--kubeconfig", str(kubeconfig)),
        *("--secure-serving=false", "--metrics-endpoint-auth=false", "--drain-timeout=0"),
    ]


async def pods_of(epp):
    view = await local_http.get_json("127.0.0.1", epp.metrics_port, "/debug/pool")
    return {endpoint["pod"] for endpoint in view["endpoints"]}


async def right_after(epp, churn):
    """Seconds from the last event until exactly the right pods are served."""
    right = churn.ready | {state.name for state in KEPT}

    async def is_right():
        return await pods_of(epp) == right

    await eventually(is_right, what="the right pods")
    return time.monotonic() - churn.quiet_since


async def test_200_events_a_second_of_a_real_api_server(
    tmp_path, control_plane, account, people, admin
):
    await people.put(pool(ports=(PORT,)), *KEPT)
    kubeconfig = control_plane.kubeconfig(account.token)
    churn = PodChurn(ApiPods(admin, people.name), port=PORT, per_second=200)
    async with Serve(tmp_path, *arguments(kubeconfig, people.name)) as epp:
        async with PickStream(epp.grpc_port) as picks:
            await churn.run(200 * WARM_UP_SECONDS)
            warm = resident_mb(epp.process_id)
            await churn.run(2000)
            waited = await right_after(epp, churn)
            await picks.more(20)
            grown = resident_mb(epp.process_id) - warm

    assert waited < RIGHT_SECONDS
    assert grown < GROWTH_MB
    assert picks.failures == []
    assert picks.late(churn.gone) == []
    assert len({pick.target for pick in picks.picks} & set(churn.gone)) > 20
    assert len(churn.gone) > 300


@pytest.fixture
async def kube():
    resources = {*DEFAULT_RESOURCES, *(kind.resource for kind in KINDS)}
    async with FakeKube(sorted(resources, key=lambda one: one.root + one.plural)) as running:
        yield running


async def test_1000_events_a_second_of_a_replayed_watch(tmp_path, kube):
    namespace = "replay"
    made = pool(ports=(PORT,))
    made["metadata"]["namespace"] = namespace
    kube.create(POOLS, made)
    pods = FakePods(kube, namespace)
    for state in KEPT:
        await pods.create(state)
        await pods.report(state)
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(yaml.safe_dump(config_for(kube.url)))
    churn = PodChurn(pods, port=PORT, per_second=1000)
    async with Serve(tmp_path, *arguments(kubeconfig, namespace)) as epp:
        async with PickStream(epp.grpc_port) as picks:
            await churn.run(1000 * WARM_UP_SECONDS)
            warm = resident_mb(epp.process_id)
            await churn.run(10_000)
            waited = await right_after(epp, churn)
            await picks.more(20)
            grown = resident_mb(epp.process_id) - warm
        assert kube.count("watch", PODS) == 1

    assert waited < RIGHT_SECONDS
    assert grown < GROWTH_MB
    assert picks.failures == []
    assert picks.late(churn.gone) == []
    assert len({pick.target for pick in picks.picks} & set(churn.gone)) > 20
    assert len(churn.gone) > 2000


def config_for(url):
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "fake",
        "clusters": [{"name": "fake", "cluster": {"server": url}}],
        "users": [{"name": "fake", "user": {}}],
        "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "fake"}}],
    }
