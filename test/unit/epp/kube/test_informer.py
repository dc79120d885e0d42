"""Kinds that are there, missing, come and go."""

import asyncio

import pytest
from structlog.testing import capture_logs

from epp.kube.cache import ObjectCache
from epp.kube.client import KubeClient
from epp.kube.informer import CONFIRM_SECONDS, Candidate, Informer
from epp.kube.manager import Manager
from epp.kube.reflector_settings import DEFAULT_SETTINGS, ReflectorSettings
from epp.kube.resource import PODS, Resource
from epp.testing.fake_kube import FakeKube
from epp.testing.fake_kube_faults import Refuse
from epp.testing.fake_kube_selectors import Json
from epp.testing.informer_world import (
    HASTY,
    CacheProbe,
    Counts,
    WaitingClock,
    decode_pod,
    pod_object,
)
from epp_api.core_v1 import Pod

NEW = Resource(group="example.com", version="v1", plural="widgets", kind="Widget")
OLD = Resource(group="old.example.com", version="v1alpha2", plural="widgets", kind="Widget")
SHORT = 0.5
MISSING_SECONDS = DEFAULT_SETTINGS.missing_seconds


class World:
    """A fake server without widgets, and an informer that would like some."""

    def __init__(self) -> None:
        self.kube = FakeKube([PODS])
        self.cache: ObjectCache[Pod] = ObjectCache("Widget")
        self.probe = CacheProbe(self.cache)
        self.counts = Counts()
        self.served: list[str | None] = []
        self.clock = WaitingClock(ignored_seconds=SHORT)

    def make(self, *resources: Resource, **options) -> Informer[Pod]:
        self.client = KubeClient(self.kube.settings())
        options.setdefault("on_served", self.served.append)
        options.setdefault("clock", self.clock)
        options.setdefault("settings", ReflectorSettings(short_watch_seconds=SHORT))
        self.informer = Informer(
            self.client,
            self.cache,
            [Candidate(resource=one, decode=decode_pod) for one in resources],
            namespace="demo",
            draw=lambda: 0.0,
            observer=self.counts,
            **options,
        )
        return self.informer

    async def watching(self, resource: Resource, labels: str = "") -> None:
        await self.kube.until(lambda: self.kube.watching(resource) == 1)
        await self.probe.until(lambda: self.probe.agrees_with(self.kube, resource, labels))


@pytest.fixture
async def world():
    world = World()
    async with world.kube:
        yield world
        await world.informer.stop()
        await world.client.close()


def widget(name: str) -> Json:
    return {"metadata": {"name": name, "namespace": "demo"}}


async def test_a_required_kind_is_followed_without_being_looked_for(world) -> None:
    world.kube.create(PODS, pod_object("a"))
    informer = world.make(PODS)
    assert not informer.has_synced

    await informer.start()
    await world.cache.wait_synced()

    assert informer.has_synced
    assert world.probe.names == ["a"]
    assert {request.verb for request in world.kube.requests} == {"watch"}
    assert (informer.served, world.served) == ("v1", ["v1"])


async def test_selectors_and_namespace_narrow_it(world) -> None:
    world.kube.create(PODS, pod_object("a"))
    world.kube.create(PODS, pod_object("b"))
    world.kube.create(PODS, pod_object("a", namespace="other"))
    informer = world.make(PODS, field_selector="metadata.name=a", label_selector="app=x")

    await informer.start()
    await world.cache.wait_synced()

    assert [str(pod.metadata.key) for pod in world.cache.list()] == ["demo/a"]


async def test_a_missing_optional_kind_counts_as_synced_and_is_said_once(world) -> None:
    with capture_logs() as logs:
        await world.make(NEW, OLD, optional=True).start()
        for _ in range(3):
            assert await world.clock.skip_wait() == MISSING_SECONDS
        await world.clock.next_wait()

    assert world.informer.has_synced
    assert (world.informer.served, world.served) == (None, [None])
    assert [(one["event"], one["api_versions"]) for one in logs] == [
        ("kind is not served, waiting for it", ["example.com/v1", "old.example.com/v1alpha2"])
    ]


async def test_a_kind_is_picked_up_when_it_appears_and_let_go_when_it_is_deleted(world) -> None:
    await world.make(NEW, OLD, optional=True).start()
    wait = await world.clock.next_wait()

    world.kube.serve(OLD)
    world.kube.create(OLD, widget("a"))
    world.clock.advance(wait)
    await world.watching(OLD)
    assert world.probe.names == ["a"]

    world.kube.unserve(OLD)
    while await world.clock.next_wait() != MISSING_SECONDS:
        world.clock.advance(CONFIRM_SECONDS)
    assert world.probe.names == []

    world.kube.serve(NEW)
    world.kube.create(NEW, widget("b"))
    world.clock.advance(MISSING_SECONDS)
    await world.watching(NEW)
    assert world.probe.names == ["b"]
    assert world.served == [None, "old.example.com/v1alpha2", None, "example.com/v1"]


