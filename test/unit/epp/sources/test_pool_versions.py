"""A pool of both versions: which one says what the pods of the pool are."""

import contextlib

import pytest

from epp.kube.client import KubeClient
from epp.kube.resource import PODS
from epp.sources.kinds import OLD_POOLS, POOLS
from epp.sources.kubernetes import KubernetesSource
from epp.testing.fake_kube import FakeKube
from epp.testing.stack import eventually
from epp_api.meta import NamespacedName

POOL = NamespacedName("test", "p")
META = {"name": "p", "namespace": "test"}


@pytest.fixture
async def api():
    async with FakeKube([PODS, POOLS, OLD_POOLS]) as server:
        for track in ("new", "old"):
            labels = {"track": track}
            server.create(
                PODS, {"metadata": {"name": track, "namespace": "test", "labels": labels}}
            )
        yield server


@contextlib.asynccontextmanager
async def following(api):
    client = KubeClient(api.settings())
    source = KubernetesSource(client, POOL)
    await source.start()
    try:
        yield source.caches
    finally:
        await source.stop()
        await client.close()


def current(track="new"):
    spec = {
        "selector": {"matchLabels": {"track": track}},
        "targetPorts": [{"number": 8000}],
        "endpointPickerRef": {"name": "epp", "port": {"number": 9002}},
    }
    return {"metadata": META, "spec": spec}


def old(track="old"):
    spec = {
        "selector": {"track": track},
        "targetPortNumber": 8000,
        "extensionRef": {"name": "epp"},
    }
    return {"metadata": META, "spec": spec}


async def watches(api, caches, track):
    """Wait until the pods of this selector are known and followed, and no others."""

    def does():
        known = [pod.metadata.name for pod in caches.pods.list()]
        selectors = {one.query.get("labelSelector") for one in pod_watchers(api)}
        return (known, selectors) == ([track], {f"track={track}"})

    await eventually(does, what=f"the pods of track={track}")


def pod_watchers(api):
    return [watcher for watcher in api.watchers if watcher.resource == PODS]


async def test_the_pods_of_both_are_those_of_v1(api):
    api.create(POOLS, current())
    api.create(OLD_POOLS, old())

    async with following(api) as caches:
        await watches(api, caches, "new")

    asked = [one for one in api.requests if one.path.endswith("/pods")]
    assert {one.query["labelSelector"] for one in asked} == {"track=new"}


@pytest.mark.parametrize(
    ("change", "want"),
    [
        pytest.param(lambda api: api.delete(POOLS, *POOL), "old", id="v1-goes"),
        pytest.param(lambda api: api.delete(OLD_POOLS, *POOL), "new", id="v1alpha2-goes"),
        pytest.param(
            lambda api: api.patch(POOLS, *POOL, {"metadata": {"deletionTimestamp": "2026-01-01"}}),
            "old",
            id="v1-is-being-deleted",
        ),
    ],
)
async def test_the_version_that_is_left_counts(api, change, want):
    api.create(POOLS, current())
    api.create(OLD_POOLS, old())
    async with following(api) as caches:
        await watches(api, caches, "new")

        change(api)

        await watches(api, caches, want)


async def test_v1_counts_as_soon_as_it_comes(api):
    api.create(OLD_POOLS, old())
    async with following(api) as caches:
        await watches(api, caches, "old")

        api.create(POOLS, current())

        await watches(api, caches, "new")


async def test_a_change_of_v1alpha2_beside_v1_changes_nothing(api):
    api.create(POOLS, current())
    api.create(OLD_POOLS, old())
    async with following(api) as caches:
        await watches(api, caches, "new")

        api.patch(OLD_POOLS, *POOL, {"spec": {"selector": {"track": "older"}}})
        await eventually(lambda: caches.pools_v1alpha2.list()[0].spec.selector["track"] == "older")

        await watches(api, caches, "new")
    asked = [one for one in api.requests if one.path.endswith("/pods")]
    assert {one.query["labelSelector"] for one in asked} == {"track=new"}
