"""InferencePool and Pod, row by row: what is in the cluster, what happens, what is served.

Rows P1 to P12 are those of the specification (datastore-and-reconcilers, 14); the others are the
rows of its reconciler tables (3.1, 3.2, 4, 8). Everything is read as the ServiceAccount that we
ship, from a real API server.
"""

from dataclasses import dataclass, field
from typing import Any

import pytest

from epp.backend.metrics_state import MetricsState
from epp.testing.kube_manifests import HOLD, old_pool, pod, pool
from epp.testing.kube_world import PAGED

OTHER = {"app": "y"}
BOTH_PORTS = (8000, 8001)
ACTIVE = "llm-d.ai/active-ports"
OLD_ACTIVE = "inference.networking.k8s.io/active-ports"
WITHOUT_SPEC = {key: value for key, value in old_pool().items() if key != "spec"}
READY = {"pod-0-rank-0": "10.0.0.1:8000"}


def put(*wanted):
    async def step(people):
        await people.put(*wanted)

    return step


def delete(wanted, grace_seconds=0):
    async def step(people):
        await people.delete(wanted, grace_seconds=grace_seconds)

    return step


@dataclass(frozen=True, kw_only=True)
class Row:
    """What is there, what is served then, what happens, what is served after it."""

    given: tuple[Any, ...] = ()
    before: dict[str, Any] = field(default_factory=dict)
    event: object
    want: dict[str, Any]


