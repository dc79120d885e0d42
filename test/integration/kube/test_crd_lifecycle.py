"""Kinds that a cluster does not have, gets later, and loses again.

On a control plane of its own that begins without our CRDs: to delete one takes every object of its
kind away, wherever it is. It streams no lists, as older API servers do not.
"""

import asyncio
import functools
import random
from collections import Counter

import pytest_asyncio
from structlog.testing import capture_logs

from epp.requestcontrol.model_resolution import UnknownModelPolicy, resolve_model
from epp.testing.api_admin import identity
from epp.testing.envtest import LocalControlPlane
from epp.testing.kube_account import pool_account
from epp.testing.kube_manifests import (
    CURRENT,
    LEGACY,
    model,
    objective,
    old_pool,
    pod,
    pool,
    rewrite,
    rule,
)
from epp.testing.kube_world import KubeWorld, PoolNamespace
from epp.testing.stack import eventually

NAMESPACE = "bare"
POOLS = "inferencepools.inference.networking.k8s.io"
OLD_POOLS = "inferencepools.inference.networking.x-k8s.io"
MODELS = "inferencemodels.inference.networking.x-k8s.io"
PAGES = "server does not stream lists, using pages"
MISSING = "kind is not served, waiting for it"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def bare_plane(assets, tmp_path_factory):
    """A control plane without any CRD."""
    directory = tmp_path_factory.mktemp("bare-control-plane")
    flags = ["--feature-gates=WatchList=false"]
    async with LocalControlPlane(assets, directory, api_server_flags=flags) as running:
        async with running.admin() as admin:
            await admin.apply([identity("v1", "Namespace", NAMESPACE)])
        yield running


class Cluster:
    """The bare cluster, and CRDs to install and delete."""

    def __init__(self, plane, admin, account, crds):
        self.people = PoolNamespace(admin, NAMESPACE)
        self.admin = admin
        self._account = account
        self._crds = {crd["metadata"]["name"]: crd for crd in crds}

    def world(self):
        return KubeWorld(self._account.connection(), self.people.pool_key)

    async def install(self, *names):
        await self.admin.apply([self._crds[name] for name in names])

    async def uninstall(self, *names):
        for name in names:
            crd = self._crds[name]
            await self.admin.delete(crd)
            await eventually(functools.partial(self._is_gone, crd), what=f"{name} to be gone")

    async def uninstall_all(self):
        await self.uninstall(*self._crds)

    async def _is_gone(self, crd):
        return await self.admin.find(crd) is None


@pytest_asyncio.fixture
async def cluster(bare_plane, crds, shipped):
    async with bare_plane.admin() as admin:
        account = pool_account(bare_plane, admin, shipped(NAMESPACE))
        await account.create()
        made = Cluster(bare_plane, admin, account, crds)
        yield made
        await made.uninstall_all()
        for name in ("a", "b"):
            await made.people.delete(pod(name))


def said(logs, event):
    return [line for line in logs if line["event"] == event]


async def test_every_kind_is_off_on_and_off_again(cluster):
    with capture_logs() as logs:
        async with cluster.world() as world:
            await world.idle()
            assert not world.datastore.pool_has_synced
            assert off(logs) == ALL_OFF

            await the_older_pool_comes(cluster, world)
            await the_rest_comes(cluster, world)
            paged = Counter(line["kind"] for line in said(logs, PAGES))
            assert paged == {**ALL_OFF, "Pod": 1}

            await all_but_the_older_pool_goes(cluster, world)
            await eventually(lambda: off(logs) == OFF_AGAIN, what="all but one to be off")
            assert resolved("anything", world).target_model == "anything"
            await cluster.install(*NEXT_TO_POOLS)
            await eventually(lambda: on(logs) == ON_AGAIN, what="kinds to be followed again")
            await cluster.uninstall(OLD_POOLS)
            await world.until(lambda: not world.datastore.pool_has_synced)
            changes = [what for what, *_ in world.journal.lines]

    assert world.endpoints == {}
    assert changes == ["added", "changed", "changed", "removed"]
    assert len(said(logs, "pool does not exist yet, waiting for it")) == 1
    assert len(said(logs, "pool exists in two API versions, v1 counts")) == 1
    assert [line for line in logs if line["log_level"] == "error"] == []


async def the_older_pool_comes(cluster, world):
    """As in a cluster that has the older version alone."""
    await cluster.install(OLD_POOLS)
    await cluster.people.put(old_pool(port=7000), pod("a"))
    await world.until(lambda: world.endpoints == {"a-rank-0": "10.0.0.1:7000"})
    assert resolved("anything", world).target_model == "anything"


async def the_rest_comes(cluster, world):
    """The newer version counts, and with it what names the pool of its API group."""
    await cluster.install(POOLS, *NEXT_TO_POOLS)
    # Together: an API server holds the first object of a kind that is new back for two seconds.
    await asyncio.gather(*(cluster.people.put(one) for one in REST))
    await world.until(lambda: world.endpoints == {"a-rank-0": "10.0.0.1:8000"})
    await world.until(lambda: state(world) == STATE, what="every kind to be followed")
    assert resolved("food", world).target_model == "r7"


async def all_but_the_older_pool_goes(cluster, world):
    await cluster.uninstall(POOLS, *NEXT_TO_POOLS)
    await world.until(lambda: world.endpoints == {"a-rank-0": "10.0.0.1:7000"})
    await world.until(lambda: state(world) == ({}, {}, []), what="nothing of the rest")


async def test_a_cluster_of_the_newer_version_alone(cluster):
    await cluster.install(POOLS)
    await cluster.people.put(pool(), pod("a"))

    async with cluster.world() as world:
        await world.serves("a")


def off(logs):
    """How often each kind was said to be missing; two API groups count as one kind."""
    return Counter(line["kind"] for line in said(logs, MISSING))


def on(logs):
    """The same for kinds that are followed."""
    return Counter(line["kind"] for line in said(logs, "following a kind"))


NEXT_TO_POOLS = (
    MODELS,
    "inferenceobjectives.llm-d.ai",
    "inferencemodelrewrites.llm-d.ai",
    "inferenceobjectives.inference.networking.x-k8s.io",
    "inferencemodelrewrites.inference.networking.x-k8s.io",
)
ALL_OFF = {
    "InferencePool": 2,
    "InferenceModel": 1,
    "InferenceObjective": 2,
    "InferenceModelRewrite": 2,
}
OFF_AGAIN = {kind: 3 if kind == "InferencePool" else 2 * times for kind, times in ALL_OFF.items()}
ON_AGAIN = {kind: 2 if kind == "InferencePool" else 2 * times for kind, times in ALL_OFF.items()}
ON_AGAIN["Pod"] = 1
REST = (
    pool(ports=(8000,)),
    model("m", "food", targets={"r7": 1}),
    objective("o", 3, api_version=CURRENT),
    objective("ignored", 4, api_version=LEGACY),
    rewrite("r", rule("t", match=["bot"]), api_version=LEGACY),
)
STATE = ({"food": "m"}, {"o": 3}, ["t"])


def state(world):
    return world.models, world.objectives, world.target_of("bot")


def resolved(name, world):
    return resolve_model(name, world.datastore, UnknownModelPolicy.AUTO, random.Random(1))
