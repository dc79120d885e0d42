"""Caches, manager, controllers and datastore together, in memory."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest

from epp.controller.setup import CONTROLLERS, build_controllers
from epp.kube.cache import ObjectCache
from epp.kube.cache_barrier import CacheBarrier
from epp.kube.controller import Controller
from epp.kube.manager import Manager
from epp.testing.builders import (
    make_model,
    make_objective,
    make_old_pool,
    make_pod,
    make_pool,
    make_rewrite,
    make_rule,
)
from epp.testing.pool_world import PoolWorld
from epp_api.meta import NamespacedName

POOL = NamespacedName("default", "pool")


class Stack:
    """A running EPP without its servers."""

    def __init__(self, world: PoolWorld) -> None:
        self.world = world
        self.outcomes: list[tuple[str, str]] = []
        self.controllers: Sequence[Controller] = build_controllers(
            world,
            world.datastore,
            POOL,
            on_outcome=lambda name, outcome: self.outcomes.append((name, outcome)),
        )
        self.caches: Sequence[ObjectCache[Any]] = (
            world.pods,
            world.pools_v1,
            world.pools_v1alpha2,
            world.models,
            world.objectives,
            world.legacy_objectives,
            world.rewrites,
            world.legacy_rewrites,
        )
        self.manager = Manager()
        self.manager.add_group("barrier", CacheBarrier(self.caches))
        self.manager.add_group("controllers", *self.controllers)

    def mark_synced(self) -> None:
        for cache in self.caches:
            cache.mark_synced()

    async def settle(self) -> None:
        """Let the workers run until nothing is left to do."""
        while not all(controller.queue.idle for controller in self.controllers):
            await asyncio.sleep(0)


@pytest.fixture
async def stack(world: PoolWorld) -> AsyncIterator[Stack]:
    stack = Stack(world)
    yield stack
    await stack.manager.stop()


async def started(stack: Stack) -> None:
    stack.mark_synced()
    await stack.manager.start()
    await stack.settle()


async def test_nothing_is_reconciled_before_the_caches_have_synced(
    stack: Stack, world: PoolWorld
) -> None:
    world.pools_v1.upsert(make_pool())
    world.pods.upsert(make_pod())
    starting = asyncio.create_task(stack.manager.start(), name="starting")
    for _ in range(10):
        await asyncio.sleep(0)
    early = (world.datastore.pool_has_synced, starting.done())

    stack.mark_synced()
    await starting
    await stack.settle()

    assert early == (False, False)
    assert world.endpoints() == {"default/pod-0-rank-0": "10.0.0.1:8000"}


async def test_every_kind_of_change_reaches_the_datastore(stack: Stack, world: PoolWorld) -> None:
    await started(stack)

    world.pods.upsert(make_pod())
    world.models.upsert(make_model())
    world.pools_v1.upsert(make_pool())
    await stack.settle()
    world.pods.upsert(make_pod("pod-1", ip="10.0.0.2"))
    world.pods.upsert(make_pod(labels={"app": "y"}))
    world.models.upsert(make_model("older", created=1))
    world.objectives.upsert(make_objective("batch", priority=-5))
    world.rewrites.upsert(make_rewrite("canary", make_rule("v2", match=["food"])))
    await stack.settle()

    assert world.endpoints() == {"default/pod-1-rank-0": "10.0.0.2:8000"}
    assert world.owners() == {"food": "older"}
    assert world.priorities() == {"batch": -5}
    assert world.rewritten("food") == {"food": ["v2"]}
    assert {outcome for _, outcome in stack.outcomes} == {"success"}
    assert {name for name, _ in stack.outcomes} == set(CONTROLLERS)


def test_the_controllers_are_those_that_are_announced(stack: Stack) -> None:
    assert tuple(controller.name for controller in stack.controllers) == CONTROLLERS


async def test_a_pool_deleted_and_created_again_reloads_models_and_pods(
    stack: Stack, world: PoolWorld
) -> None:
    world.pods.upsert(make_pod())
    world.models.upsert(make_model())
    world.pools_v1.upsert(make_pool())
    await started(stack)

    world.pools_v1.delete(POOL)
    await stack.settle()
    after_deletion = (world.endpoints(), world.owners(), world.datastore.pool_has_synced)
    world.pods.upsert(make_pod("late", ip="10.0.0.2"))
    world.models.upsert(make_model("late", model_name="chat"))
    await stack.settle()
    without_pool = (world.endpoints(), world.owners())
    world.pools_v1.upsert(make_pool())
    await stack.settle()

    assert after_deletion == ({}, {}, False)
    assert without_pool == ({}, {})
    assert sorted(world.endpoints()) == ["default/late-rank-0", "default/pod-0-rank-0"]
    assert world.owners() == {"chat": "late", "food": "model"}


async def test_the_older_api_version_is_watched_too(stack: Stack, world: PoolWorld) -> None:
    await started(stack)

    world.pools_v1alpha2.upsert(make_old_pool(port=8200))
    world.pods.upsert(make_pod())
    await stack.settle()

    assert world.endpoints() == {"default/pod-0-rank-0": "10.0.0.1:8200"}


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda world: world.pools_v1.upsert(make_pool("q")), id="foreign-pool"),
        pytest.param(
            lambda world: world.pods.upsert(make_pod("alien", labels={"app": "y"})),
            id="unselected-pod",
        ),
        pytest.param(
            lambda world: world.models.upsert(make_model(pool="q")), id="model-of-another-pool"
        ),
        pytest.param(
            lambda world: world.objectives.upsert(make_objective(pool="q")),
            id="objective-of-another-pool",
        ),
        pytest.param(
            lambda world: world.legacy_objectives.upsert(make_objective(namespace="other")),
            id="objective-of-another-namespace",
        ),
        pytest.param(
            lambda world: world.rewrites.upsert(make_rewrite(pool=None)), id="rewrite-of-no-pool"
        ),
        pytest.param(
            lambda world: world.models.upsert(make_model(namespace="other")),
            id="model-of-another-namespace",
        ),
    ],
)
async def test_what_does_not_concern_the_pool_costs_no_reconcile(
    stack: Stack, world: PoolWorld, change: Callable[[PoolWorld], None]
) -> None:
    world.pools_v1.upsert(make_pool())
    await started(stack)
    stack.outcomes.clear()

    change(world)
    await stack.settle()

    assert stack.outcomes == []


async def test_a_model_that_moves_to_another_pool_is_let_go(stack: Stack, world: PoolWorld) -> None:
    world.pools_v1.upsert(make_pool())
    world.models.upsert(make_model())
    await started(stack)
    before = world.owners()

    world.models.upsert(make_model(pool="q"))
    await stack.settle()

    assert before == {"food": "model"}
    assert world.owners() == {}


async def test_an_objective_that_moves_to_another_pool_is_let_go(
    stack: Stack, world: PoolWorld
) -> None:
    world.pools_v1.upsert(make_pool())
    world.objectives.upsert(make_objective("batch"))
    await started(stack)
    before = world.priorities()

    world.objectives.upsert(make_objective("batch", pool="q"))
    await stack.settle()

    assert before == {"batch": 1}
    assert world.priorities() == {}


async def test_the_older_group_takes_over_when_the_last_newer_object_goes(
    stack: Stack, world: PoolWorld
) -> None:
    world.pools_v1.upsert(make_pool())
    world.rewrites.upsert(make_rewrite("new", make_rule("n")))
    world.legacy_rewrites.upsert(make_rewrite("old", make_rule("o")))
    await started(stack)
    before = world.rewritten("any")

    world.rewrites.delete(NamespacedName("default", "new"))
    await stack.settle()

    assert before == {"any": ["n"]}
    assert world.rewritten("any") == {"any": ["o"]}


async def test_a_burst_of_rewrites_is_one_pass(stack: Stack, world: PoolWorld) -> None:
    world.pools_v1.upsert(make_pool())
    await started(stack)
    stack.outcomes.clear()

    for number in range(100):
        world.rewrites.upsert(make_rewrite(f"r{number}", make_rule(f"t{number}", match=["m"])))
    await stack.settle()

    assert len(world.datastore.rewrite_list()) == 100
    assert stack.outcomes == [("inferencemodelrewrite", "success")]


async def test_a_storm_of_pods_leaves_the_loop_breathing(stack: Stack, world: PoolWorld) -> None:
    world.pools_v1.upsert(make_pool())
    await started(stack)
    for number in range(200):
        world.pods.upsert(make_pod(f"pod-{number:03}", ip=f"10.0.1.{number}"))

    turns = 0
    while not all(controller.queue.idle for controller in stack.controllers):
        turns += 1
        await asyncio.sleep(0)

    assert turns >= 200
    assert len(world.endpoints()) == 200