async def test_the_first_candidate_is_followed_when_several_are_served(world) -> None:
    world.kube.serve(OLD)
    world.kube.serve(NEW)
    world.kube.create(NEW, widget("new"))
    world.kube.create(OLD, widget("old"))

    await world.make(NEW, OLD, optional=True).start()
    await world.watching(NEW)

    assert world.probe.names == ["new"]


async def test_a_404_that_discovery_contradicts_empties_nothing(world) -> None:
    world.kube.serve(NEW)
    world.kube.create(NEW, widget("a"))
    await world.make(NEW, optional=True).start()
    await world.watching(NEW)

    with capture_logs() as logs:
        world.kube.faults.add(Refuse(status=404), verb="watch", times=2)
        world.kube.drop_watches(abort=False)
        waits = [await world.clock.skip_wait() for _ in range(3)]
        await world.watching(NEW)

    assert waits[1:] == [CONFIRM_SECONDS, CONFIRM_SECONDS]
    assert world.probe.deleted == []
    assert world.served == ["example.com/v1"]
    told = [one["event"] for one in logs if one["log_level"] == "warning"]
    assert told == ["list and watch failed", "kind is served but not found"]


async def test_a_required_kind_that_is_missing_is_waited_for(world) -> None:
    await world.make(NEW).start()
    assert await world.clock.skip_wait() == CONFIRM_SECONDS
    wait = await world.clock.next_wait()
    assert wait == MISSING_SECONDS
    assert not world.informer.has_synced

    world.kube.serve(NEW)
    world.clock.advance(wait)
    await world.cache.wait_synced()
    assert world.served == ["example.com/v1", None, "example.com/v1"]


async def test_discovery_that_fails_is_tried_again_and_said_once(world) -> None:
    world.kube.serve(NEW)
    world.kube.faults.add(Refuse(status=500), verb="get", times=3)

    with capture_logs() as logs:
        await world.make(NEW, optional=True).start()
        for _ in range(3):
            await world.clock.skip_wait()
        await world.watching(NEW)

    assert world.served == ["example.com/v1"]
    told = [one["event"] for one in logs if one["log_level"] == "warning"]
    assert told == ["cannot ask whether the kind is served"]
    assert world.counts.seen["Widget Server"] == 3


async def test_a_forbidden_optional_kind_keeps_nobody_waiting_for_long(world) -> None:
    world.kube.serve(NEW)
    world.kube.create(NEW, widget("a"))
    forbidden = world.kube.faults.add(Refuse(status=403), verb="watch")
    patience = DEFAULT_SETTINGS.refused_seconds

    with capture_logs() as logs:
        await world.make(NEW, optional=True, settings=DEFAULT_SETTINGS).start()
        assert await world.clock.next_wait() == patience
        retry = await world.clock.next_wait()
        world.clock.advance(retry)
        retry = await world.clock.next_wait()
        assert not world.informer.has_synced
        world.clock.advance(patience)
        assert world.informer.has_synced
        world.kube.faults.remove(forbidden)
        await world.probe.until(lambda: world.probe.names == ["a"])

    told = [one["event"] for one in logs if one["log_level"] == "warning"]
    assert told == ["list and watch failed", "kind is forbidden, going on without it"]


async def test_a_forbidden_required_kind_is_waited_for(world) -> None:
    world.kube.faults.add(Refuse(status=403), verb="watch")

    await world.make(PODS).start()
    for _ in range(8):
        await world.clock.skip_wait()

    assert not world.informer.has_synced


async def test_another_selector_is_followed_without_a_gap(world) -> None:
    world.kube.create(PODS, pod_object("a", tier="gold"))
    world.kube.create(PODS, pod_object("b"))
    await world.make(PODS, label_selector="app=x", settings=HASTY).start()
    await world.watching(PODS, "app=x")

    world.informer.reselect("tier=gold")
    await world.probe.until(lambda: world.probe.names == ["a"])

    assert world.probe.deleted == ["b"]


async def test_another_selector_before_the_start_counts(world) -> None:
    world.kube.create(PODS, pod_object("a", tier="gold"))
    world.kube.create(PODS, pod_object("b"))
    world.make(PODS, label_selector="app=x").reselect("tier=gold")

    await world.informer.start()
    await world.cache.wait_synced()

    assert world.probe.names == ["a"]


async def test_stopping_leaves_nothing_behind(world) -> None:
    await world.make(PODS).start()
    await world.cache.wait_synced()

    await world.informer.stop()
    await world.informer.stop()

    names = [task.get_name() for task in asyncio.all_tasks()]
    assert not [name for name in names if name.startswith(("informer", "reflector"))]
    await world.kube.until(lambda: world.kube.watching(PODS) == 0)


async def test_a_manager_starts_it_and_sees_it_end(world) -> None:
    informer = world.make(PODS)
    manager = Manager()
    manager.add_group("caches", informer)

    await manager.start()
    await world.cache.wait_synced()
    await manager.stop()


async def test_a_bug_ends_it_loudly(world) -> None:
    def raising(_api_version: str | None) -> None:
        raise KeyError("bug")

    informer = world.make(PODS, on_served=raising)
    await informer.start()

    with pytest.raises(KeyError):
        await informer.wait_ended()
