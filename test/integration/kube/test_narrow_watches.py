"""What the API server is asked for: one namespace, one pool, and of the pods the pool's alone.

And what happens when a pool begins to select other pods: those that both selectors select are
served all the time.
"""

import asyncio

import pytest

from epp.server.label_selector import parse_label_selector
from epp.testing.kube_manifests import model, objective, old_pool, pod, pool, rewrite, rule
from epp.testing.kube_world import HASTY, PAGED
from epp.testing.seen_request import is_list, is_watch

WAYS = pytest.mark.parametrize(
    "settings", [pytest.param(HASTY, id="streamed"), pytest.param(PAGED, id="paged")]
)


def is_read(seen):
    return is_list(seen) or is_watch(seen)


def reads_of(faults, resource):
    return [seen for seen in faults.seen(is_read) if seen.resource == resource]


@WAYS
async def test_nothing_is_asked_for_beyond_the_pool(make_world, people, faults, settings):
    await people.put(
        pool(selector={"app": "x", "tier": "gpu"}),
        *(pod(f"mine-{i}", f"10.0.0.{i}", labels={"app": "x", "tier": "gpu"}) for i in range(1, 6)),
        *(pod(f"other-{i}", f"10.0.1.{i}") for i in range(1, 6)),
        model("a"),
        objective("o", 1),
        rewrite("r", rule("t")),
    )
    async with make_world(faults.url, settings=settings) as world:
        await world.serves(*(f"mine-{i}" for i in range(1, 6)))
        cached = {p.metadata.name for p in world.source.caches.pods.list()}

    reads = faults.seen(is_read)
    assert {seen.namespace for seen in reads} == {people.name}
    assert {seen.query.get("labelSelector") for seen in reads_of(faults, "pods")} == {
        "app=x,tier=gpu"
    }
    assert {seen.query.get("fieldSelector") for seen in reads_of(faults, "inferencepools")} == {
        "metadata.name=pool"
    }
    assert cached == {f"mine-{i}" for i in range(1, 6)}
    others = [seen for seen in faults.requests if not is_read(seen) and seen.resource]
    assert {seen.resource for seen in others} <= {"inferencemodels", "events"}
    assert not any("secrets" in seen.path or "configmaps" in seen.path for seen in faults.requests)


@WAYS
async def test_of_a_pool_of_both_versions_the_pods_of_v1_are_asked_for(
    make_world, people, faults, settings
):
    await people.put(old_pool(selector={"app": "y"}), pool())
    await people.put(pod("mine"), pod("other", "10.0.1.1", labels={"app": "y"}))
    async with make_world(faults.url, settings=settings) as world:
        await world.serves("mine")
        cached = {p.metadata.name for p in world.source.caches.pods.list()}

    assert cached == {"mine"}
    assert {seen.query["labelSelector"] for seen in reads_of(faults, "pods")} == {"app=x"}


async def test_a_watch_of_a_stopped_endpoint_picker_is_closed(make_world, people, faults):
    await people.put(pool(), pod("a"))
    async with make_world(faults.url) as world:
        await world.serves("a")
        assert faults.open_watches > 0

    await world.until(lambda: faults.open_watches == 0, what="every watch to be closed")


OLD, NEW = {"app": "x"}, {"release": "new"}
BOTH = {**OLD, **NEW}


@WAYS
@pytest.mark.parametrize(
    "declare", [pytest.param(pool, id="v1"), pytest.param(old_pool, id="v1alpha2")]
)
async def test_a_rolled_selector_keeps_who_both_select(
    make_world, people, faults, settings, declare
):
    both = [f"both-{i}" for i in range(5)]
    await people.put(
        declare(selector=OLD),
        *(pod(name, f"10.0.0.{i + 1}", labels=BOTH) for i, name in enumerate(both)),
        pod("old", "10.0.1.1", labels=OLD),
        pod("new", "10.0.2.1", labels=NEW),
    )
    async with make_world(faults.url, settings=settings) as world:
        await world.serves(*both, "old")
        least = Least(world, both)

        for _ in range(2):
            await people.put(declare(selector=NEW))
            await world.serves(*both, "new")
            await people.put(declare(selector=OLD))
            await world.serves(*both, "old")

        assert world.journal.removed == {"old", "new"}
        assert least.seen == len(both)
    assert {seen.query["labelSelector"] for seen in reads_of(faults, "pods")} == {
        "app=x",
        "release=new",
    }