ROWS = {
    "p1-a-pod-before-the-pool": Row(event=put(pod()), want={}),
    "p2-the-pool-after-the-pod": Row(given=(pod(),), event=put(pool()), want=READY),
    "p3-a-pod-becomes-unready": Row(
        given=(pool(), pod()), before=READY, event=put(pod(ready=False)), want={}
    ),
    "p4-a-pod-loses-its-label": Row(
        given=(pool(), pod()), before=READY, event=put(pod(labels=OTHER)), want={}
    ),
    "p5-a-pod-is-being-deleted-and-still-ready": Row(
        given=(pool(), pod()), before=READY, event=delete(pod(), grace_seconds=600), want={}
    ),
    "p5-a-pod-waits-for-its-finalizer": Row(
        given=(pool(), pod(finalizers=(HOLD,))), before=READY, event=delete(pod()), want={}
    ),
    "p6-a-pod-moves": Row(
        given=(pool(), pod()),
        before=READY,
        event=put(pod(ip="10.0.0.9")),
        want={"pod-0-rank-0": "10.0.0.9:8000"},
    ),
    "p7-the-selector-changes": Row(
        given=(pool(), pod("a"), pod("b", "10.0.0.2"), pod("c", "10.0.0.3", labels=OTHER)),
        before={"a-rank-0": "10.0.0.1:8000", "b-rank-0": "10.0.0.2:8000"},
        event=put(pool(selector=OTHER)),
        want={"c-rank-0": "10.0.0.3:8000"},
    ),
    "p8-the-pool-is-deleted": Row(
        given=(pool(), pod()), before=READY, event=delete(pool()), want={}
    ),
    "p8-the-pool-waits-for-its-finalizer": Row(
        given=(pool(finalizers=(HOLD,)), pod()), before=READY, event=delete(pool()), want={}
    ),
    "p9-a-pod-of-two-ports": Row(
        given=(pool(ports=BOTH_PORTS),),
        event=put(pod()),
        want={"pod-0-rank-0": "10.0.0.1:8000", "pod-0-rank-1": "10.0.0.1:8001"},
    ),
    "p10-a-port-is-taken-away": Row(
        given=(pool(ports=BOTH_PORTS), pod()),
        before={"pod-0-rank-0": "10.0.0.1:8000", "pod-0-rank-1": "10.0.0.1:8001"},
        event=put(pool(ports=(8000,))),
        want=READY,
    ),
    "p11-active-ports-with-a-foreign-one": Row(
        given=(pool(ports=BOTH_PORTS), pod()),
        before={"pod-0-rank-0": "10.0.0.1:8000", "pod-0-rank-1": "10.0.0.1:8001"},
        event=put(pod(annotations={ACTIVE: "8001, 9999"})),
        want={"pod-0-rank-1": "10.0.0.1:8001"},
    ),
    "p12-a-pod-of-two-ports-is-deleted": Row(
        given=(pool(ports=BOTH_PORTS), pod()),
        before={"pod-0-rank-0": "10.0.0.1:8000", "pod-0-rank-1": "10.0.0.1:8001"},
        event=delete(pod()),
        want={},
    ),
    "active-ports-by-their-older-name": Row(
        given=(pool(ports=BOTH_PORTS),),
        event=put(pod(annotations={OLD_ACTIVE: "8000"})),
        want=READY,
    ),
    "active-ports-without-a-usable-one": Row(
        given=(pool(ports=BOTH_PORTS), pod(annotations={ACTIVE: "8000"})),
        before=READY,
        event=put(pod(annotations={ACTIVE: "none"})),
        want={},
    ),
    "ports-in-another-order-are-other-ranks": Row(
        given=(pool(ports=BOTH_PORTS), pod(annotations={ACTIVE: "8000"})),
        before=READY,
        event=put(pool(ports=(8001, 8000))),
        want={"pod-0-rank-1": "10.0.0.1:8000"},
    ),
    "another-port": Row(
        given=(pool(), pod()),
        before=READY,
        event=put(pool(ports=(9000,))),
        want={"pod-0-rank-0": "10.0.0.1:9000"},
    ),
    "an-unready-pod": Row(given=(pool(),), event=put(pod(ready=False)), want={}),
    "a-pod-without-the-condition": Row(given=(pool(),), event=put(pod(ready=None)), want={}),
    "a-pod-without-an-address": Row(given=(pool(),), event=put(pod(ip="")), want={}),
    "a-pod-becomes-ready": Row(given=(pool(), pod(ready=False)), event=put(pod()), want=READY),
    "a-pod-gets-the-label": Row(given=(pool(), pod(labels=OTHER)), event=put(pod()), want=READY),
    "a-pod-with-more-labels": Row(
        given=(pool(),), event=put(pod(labels={"app": "x", "tier": "gpu"})), want=READY
    ),
    "a-selector-of-two-labels": Row(
        given=(pool(selector={"app": "x", "tier": "gpu"}), pod("half")),
        event=put(pod("whole", labels={"app": "x", "tier": "gpu"})),
        want={"whole-rank-0": "10.0.0.1:8000"},
    ),
    "an-ipv6-pod": Row(
        given=(pool(),), event=put(pod(ip="fd00::7")), want={"pod-0-rank-0": "[fd00::7]:8000"}
    ),
    "a-pool-of-v1alpha2": Row(given=(pod(),), event=put(old_pool()), want=READY),
    "another-port-in-v1alpha2": Row(
        given=(old_pool(), pod()),
        before=READY,
        event=put(old_pool(port=9000)),
        want={"pod-0-rank-0": "10.0.0.1:9000"},
    ),
    "another-selector-in-v1alpha2": Row(
        given=(old_pool(), pod(), pod("c", "10.0.0.3", labels=OTHER)),
        before=READY,
        event=put(old_pool(selector=OTHER)),
        want={"c-rank-0": "10.0.0.3:8000"},
    ),
    "an-empty-selector-of-v1alpha2-takes-every-pod": Row(
        given=(old_pool(),),
        event=put(old_pool(selector={}), pod(labels=OTHER)),
        want=READY,
    ),
    "a-pool-of-v1alpha2-gets-its-spec": Row(
        given=(WITHOUT_SPEC, pod()), event=put(old_pool()), want=READY
    ),
    "a-pool-of-v1alpha2-loses-its-spec": Row(
        given=(old_pool(), pod()), before=READY, event=put(WITHOUT_SPEC), want={}
    ),
    "v1-beside-v1alpha2-counts": Row(
        given=(old_pool(), pod()),
        before=READY,
        event=put(pool(ports=(9000,))),
        want={"pod-0-rank-0": "10.0.0.1:9000"},
    ),
    "the-selector-of-v1-counts-beside-v1alpha2": Row(
        given=(old_pool(selector=OTHER), pod(), pod("c", "10.0.0.3", labels=OTHER)),
        before={"c-rank-0": "10.0.0.3:8000"},
        event=put(pool()),
        want=READY,
    ),
    "the-selector-of-v1alpha2-counts-after-v1": Row(
        given=(old_pool(selector=OTHER), pool(), pod(), pod("c", "10.0.0.3", labels=OTHER)),
        before=READY,
        event=delete(pool()),
        want={"c-rank-0": "10.0.0.3:8000"},
    ),
    "v1alpha2-takes-over-from-v1": Row(
        given=(old_pool(port=9000), pool(), pod()),
        before=READY,
        event=delete(pool()),
        want={"pod-0-rank-0": "10.0.0.1:9000"},
    ),
    "another-pool-is-nobody's-business": Row(
        given=(pool(), pod()), before=READY, event=put(pool("other", selector=OTHER)), want=READY
    ),
    "an-unselected-pod-is-nobody's-business": Row(
        given=(pool(), pod()), before=READY, event=put(pod("c", labels=OTHER)), want=READY
    ),
}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
async def test_the_served_set_follows_the_cluster(world, people, row):
    await people.put(*row.given)
    await world.until(lambda: world.endpoints == row.before, what="what is served before")

    await row.event(people)

    await world.until(lambda: world.endpoints == row.want, what="what is served after")
    await nothing_more_happens(world, people)
    assert {k: v for k, v in world.endpoints.items() if k != "zz-rank-0"} == row.want


