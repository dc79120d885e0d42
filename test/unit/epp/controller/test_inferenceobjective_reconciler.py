"""Which objectives the pool has after the kind was reconciled."""

import pytest

from epp.testing.builders import make_objective, make_old_pool, make_pool
from epp.testing.pool_world import PoolWorld
from epp_api.meta import NamespacedName
from epp_api.v1alpha2.inferenceobjective_types import InferenceObjective

OLD_GROUP = "inference.networking.x-k8s.io"


@pytest.fixture
async def served(world: PoolWorld) -> PoolWorld:
    """A world with a v1 pool."""
    world.pools_v1.upsert(make_pool())
    await world.reconcile_pool()
    return world


@pytest.mark.parametrize(
    ("objective", "want"),
    [
        pytest.param(make_objective("a", priority=-5), {"a": -5}, id="of-the-pool"),
        pytest.param(make_objective("a", priority=None), {"a": 0}, id="unset-is-0"),
        pytest.param(make_objective("a", deleting=True), {}, id="being-deleted"),
        pytest.param(make_objective("a", pool="q"), {}, id="of-another-pool"),
        pytest.param(make_objective("a", pool=None), {}, id="of-no-pool"),
        pytest.param(make_objective("a", pool_group=OLD_GROUP), {}, id="A8-of-another-group"),
        pytest.param(make_objective("a", namespace="other"), {}, id="of-another-namespace"),
    ],
)
async def test_what_counts(
    served: PoolWorld, objective: InferenceObjective, want: dict[str, int]
) -> None:
    served.objectives.upsert(objective)

    await served.reconcile_objectives()

    assert served.priorities() == want


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(None, id="deleted"),
        pytest.param(make_objective("a", deleting=True), id="being-deleted"),
        pytest.param(make_objective("a", pool="q"), id="moved-to-another-pool"),
        pytest.param(make_objective("a", pool_group=OLD_GROUP), id="moved-to-another-group"),
        pytest.param(make_objective("a", pool=None), id="lost-its-reference"),
    ],
)
async def test_an_objective_that_ceases_to_count_is_let_go(
    served: PoolWorld, change: InferenceObjective | None
) -> None:
    served.objectives.upsert(make_objective("a"))
    await served.reconcile_objectives()
    before = served.priorities()

    if change is None:
        served.objectives.delete(NamespacedName("default", "a"))
    else:
        served.objectives.upsert(change)
    await served.reconcile_objectives()

    assert before == {"a": 1}
    assert served.priorities() == {}


async def test_the_new_version_of_an_object_is_what_counts(served: PoolWorld) -> None:
    for priority in (1, 7):
        served.objectives.upsert(make_objective("a", priority=priority))
        await served.reconcile_objectives()

    assert served.priorities() == {"a": 7}


async def test_without_a_pool_no_objective_counts(world: PoolWorld) -> None:
    world.objectives.upsert(make_objective())

    await world.reconcile_objectives()

    assert world.priorities() == {}


async def test_the_group_is_that_of_the_pool_that_is_served_now(world: PoolWorld) -> None:
    world.objectives.upsert(make_objective("new", pool_group="inference.networking.k8s.io"))
    world.objectives.upsert(make_objective("old", pool_group=OLD_GROUP))
    seen = []

    world.pools_v1alpha2.upsert(make_old_pool())
    await world.reconcile_pool()
    seen.append(set(world.priorities()))
    world.pools_v1.upsert(make_pool())
    await world.reconcile_pool()
    seen.append(set(world.priorities()))
    world.pools_v1.delete(NamespacedName("default", "pool"))
    await world.reconcile_pool()
    seen.append(set(world.priorities()))

    assert seen == [{"old"}, {"new"}, {"old"}]


async def test_d1_a_pool_that_is_created_again_reloads_objectives(served: PoolWorld) -> None:
    served.objectives.upsert(make_objective("a"))
    await served.reconcile_objectives()
    served.pools_v1.delete(NamespacedName("default", "pool"))
    await served.reconcile_pool()
    cleared = served.priorities()
    served.objectives.upsert(make_objective("late", priority=3))

    served.pools_v1.upsert(make_pool())
    await served.reconcile_pool()

    assert cleared == {}
    assert served.priorities() == {"a": 1, "late": 3}
