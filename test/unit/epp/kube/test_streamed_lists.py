"""What a streamed list may bring before its end, and what does not end it."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from epp.kube.cache import ObjectCache
from epp.kube.reflector import Reflector
from epp.kube.resource import PODS
from epp.kube.selection import Selection
from epp.testing.informer_world import HASTY, decode_pod
from epp.testing.scripted_watches import ScriptedWatches, bookmark, event
from epp_api.core_v1 import Pod


def pod(name: str, version: str, ip: str = "10.0.0.1"):
    meta = {"name": name, "namespace": "demo", "resourceVersion": version}
    return {"metadata": meta, "status": {"podIP": ip}}


@asynccontextmanager
async def followed(api: ScriptedWatches):
    """The cache that follows these watches, once its first list is complete."""
    cache: ObjectCache[Pod] = ObjectCache("Pod")
    selection = Selection(resource=PODS, namespace="demo")
    reflector = Reflector(api, selection, decode_pod, cache, settings=HASTY)
    following = asyncio.create_task(reflector.run(), name="reflector under test")
    try:
        async with asyncio.timeout(10):
            await cache.wait_synced()
        yield cache
    finally:
        following.cancel()
        await asyncio.wait((following,))


def known(cache: ObjectCache[Pod]) -> dict[str, str]:
    return {one.metadata.name: one.status.pod_ip for one in cache.list()}


@pytest.mark.parametrize(
    ("events", "want"),
    [
        pytest.param([event("DELETED", pod("a", "3"))], {"b": "10.0.0.1"}, id="deleted"),
        pytest.param(
            [event("DELETED", pod("a", "3")), event("ADDED", pod("a", "4", "10.0.0.4"))],
            {"a": "10.0.0.4", "b": "10.0.0.1"},
            id="deleted-and-created-again",
        ),
        pytest.param(
            [event("DELETED", pod("c", "3"))],
            {"a": "10.0.0.1", "b": "10.0.0.1"},
            id="deleted-before-it-was-listed",
        ),
        pytest.param(
            [event("MODIFIED", pod("a", "3", "10.0.0.3"))],
            {"a": "10.0.0.3", "b": "10.0.0.1"},
            id="changed",
        ),
    ],
)
async def test_what_happens_during_the_list_is_part_of_it(
    events: list[bytes], want: dict[str, str]
) -> None:
    listed = [event("ADDED", pod("a", "1")), event("ADDED", pod("b", "2"))]
    api = ScriptedWatches([*listed, *events, bookmark("9", ends_list=True)])

    async with followed(api) as cache:
        assert known(cache) == want
        await api.opened(2)

    assert api.watches[1]["resourceVersion"] == "9"
    assert api.lists == []


async def test_an_ordinary_bookmark_is_not_the_end_of_the_list() -> None:
    """A server that sends one here does not know of streamed lists: its pages are what counts."""
    everything = [pod("a", "1"), pod("b", "2")]
    api = ScriptedWatches(
        [event("ADDED", pod("a", "1")), bookmark("9")], listed=everything, version="8"
    )

    async with followed(api) as cache:
        assert sorted(known(cache)) == ["a", "b"]
        await api.opened(2)

    assert len(api.lists) == 1
    assert api.watches[1]["resourceVersion"] == "8"
    assert "sendInitialEvents" not in api.watches[1]
