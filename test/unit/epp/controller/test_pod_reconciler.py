"""Which endpoints there are after one pod was reconciled. P1 to P12 are the shared vectors."""

import pytest

from epp.backend.metrics_state import MetricsState
from epp.testing.builders import make_endpoint, make_pod, make_pool
from epp.testing.pool_world import PoolWorld
from epp_api.core_v1 import Pod, PodStatus
from epp_api.meta import Condition, NamespacedName

KEY = NamespacedName("default", "pod-0")
ACTIVE_PORTS = "llm-d.ai/active-ports"
ONE = {"default/pod-0-rank-0": "10.0.0.1:8000"}
TWO = {**ONE, "default/pod-0-rank-1": "10.0.0.1:8001"}


async def stored(world: PoolWorld, pod: Pod, ports: tuple[int, ...] = (8000,)) -> None:
    """The pool exists and the pod has been reconciled."""
    world.pools_v1.upsert(make_pool(ports=ports))
    world.pods.upsert(pod)
    await world.reconcile_pool()
    await world.reconcile_pod(pod.metadata.name)


async def test_p1_without_a_pool_a_ready_pod_is_not_stored(world: PoolWorld) -> None:
    world.pods.upsert(make_pod())

    await world.reconcile_pod()

    assert world.endpoints() == {}


async def test_p2_the_pool_finds_pods_that_were_there_before(world: PoolWorld) -> None:
    world.pods.upsert(make_pod())
    await world.reconcile_pod()

    world.pools_v1.upsert(make_pool())
    await world.reconcile_pool()

    assert world.endpoints() == ONE


@pytest.mark.parametrize(
    "pod",
    [
        pytest.param(make_pod(ready=False), id="P3-not-ready"),
        pytest.param(make_pod(ready=None), id="no-ready-condition"),
        pytest.param(make_pod(labels={"app": "y"}), id="P4-other-label"),
        pytest.param(make_pod(deleting=True), id="P5-terminating-but-ready"),
        pytest.param(make_pod(ip=""), id="address-lost"),
        pytest.param(make_pod(annotations={ACTIVE_PORTS: ""}), id="no-active-port"),
        pytest.param(None, id="deleted"),
    ],
)
async def test_a_pod_that_may_not_serve_is_removed(world: PoolWorld, pod: Pod | None) -> None:
    await stored(world, make_pod())
    assert world.endpoints() == ONE

    if pod is None:
        world.pods.delete(KEY)
    else:
        world.pods.upsert(pod)
    await world.reconcile_pod()

    assert world.endpoints() == {}


async def test_only_the_first_ready_condition_counts(world: PoolWorld) -> None:
    conditions = [
        Condition(type="PodScheduled", status="True"),
        Condition(type="Ready", status="False"),
        Condition(type="Ready", status="True"),
    ]
    pod = make_pod()
    status = PodStatus(pod_ip="10.0.0.1", conditions=conditions)

    await stored(world, Pod(metadata=pod.metadata, status=status))

    assert world.endpoints() == {}


async def test_p6_a_new_address_keeps_the_entry_and_its_metrics(world: PoolWorld) -> None:
    await stored(world, make_pod(ip="10.0.0.1"))
    state = MetricsState(waiting_requests=4)
    world.rows.publish(make_endpoint().key, state, now=1.0, due_at=2.0)

    world.pods.upsert(make_pod(ip="10.0.0.9"))
    await world.reconcile_pod()

    assert world.endpoints() == {"default/pod-0-rank-0": "10.0.0.9:8000"}
    assert list(world.datastore.endpoint_table().waiting) == [4.0]


async def test_p9_each_port_is_an_endpoint(world: PoolWorld) -> None:
    await stored(world, make_pod(), ports=(8000, 8001))

    assert world.endpoints() == TWO


async def test_p11_ranks_that_became_inactive_are_removed(world: PoolWorld) -> None:
    await stored(world, make_pod(), ports=(8000, 8001))

    world.pods.upsert(make_pod(annotations={ACTIVE_PORTS: "8001, 9999"}))
    await world.reconcile_pod()

    assert world.endpoints() == {"default/pod-0-rank-1": "10.0.0.1:8001"}


async def test_p12_a_deleted_pod_loses_every_rank(world: PoolWorld) -> None:
    await stored(world, make_pod(), ports=(8000, 8001))

    world.pods.delete(KEY)
    await world.reconcile_pod()
    await world.reconcile_pod()

    assert world.endpoints() == {}


async def test_a_pod_that_comes_back_is_stored_again(world: PoolWorld) -> None:
    await stored(world, make_pod(ready=False))

    world.pods.upsert(make_pod())
    await world.reconcile_pod()

    assert world.endpoints() == ONE


async def test_an_ipv6_pod_is_addressed_in_brackets(world: PoolWorld) -> None:
    await stored(world, make_pod(ip="fd00::1"))

    assert world.endpoints() == {"default/pod-0-rank-0": "[fd00::1]:8000"}
