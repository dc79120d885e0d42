"""The store follows the server, whatever happens in between."""

import asyncio
import sys

import pytest
from structlog.testing import capture_logs

from epp.kube.cache import ObjectCache
from epp.kube.client import KubeClient
from epp.kube.reflector import KindGoneError, Reflector
from epp.kube.reflector_settings import ReflectorSettings
from epp.kube.resource import PODS
from epp.kube.selection import Selection
from epp.testing.fake_kube_faults import (
    Refuse,
)
from epp.testing.informer_world import (
    HASTY,
    ReflectorWorld,
    decode_pod,
    pod_object,
)
from epp_api.core_v1 import Pod
from epp_api.meta import NamespacedName


@pytest.fixture
async def world():
    world = ReflectorWorld()
    async with world.kube:
        yield world
        await world.end()


@pytest.mark.parametrize("streams_lists", ["yes", "refused", "ignored"])
async def test_the_store_is_filled_and_followed(world, streams_lists: str) -> None:
    world.kube.streams_lists = streams_lists
    world.begin()
    await world.synced()

    world.kube.create(PODS, pod_object("d"))
    world.kube.patch(PODS, "demo", "a", {"status": {"podIP": "10.0.0.9"}})
    world.kube.delete(PODS, "demo", "b")

    await world.probe.until(world.agrees)
    assert world.probe.names == ["a", "c", "d"]


@pytest.mark.parametrize("streams_lists", ["refused", "ignored"])
async def test_pages_are_used_for_good_once_the_server_does_not_stream(
    world, streams_lists
) -> None:
    world.kube.streams_lists = streams_lists
    with capture_logs() as logs:
        world.begin()
        await world.synced()
        world.reflector.reselect("app in (x)")
        await world.counts.until("Pod relisted", 2)

    events = [one["event"] for one in logs]
    assert events.count("server does not stream lists, using pages") == 1
    streamed = [one for one in world.kube.requests if "sendInitialEvents" in one.query]
    assert len(streamed) == 1


async def test_an_object_that_leaves_the_selector_leaves_the_store(world) -> None:
    world.begin()
    await world.synced()

    world.kube.patch(PODS, "demo", "a", {"metadata": {"labels": {"app": "y"}}})
    world.kube.patch(PODS, "demo", "foreign", {"metadata": {"labels": {"app": "x"}}})

    await world.probe.until(lambda: world.probe.names == ["b", "c", "foreign"])


async def test_a_closed_watch_goes_on_where_it_was_without_a_list(world) -> None:
    world.begin()
    await world.synced()
    world.kube.create(PODS, pod_object("d"))
    await world.probe.until(world.agrees)

    world.kube.drop_watches(abort=False)
    await world.kube.until(lambda: world.kube.count("watch", PODS) == 2)
    assert world.kube.requests[-1].query["resourceVersion"] == str(world.kube.version)
    world.kube.create(PODS, pod_object("e"))
    await world.probe.until(world.agrees)

    assert world.counts.seen["Pod relisted"] == 1


async def test_a_bookmark_moves_the_place_to_go_on(world) -> None:
    world.begin()
    await world.synced()
    world.kube.advance()
    world.kube.bookmark()
    world.kube.compact()
    world.kube.drop_watches(abort=False)
    await world.kube.until(lambda: world.kube.count("watch", PODS) == 2)

    assert world.kube.requests[-1].query["resourceVersion"] == str(world.kube.version)
    assert world.counts.seen["Pod relisted"] == 1


async def test_a_deletion_moves_the_place_to_go_on(world) -> None:
    world.begin()
    await world.synced()
    world.kube.delete(PODS, "demo", "a")
    await world.probe.until(world.agrees)
    world.kube.drop_watches(abort=False)
    await world.kube.until(lambda: world.kube.count("watch", PODS) == 2)

    assert world.kube.requests[-1].query["resourceVersion"] == str(world.kube.version)


async def test_a_watch_that_expires_after_a_while_is_not_tried_again(world) -> None:
    world.begin()
    await world.synced()
    world.kube.create(PODS, pod_object("d"))
    await world.probe.until(world.agrees)

    world.kube.create(PODS, pod_object("e"))
    world.kube.objects.compact()
    await world.probe.until(world.agrees)

    assert ["resourceVersion" in one.query for one in world.kube.requests] == [False, False]
    assert world.counts.seen["Pod Gone"] == 1


async def test_an_expired_version_is_listed_again(world) -> None:
    world.begin()
    await world.synced()
    await world.kube.stop()
    world.kube.delete(PODS, "demo", "a")
    world.kube.create(PODS, pod_object("d"))
    world.kube.compact()
    await world.kube.start(world.kube.port)

    await world.probe.until(world.agrees)
    assert world.counts.seen["Pod Gone"] == 1
    assert world.counts.seen["Pod relisted"] == 2


async def test_an_object_that_breaks_keeps_its_last_good_state(world) -> None:
    world.begin()
    await world.synced()
    good = world.probe.versions["a"]

    with capture_logs() as logs:
        world.kube.patch(PODS, "demo", "a", {"status": {"podIP": 5}})
        world.kube.patch(PODS, "demo", "a", {"metadata": {"labels": {"more": "x"}}})
        world.kube.create(PODS, pod_object("d"))
        await world.probe.until(lambda: "d" in world.probe.names)

    assert world.probe.versions["a"] == good
    assert [(one["object"], one["field"], one["value"]) for one in logs] == [
        ("demo/a", "status.podIP", "5")
    ]