class Least:
    """The fewest of some pods that were ever served, as requests right after a change see them."""

    def __init__(self, world, pods):
        self._world = world
        self._pods = set(pods)
        self.seen = len(self._pods)
        world.datastore.add_endpoint_listener(self)

    def endpoint_added(self, endpoint):
        asyncio.get_running_loop().call_soon(self._look)

    def endpoint_updated(self, old, new):
        asyncio.get_running_loop().call_soon(self._look)

    def endpoint_removed(self, endpoint):
        asyncio.get_running_loop().call_soon(self._look)

    def _look(self):
        self.seen = min(self.seen, len(self._world.pods & self._pods))


async def test_a_selector_that_rolls_while_the_api_server_is_slow(make_world, people, faults):
    await people.put(pool(selector=OLD), pod("both", "10.0.0.1", labels=BOTH))
    async with make_world(faults.url) as world:
        await world.serves("both")
        faults.delay(0.5, match=lambda seen: seen.resource == "pods")

        await people.put(pool(selector=NEW))
        await people.put(pod("new", "10.0.0.2", labels=NEW))
        await people.put(pool(selector=BOTH))
        await people.put(pool(selector=NEW))

        await world.serves("both", "new")
    assert world.journal.removed == set()


async def test_a_pool_that_comes_back_with_another_selector(make_world, people, faults):
    await people.put(pool(selector=OLD), pod("old", labels=OLD), pod("new", labels=NEW))
    async with make_world(faults.url) as world:
        await world.serves("old")
        await people.delete(pool())
        await world.serves()

        await people.put(pool(selector=NEW))

        await world.serves("new")


SELECTORS = {
    "app in (x,y)": {"x", "y"},
    "app=x": {"x"},
    "app": {"x", "y", "z"},
    "!app": {"none"},
    "app notin (x, y)": {"z", "none"},
    "app in (x,z),tier!=gold": {"z"},
    "app,app!=x,tier in (gold)": {"y"},
}


@pytest.mark.parametrize("selector", SELECTORS)
async def test_pods_of_a_selector_are_served_without_a_pool(make_world, people, faults, selector):
    tiers = {"x": "gold", "y": "gold", "z": "tin"}
    await people.put(
        *(
            pod(app, f"10.0.0.{i}", labels={"app": app, "tier": tier})
            for i, (app, tier) in enumerate(tiers.items(), 1)
        ),
        pod("none", "10.0.0.9", labels={}),
        pool(selector={"app": "nobody"}),
        model("a"),
    )
    wanted = SELECTORS[selector]
    async with make_world(
        faults.url, pod_selector=str(parse_label_selector(selector)), target_ports=(8000, 8001)
    ) as world:
        await world.serves(*wanted)
        assert len(world.endpoints) == 2 * len(wanted)
        assert world.models == {}

    assert {seen.resource for seen in faults.requests if seen.resource} == {"pods"}
    assert {seen.namespace for seen in reads_of(faults, "pods")} == {people.name}
    asked = {seen.query["labelSelector"] for seen in reads_of(faults, "pods")}
    assert asked == {str(parse_label_selector(selector))}


async def test_a_pod_that_a_selector_no_longer_selects_goes(make_world, people):
    both = ("a", "b")
    await people.put(*(pod(name, f"10.0.0.{i}") for i, name in enumerate(both, 1)))
    async with make_world(pod_selector="app in (x,y)", target_ports=(8000,)) as world:
        await world.serves("a", "b")

        await people.put(pod("a", labels={"app": "q"}), pod("c", "10.0.0.3", labels={"app": "y"}))

        await world.serves("b", "c")
        known = world.source.caches.pods.list()
        assert {one.metadata.name for one in known} == {"b", "c"}


@WAYS
async def test_a_roll_to_other_pods_leaves_no_moment_without_any(
    make_world, people, faults, settings
):
    blue, green = {"color": "blue"}, {"color": "green"}
    blues, greens = [f"blue-{i}" for i in range(3)], [f"green-{i}" for i in range(3)]
    await people.put(
        pool(selector=blue),
        *(pod(name, f"10.0.0.{i + 1}", labels=blue) for i, name in enumerate(blues)),
        *(pod(name, f"10.0.1.{i + 1}", labels=green) for i, name in enumerate(greens)),
    )
    async with make_world(faults.url, settings=settings) as world:
        await world.serves(*blues)
        least = Least(world, [*blues, *greens])
        faults.delay(0.2, match=lambda seen: seen.resource == "pods")

        await people.put(pool(selector=green, ports=(9000,)))

        await world.serves(*greens)
        assert set(world.endpoints.values()) == {f"10.0.1.{i}:9000" for i in (1, 2, 3)}
    assert least.seen >= 3
