import asyncio

import pytest

from epp.kube.cache import ObjectCache, ObjectEvent
from epp.testing.builders import make_pod
from epp_api.core_v1 import Pod
from epp_api.meta import NamespacedName


def by_app(pod: Pod) -> list[str]:
    return [pod.metadata.labels["app"]]


@pytest.fixture
def cache() -> ObjectCache[Pod]:
    return ObjectCache("Pod", {"app": by_app})


@pytest.fixture
def events(cache: ObjectCache[Pod]) -> list[ObjectEvent[Pod]]:
    seen: list[ObjectEvent[Pod]] = []
    cache.subscribe(seen.append)
    return seen


KEY = NamespacedName("default", "pod-0")


def test_create_update_and_delete_tell_old_and_new(
    cache: ObjectCache[Pod], events: list[ObjectEvent[Pod]]
) -> None:
    first, second = make_pod(ip="10.0.0.1"), make_pod(ip="10.0.0.2")

    cache.upsert(first)
    cache.upsert(second)
    cache.delete(KEY)

    assert events == [(KEY, None, first), (KEY, first, second), (KEY, second, None)]


def test_an_equal_object_and_an_unknown_deletion_are_no_events(
    cache: ObjectCache[Pod], events: list[ObjectEvent[Pod]]
) -> None:
    cache.upsert(make_pod())
    events.clear()

    cache.upsert(make_pod())
    cache.delete(NamespacedName("default", "unknown"))

    assert events == []


def test_handlers_see_the_cache_already_changed(cache: ObjectCache[Pod]) -> None:
    seen: list[Pod | None] = []
    cache.subscribe(lambda event: seen.append(cache.get(event.key)))
    pod = make_pod()

    cache.upsert(pod)
    cache.delete(KEY)

    assert seen == [pod, None]


def test_a_late_subscriber_hears_of_what_is_there(cache: ObjectCache[Pod]) -> None:
    pod = make_pod()
    cache.upsert(pod)
    seen: list[ObjectEvent[Pod]] = []

    cache.subscribe(seen.append)

    assert seen == [(KEY, None, pod)]


def test_replace_fires_only_what_changed(
    cache: ObjectCache[Pod], events: list[ObjectEvent[Pod]]
) -> None:
    same, gone, old = make_pod("same"), make_pod("gone"), make_pod("moved", ip="10.0.0.1")
    cache.replace([same, gone, old])
    events.clear()
    new, fresh = make_pod("moved", ip="10.0.0.2"), make_pod("fresh")

    cache.replace([same, new, fresh])

    assert {event.key.name: (event.old, event.new) for event in events} == {
        "gone": (gone, None),
        "moved": (old, new),
        "fresh": (None, fresh),
    }
    assert [pod.metadata.name for pod in cache.list()] == ["fresh", "moved", "same"]


def test_an_index_follows_changes(cache: ObjectCache[Pod]) -> None:
    cache.upsert(make_pod("b", labels={"app": "x"}))
    cache.upsert(make_pod("a", labels={"app": "x"}))
    cache.upsert(make_pod("b", labels={"app": "y"}))

    assert [pod.metadata.name for pod in cache.by_index("app", "x")] == ["a"]
    assert [pod.metadata.name for pod in cache.by_index("app", "y")] == ["b"]

    cache.delete(NamespacedName("default", "b"))

    assert cache.by_index("app", "y") == []
    with pytest.raises(KeyError):
        cache.by_index("unknown", "x")


async def test_wait_synced_ends_with_the_first_complete_list(cache: ObjectCache[Pod]) -> None:
    waiter = asyncio.create_task(cache.wait_synced(), name="waiter")
    await asyncio.sleep(0)
    before = (cache.has_synced, waiter.done())

    cache.mark_synced()
    await waiter

    assert before == (False, False)
    assert cache.has_synced