async def nothing_more_happens(world, people):
    """A later pod of the pool is served: whatever came before it has been dealt with."""
    known = world.datastore.pool_get()
    if known is None:
        await world.idle()
        return
    port = known.target_ports[0]
    ready = pod("zz", "10.9.9.9", labels=known.selector, annotations={ACTIVE: str(port)})
    await people.put(ready)
    await world.until(lambda: "zz-rank-0" in world.endpoints, what="a later pod")
    await world.idle()


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
async def test_a_start_after_the_fact_serves_the_same(make_world, people, row):
    await people.put(*row.given)
    await row.event(people)

    async with make_world(settings=PAGED) as late:
        await late.until(lambda: late.endpoints == row.want, what="what is served after")
        await late.idle()
        assert late.endpoints == row.want


async def test_p6_a_pod_that_moves_keeps_its_metrics(world, people):
    await people.put(pool(), pod())
    await world.serves("pod-0")
    (key,) = world.rows.keys()
    state = MetricsState(waiting_requests=7)
    world.rows.publish(key, state, now=1.0, due_at=2.0)

    await people.put(pod(ip="10.0.0.9"))

    await world.until(lambda: world.endpoints == {"pod-0-rank-0": "10.0.0.9:8000"})
    row = world.rows.get(key)
    assert (row.state, row.known) == (state, True)
    assert [what for what, *_ in world.journal.lines] == ["added", "changed"]


async def test_p3_a_pod_that_comes_back_starts_without_metrics(world, people):
    await people.put(pool(), pod())
    await world.serves("pod-0")
    (key,) = world.rows.keys()
    world.rows.publish(key, MetricsState(waiting_requests=7), now=1.0, due_at=2.0)

    await people.put(pod(ready=False))
    await world.serves()
    await people.put(pod())
    await world.serves("pod-0")

    assert not world.rows.get(key).known


async def test_a_pod_of_the_same_name_elsewhere_does_not_count(world, people, admin):
    await people.put(pool())
    elsewhere = pod("stranger").manifest

    await admin.create(elsewhere, namespace="default")
    try:
        await people.put(pod("stranger", ready=False), pod("own", "10.0.0.2"))
        await world.serves("own")
    finally:
        await admin.delete(elsewhere, namespace="default", grace_seconds=0)

    assert world.journal.lines == [("added", "own-rank-0", "10.0.0.2:8000")]


async def test_a_pool_that_is_created_again_has_everything_again(world, people):
    await people.put(pool(), pod("a"), pod("b", "10.0.0.2"))
    await world.serves("a", "b")

    await people.delete(pool())
    await world.serves()
    assert not world.datastore.pool_has_synced
    await people.put(pod("c", "10.0.0.3"))
    await people.delete(pod("a"))
    await people.put(pool())

    await world.serves("b", "c")


async def test_a_replaced_pod_is_another_endpoint(world, people):
    await people.put(pool(), pod())
    await world.serves("pod-0")

    await people.delete(pod())
    await people.put(pod(ip="10.0.0.5"))

    await world.until(lambda: world.endpoints == {"pod-0-rank-0": "10.0.0.5:8000"})


def test_the_rows_of_the_specification_are_there():
    named = {name.split("-")[0] for name in ROWS}

    assert {f"p{number}" for number in range(1, 13)} <= named
