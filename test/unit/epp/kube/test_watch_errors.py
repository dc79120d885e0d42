"""What an error in a running watch, or at its opening, means for the next one: when, and from where."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from epp.kube.cache import ObjectCache
from epp.kube.reflector import Reflector
from epp.kube.reflector_settings import ReflectorSettings
from epp.kube.resource import PODS
from epp.kube.selection import Selection
from epp.kube.workqueue import Backoff
from epp.testing.fake_kube_faults import Refuse
from epp.testing.informer_world import ReflectorWorld, WaitingClock, decode_pod
from epp.testing.scripted_watches import ScriptedWatches, bookmark, error, event
from epp_api.core_v1 import Pod

SHORT = 0.5
STEPS = ReflectorSettings(
    short_watch_seconds=SHORT,
    backoff=Backoff(first_seconds=1.0, max_seconds=30.0, jitter_ratio=0.5),
)
LISTED = bookmark("5", ends_list=True)
CHANGE = event("MODIFIED", {"metadata": {"name": "a", "namespace": "demo", "resourceVersion": "7"}})


@asynccontextmanager
async def following(api: ScriptedWatches):
    """The clock of a reflector that follows these watches."""
    clock = WaitingClock(ignored_seconds=SHORT)
    cache: ObjectCache[Pod] = ObjectCache("Pod")
    reflector = Reflector(
        api,
        Selection(resource=PODS, namespace="demo"),
        decode_pod,
        cache,
        settings=STEPS,
        clock=clock,
        draw=lambda: 0.0,
    )
    task = asyncio.create_task(reflector.run(), name="reflector under test")
    try:
        yield clock
    finally:
        task.cancel()
        await asyncio.wait((task,))


@pytest.mark.parametrize(
    ("code", "asked", "seconds"),
    [
        pytest.param(429, 30, 30.0, id="429"),
        pytest.param(503, 30, 30.0, id="503-with-a-time"),
        pytest.param(429, None, 1.0, id="429-without-a-time"),
    ],
)
@pytest.mark.parametrize("brought", [[CHANGE], []], ids=["after-a-change", "at-once"])
async def test_the_next_watch_is_not_opened_before_the_server_wants_it(
    brought: list[bytes], code: int, asked: int | None, seconds: float
) -> None:
    api = ScriptedWatches([LISTED, *brought, error(code, retry_after_seconds=asked)])

    async with following(api) as clock:
        assert await clock.next_wait() == seconds
        clock.advance(seconds - 0.01)
        for _ in range(20):
            await asyncio.sleep(0)
        early = len(api.watches)
        clock.advance(0.01)
        await api.opened(2)

    assert early == 1
    assert api.watches[1]["resourceVersion"] == ("7" if brought else "5")


async def test_a_server_that_wants_to_be_left_alone_again_and_again_is() -> None:
    refused = [CHANGE, error(429, retry_after_seconds=30)]
    api = ScriptedWatches([LISTED, *refused], refused, refused)

    async with following(api) as clock:
        waits = [await clock.skip_wait() for _ in range(3)]
        await api.opened(4)

    assert waits == [30.0] * 3


@pytest.mark.parametrize(
    ("code", "from_version"),
    [
        pytest.param(410, None, id="410-expired"),
        pytest.param(504, None, id="504-newer-than-the-server"),
        pytest.param(400, None, id="400-refused"),
        pytest.param(500, "7", id="500"),
        pytest.param(503, "7", id="503"),
    ],
)
async def test_an_error_that_may_be_the_versions_fault_lists_again(
    code: int, from_version: str | None
) -> None:
    api = ScriptedWatches([LISTED, CHANGE, error(code)])

    async with following(api):
        await api.opened(2)

    assert api.watches[1].get("resourceVersion") == from_version
    assert ("sendInitialEvents" in api.watches[1]) == (from_version is None)


@pytest.fixture
async def world():
    world = ReflectorWorld()
    async with world.kube:
        yield world
        await world.end()


@pytest.mark.parametrize(
    ("status", "goes_on"),
    [
        pytest.param(410, False, id="410-expired"),
        pytest.param(504, False, id="504-newer-than-the-server"),
        pytest.param(400, False, id="400-refused"),
        pytest.param(500, True, id="500"),
        pytest.param(503, True, id="503"),
    ],
)
async def test_a_refusal_that_may_be_the_versions_fault_lists_again(
    world, status: int, goes_on: bool
) -> None:
    world.begin()
    await world.synced()
    world.kube.faults.add(Refuse(status=status), verb="watch", times=1)

    world.kube.drop_watches(abort=False)
    await world.kube.until(lambda: world.kube.count("watch", PODS) == 3)

    refused, asked = [request.query for request in world.kube.requests[-2:]]
    assert "resourceVersion" in refused
    assert ("resourceVersion" in asked, "sendInitialEvents" in asked) == (goes_on, not goes_on)