@pytest.mark.parametrize("streams_lists", ["yes", "refused"])
async def test_a_broken_object_survives_a_new_list(world, streams_lists: str) -> None:
    world.kube.streams_lists = streams_lists
    world.begin()
    await world.synced()
    good = world.probe.versions["a"]
    world.kube.patch(PODS, "demo", "a", {"status": {"podIP": 5}})
    world.reflector.reselect("app in (x)")
    await world.counts.until("Pod relisted", 2)

    assert world.probe.versions["a"] == good
    world.kube.patch(PODS, "demo", "a", {"status": {"podIP": "10.0.0.3"}})
    await world.probe.until(world.agrees)


async def test_a_kind_that_is_not_served_ends_it(world) -> None:
    world.kube.unserve(PODS)
    world.begin()

    assert world.task is not None
    with pytest.raises(KindGoneError, match="watch pods in namespace demo"):
        await world.task


async def test_a_kind_that_disappears_ends_it(world) -> None:
    world.begin()
    await world.synced()
    world.kube.unserve(PODS)

    with pytest.raises(KindGoneError):
        await world.task


async def test_reselecting_keeps_what_both_selectors_select(world) -> None:
    world.kube.patch(PODS, "demo", "a", {"metadata": {"labels": {"tier": "gold"}}})
    world.kube.create(PODS, pod_object("d", app="z", tier="gold"))
    world.begin()
    await world.synced()

    world.reflector.reselect("tier=gold")
    await world.probe.until(lambda: world.agrees("tier=gold"))

    assert world.probe.names == ["a", "d"]
    assert sorted(world.probe.deleted) == ["b", "c"]
    world.kube.create(PODS, pod_object("e", tier="gold"))
    await world.probe.until(lambda: "e" in world.probe.names)


async def test_the_store_stays_while_the_new_list_fails(world) -> None:
    world.begin()
    await world.synced()
    fault = world.kube.faults.add(Refuse(status=500))

    world.reflector.reselect("app=y")
    await world.counts.until("Pod Server", 3)
    assert world.probe.names == ["a", "b", "c"]

    world.kube.faults.remove(fault)
    await world.probe.until(lambda: world.probe.names == ["foreign"])


async def test_reselecting_the_same_changes_nothing(world) -> None:
    world.begin()
    await world.synced()
    world.reflector.reselect("app=x")
    world.kube.create(PODS, pod_object("d"))
    await world.probe.until(world.agrees)

    assert world.kube.count("watch", PODS) == 1


async def test_reselecting_before_the_start_counts(world) -> None:
    client = KubeClient(world.kube.settings())
    selection = Selection(resource=PODS, namespace="demo", label_selector="app=x")
    reflector = Reflector(client, selection, decode_pod, world.cache, settings=HASTY)
    reflector.reselect("app=y")
    task = asyncio.create_task(reflector.run())

    await world.probe.until(lambda: world.probe.names == ["foreign"])

    task.cancel()
    await asyncio.wait((task,))
    await client.close()


async def test_a_version_that_goes_back_is_another_history(world) -> None:
    world.begin()
    await world.synced()
    world.kube.objects.version -= 3
    world.kube.bookmark()

    await world.counts.until("Pod relisted", 2)
    assert world.counts.seen["Pod Gone"] == 1


async def test_a_handler_that_raises_does_not_end_it(world) -> None:
    world.begin()
    await world.synced()
    left = [KeyError("bug")]

    def handler(event) -> None:
        if event.new is not None and event.new.metadata.name == "d" and left:
            raise left.pop()

    world.cache.subscribe(handler)
    world.kube.create(PODS, pod_object("d"))
    world.kube.create(PODS, pod_object("e"))

    await world.probe.until(world.agrees)
    assert world.counts.seen["Pod Key"] == 1


async def test_unknown_events_are_logged_once() -> None:
    lines = [b'{"type":"EXPLODED","object":{}}'] * 3

    class Strange:
        def lines(self, *_: object, **__: object):
            from contextlib import asynccontextmanager

            @asynccontextmanager
            async def opened():
                async def generate():
                    for line in lines:
                        yield line
                    end = b'{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"1","annotations":{"k8s.io/initial-events-end":"true"}}}}'
                    yield end
                    for line in lines:
                        yield line
                    await asyncio.Event().wait()

                yield generate()

            return opened()

    cache: ObjectCache[Pod] = ObjectCache("Pod")
    reflector = Reflector(Strange(), Selection(resource=PODS), decode_pod, cache)  # type: ignore[arg-type]  # watches only
    with capture_logs() as logs:
        task = asyncio.create_task(reflector.run())
        await cache.wait_synced()
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait((task,))

    assert [one["event"] for one in logs] == ["unusable watch event ignored"]


@pytest.mark.parametrize("streams_lists", ["yes", "refused"])
async def test_a_list_is_let_go_once_it_is_stored(world, streams_lists: str) -> None:
    world.kube.streams_lists = streams_lists
    world.begin()
    await world.synced()

    pod = world.cache.get(NamespacedName("demo", "a"))

    assert sys.getrefcount(pod) == 3  # the cache, this variable, the argument


async def test_the_loop_is_never_blocked_for_long(world) -> None:
    for number in range(1500):
        world.kube.create(PODS, pod_object(f"many-{number}"))
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count_turns())
    world.begin(ReflectorSettings(streams_lists=False))
    await world.synced()
    counting.cancel()

    assert turns > 1500 / 50 * 2
