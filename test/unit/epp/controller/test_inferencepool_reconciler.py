"""The pool and everything that hangs on it, after the pool's key was reconciled."""

import pytest
from structlog.testing import capture_logs

from epp.testing.builders import make_model, make_old_pool, make_pod, make_pool
from epp.testing.pool_world import PoolWorld
from epp_api.meta import NamespacedName, ObjectMeta
from epp_api.v1alpha2 import inferencepool_types as v1alpha2

POOL = NamespacedName("default", "pool")


def pool_key(world: PoolWorld) -> NamespacedName | None:
    pool = world.datastore.pool_get()
    return None if pool is None else pool.key


async def running(world: PoolWorld, ports: tuple[int, ...] = (8000,)) -> None:
    """A pool with a pod and a model."""
    world.pools_v1.upsert(make_pool(ports=ports))
    world.pods.upsert(make_pod())
    world.models.upsert(make_model())
    await world.reconcile_pool()


async def test_a_new_pool_loads_pods_and_models(world: PoolWorld) -> None:
    await running(world)

    assert pool_key(world) == POOL
    assert world.endpoints() == {"default/pod-0-rank-0": "10.0.0.1:8000"}
    assert world.owners() == {"food": "model"}


@pytest.mark.parametrize("how", [pytest.param("gone", id="P8-gone"), "deleting"])
async def test_a_pool_that_is_deleted_clears_everything(world: PoolWorld, how: str) -> None:
    await running(world)

    if how == "gone":
        world.pools_v1.delete(POOL)
    else:
        world.pools_v1.upsert(make_pool(deleting=True))
    await world.reconcile_pool()

    assert not world.datastore.pool_has_synced
    assert world.endpoints() == {}
    assert world.owners() == {}


async def test_d1_a_pool_that_is_created_again_reloads_pods_and_models(world: PoolWorld) -> None:
    await running(world)
    world.pools_v1.delete(POOL)
    await world.reconcile_pool()
    world.models.upsert(make_model("late", model_name="chat"))
    world.pods.upsert(make_pod("pod-1", ip="10.0.0.2"))

    world.pools_v1.upsert(make_pool())
    await world.reconcile_pool()

    assert world.owners() == {"chat": "late", "food": "model"}
    assert sorted(world.endpoints()) == ["default/pod-0-rank-0", "default/pod-1-rank-0"]


async def test_p7_another_selector_exchanges_the_pods(world: PoolWorld) -> None:
    await running(world)
    world.pods.upsert(make_pod("pod-1", ip="10.0.0.2"))
    world.pods.upsert(make_pod("other", ip="10.0.0.3", labels={"app": "y"}))
    world.pods.upsert(make_pod("unready", ip="10.0.0.4", labels={"app": "y"}, ready=False))
    world.pods.upsert(make_pod("dying", ip="10.0.0.5", labels={"app": "y"}, deleting=True))
    await world.reconcile_pool()
    before = sorted(world.endpoints())

    world.pools_v1.upsert(make_pool(selector={"app": "y"}))
    await world.reconcile_pool()

    assert before == ["default/pod-0-rank-0", "default/pod-1-rank-0"]
    assert world.endpoints() == {"default/other-rank-0": "10.0.0.3:8000"}


@pytest.mark.parametrize(
    ("before", "after", "want"),
    [
        pytest.param((8000, 8001), (8000,), {"rank-0": 8000}, id="P10-fewer"),
        pytest.param((8000,), (8000, 8001), {"rank-0": 8000, "rank-1": 8001}, id="more"),
        pytest.param((8000,), (9000,), {"rank-0": 9000}, id="another-number"),
        pytest.param(
            (8000, 8001), (8001, 8000), {"rank-0": 8001, "rank-1": 8000}, id="order-renames"
        ),
    ],
)
async def test_other_target_ports_exchange_the_endpoints(
    world: PoolWorld, before: tuple[int, ...], after: tuple[int, ...], want: dict[str, int]
) -> None:
    await running(world, ports=before)

    world.pools_v1.upsert(make_pool(ports=after))
    await world.reconcile_pool()

    assert world.endpoints() == {
        f"default/pod-0-{rank}": f"10.0.0.1:{port}" for rank, port in want.items()
    }


async def test_d2_a_pass_without_any_change_repairs_what_was_missed(world: PoolWorld) -> None:
    await running(world)
    world.pods.upsert(make_pod("missed", ip="10.0.0.2"))
    world.pods.delete(NamespacedName("default", "pod-0"))
    world.models.delete(NamespacedName("default", "model"))
    world.models.upsert(make_model("missed", model_name="chat"))

    await world.reconcile_pool()

    assert world.endpoints() == {"default/missed-rank-0": "10.0.0.2:8000"}
    assert world.owners() == {"chat": "missed"}


async def test_another_pool_is_none_of_our_business(world: PoolWorld) -> None:
    await running(world)
    world.pools_v1.upsert(make_pool("q", selector={"app": "y"}))

    await world.reconcile_pool(NamespacedName("default", "q"))
    await world.reconcile_pool(NamespacedName("other", "pool"))

    assert pool_key(world) == POOL
    assert world.owners() == {"food": "model"}


async def test_models_of_another_pool_are_not_loaded(world: PoolWorld) -> None:
    world.models.upsert(make_model("m1", pool="q"))

    await running(world)

    assert world.owners() == {"food": "model"}


async def test_a_v1alpha2_pool_serves_alone(world: PoolWorld) -> None:
    world.pools_v1alpha2.upsert(make_old_pool(port=8200))
    world.pods.upsert(make_pod())

    await world.reconcile_pool()

    assert world.endpoints() == {"default/pod-0-rank-0": "10.0.0.1:8200"}


async def test_v1_counts_when_both_versions_exist_and_that_is_said_once(world: PoolWorld) -> None:
    world.pods.upsert(make_pod())
    world.pools_v1alpha2.upsert(make_old_pool(port=8200))
    world.pools_v1.upsert(make_pool(ports=(8000,)))

    with capture_logs() as logs:
        await world.reconcile_pool()
        await world.reconcile_pool()

    assert world.endpoints() == {"default/pod-0-rank-0": "10.0.0.1:8000"}
    said = [line for line in logs if line["event"] == "pool exists in two API versions, v1 counts"]
    assert len(said) == 1


@pytest.mark.parametrize("how", ["gone", "deleting"])
async def test_the_older_version_takes_over_when_v1_goes(world: PoolWorld, how: str) -> None:
    world.pods.upsert(make_pod())
    world.pools_v1alpha2.upsert(make_old_pool(port=8200))
    world.pools_v1.upsert(make_pool(ports=(8000,)))
    await world.reconcile_pool()

    if how == "gone":
        world.pools_v1.delete(POOL)
    else:
        world.pools_v1.upsert(make_pool(deleting=True))
    await world.reconcile_pool()

    assert world.endpoints() == {"default/pod-0-rank-0": "10.0.0.1:8200"}


async def test_a_pool_without_spec_is_said_and_serves_nothing(world: PoolWorld) -> None:
    world.pools_v1alpha2.upsert(v1alpha2.InferencePool(metadata=ObjectMeta(name="pool")))

    with capture_logs() as logs:
        await world.reconcile_pool()

    assert not world.datastore.pool_has_synced
    assert [line["event"] for line in logs] == ["pool has no spec"]
