"""When reconcilers are shown a pool: never before the pods that it selects."""

import contextlib

import pytest

from epp.kube.client import KubeClient
from epp.kube.resource import PODS
from epp.sources.kinds import OLD_POOLS, POOLS
from epp.sources.kubernetes import KubernetesSource
from epp.testing.fake_kube import FakeKube
from epp.testing.fake_kube_faults import Hang
from epp.testing.stack import eventually
from epp_api.meta import NamespacedName

POOL = NamespacedName("test", "p")


@pytest.fixture
async def api():
    async with FakeKube([PODS, POOLS, OLD_POOLS]) as server:
        yield server


@contextlib.asynccontextmanager
async def following(api, **arguments):
    client = KubeClient(api.settings())
    source = KubernetesSource(client, POOL, **arguments)
    await source.start()
    try:
        yield source
    finally:
        await source.stop()
        await client.close()


def pod(name, **labels):
    return {"metadata": {"name": name, "namespace": "test", "labels": labels}}


def pool(**selector):
    spec = {
        "selector": {"matchLabels": selector},
        "targetPorts": [{"number": 8000}],
        "endpointPickerRef": {"name": "epp", "port": {"number": 9002}},
    }
    return {"metadata": {"name": "p", "namespace": "test"}, "spec": spec}


def old_pool(**selector):
    spec = {"selector": selector, "targetPortNumber": 8000, "extensionRef": {"name": "epp"}}
    return {"metadata": {"name": "p", "namespace": "test"}, "spec": spec}


@pytest.mark.parametrize(
    ("resource", "declare", "shown"),
    [
        pytest.param(POOLS, pool, lambda caches: caches.pools_v1, id="v1"),
        pytest.param(OLD_POOLS, old_pool, lambda caches: caches.pools_v1alpha2, id="v1alpha2"),
    ],
)
async def test_a_new_selector_is_shown_after_its_pods_came_and_before_the_others_go(
    api, resource, declare, shown
):
    for number in range(2):
        api.create(PODS, pod(f"blue-{number}", track="blue"))
    api.create(PODS, pod("green", track="green"))
    api.create(resource, declare(track="blue"))
    async with following(api) as source:
        pods, pools = source.caches.pods, shown(source.caches)
        await eventually(lambda: len(pods.list()) == 2 and len(pools.list()) == 1)
        seen = []
        pods.subscribe(lambda event: seen.append(("pod", event.key.name, event.new is None)))
        pools.subscribe(lambda event: seen.append(("pool", event.key.name, event.new is None)))
        seen.clear()

        api.patch(resource, "test", "p", {"spec": declare(track="green")["spec"]})
        await eventually(lambda: len(pods.list()) == 1 and len(seen) == 4)

    assert seen == [
        ("pod", "green", False),
        ("pool", "p", False),
        ("pod", "blue-0", True),
        ("pod", "blue-1", True),
    ]


async def test_a_new_selector_is_shown_where_no_pod_goes(api):
    api.create(POOLS, pool(track="blue"))
    async with following(api) as source:
        pools = source.caches.pools_v1
        await eventually(lambda: api.watching(PODS) == 1 and len(pools.list()) == 1)

        api.patch(POOLS, "test", "p", {"spec": pool(track="green")["spec"]})

        await eventually(lambda: selector_of(pools) == {"track": "green"})


async def test_a_pool_that_goes_while_its_new_pods_are_listed_is_gone_at_once(api):
    api.create(POOLS, pool(track="blue"))
    async with following(api) as source:
        pools = source.caches.pools_v1
        await eventually(lambda: api.watching(PODS) == 1 and len(pools.list()) == 1)
        api.faults.add(Hang(), verb="list", resource="pods")
        api.faults.add(Hang(), verb="watch", resource="pods")

        api.patch(POOLS, "test", "p", {"spec": pool(track="green")["spec"]})
        await eventually(lambda: api.watching(PODS) == 0)
        held = selector_of(pools)
        api.delete(POOLS, "test", "p")

        await eventually(lambda: pools.list() == [])
        assert held == {"track": "blue"}


def selector_of(pools):
    [shown] = pools.list()
    return dict(shown.spec.selector.match_labels)
