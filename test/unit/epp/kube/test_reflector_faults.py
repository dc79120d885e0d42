"""Whatever goes wrong, the store ends up equal, and the server is not stormed."""

import pytest
from structlog.testing import capture_logs

from epp.kube.reflector_settings import ReflectorSettings
from epp.kube.resource import PODS
from epp.kube.workqueue import Backoff
from epp.testing.fake_kube_faults import (
    CutMidLine,
    EndAtOnce,
    ErrorEvent,
    Hang,
    Refuse,
    Reset,
    Silence,
)
from epp.testing.informer_world import (
    HASTY,
    ReflectorWorld,
    WaitingClock,
    pod_object,
)

SHORT = 0.5
STEPS = ReflectorSettings(
    short_watch_seconds=SHORT,
    backoff=Backoff(first_seconds=1.0, max_seconds=30.0, jitter_ratio=0.5),
)
"""For tests that own the clock."""


@pytest.fixture
async def world():
    world = ReflectorWorld()
    async with world.kube:
        yield world
        await world.end()


@pytest.mark.parametrize(
    ("faults", "want"),
    [
        pytest.param(
            [(Refuse(status=429, retry_after=0), "list")], "TooManyRequests", id="list-429"
        ),
        pytest.param(
            [(Refuse(status=503, retry_after=0), "watch")], "TooManyRequests", id="watch-503-later"
        ),
        pytest.param([(Refuse(status=500), "watch")], "Server", id="watch-500"),
        pytest.param([(Refuse(status=500), "list")], "Server", id="list-500"),
        pytest.param([(Refuse(status=401), "*")], "Unauthorized", id="401"),
        pytest.param([(Refuse(status=403), "*")], "Forbidden", id="403"),
        pytest.param([(Refuse(status=410), "*")], "Gone", id="410-as-status"),
        pytest.param([(Refuse(status=504), "watch")], "Server", id="504"),
        pytest.param([(ErrorEvent(), "watch")], "Gone", id="410-as-event"),
        pytest.param(
            [(ErrorEvent(code=500, reason="Internal"), "watch")], "Server", id="500-as-event"
        ),
        pytest.param([(Reset(), "*")], "Unreachable", id="reset"),
        pytest.param([(CutMidLine(), "watch")], "Unreachable", id="cut-in-an-event"),
        pytest.param([(Silence(), "watch")], "Unreachable", id="silence"),
        pytest.param([(EndAtOnce(), "watch")], "Unreachable", id="ends-at-once"),
        pytest.param(
            [(ErrorEvent(), "watch"), (Refuse(status=410), "list"), (ErrorEvent(), "watch")],
            "Gone",
            id="410-storm",
        ),
    ],
)
@pytest.mark.parametrize("streams_lists", ["yes", "refused"])
@pytest.mark.parametrize("times", [1, 4])
async def test_every_fault_ends_with_store_and_server_equal(
    world, faults, want: str, streams_lists: str, times: int
) -> None:
    world.kube.streams_lists = streams_lists
    world.begin()
    await world.synced()

    for action, verb in faults:
        world.kube.faults.add(action, verb=verb, times=times)
    world.kube.compact()
    world.kube.drop_watches()
    world.kube.delete(PODS, "demo", "a")
    world.kube.create(PODS, pod_object("d"))

    await world.probe.until(world.agrees)
    if faults[0][1] != "list" and times > 1:  # the HTTP library repeats a reset GET by itself, once
        assert world.counts.seen[f"Pod {want}"] >= 1


@pytest.mark.parametrize(
    ("fault", "kind", "wanted"),
    [
        pytest.param(Refuse(status=429, retry_after=0), "TooManyRequests", 3, id="429"),
        pytest.param(Refuse(status=403), "Forbidden", 3, id="403"),
        pytest.param(Reset(), "Unreachable", 1, id="reset-which-the-http-library-repeats"),
        pytest.param(Refuse(status=410), "Gone", 3, id="410"),
        pytest.param(ErrorEvent(), "Gone", 3, id="410-event"),
    ],
)
async def test_faults_of_the_first_list_delay_it_only(world, fault, kind: str, wanted: int) -> None:
    world.kube.faults.add(fault, times=3)
    world.begin()

    await world.synced()

    assert world.counts.seen[f"Pod {kind}"] == wanted


async def test_a_hanging_list_costs_its_deadline(world) -> None:
    world.kube.streams_lists = "refused"
    world.kube.faults.add(Hang(), verb="list", times=1)
    world.begin(ReflectorSettings(list_seconds=0.1, backoff=HASTY.backoff))

    await world.synced()

    assert world.counts.seen["Pod Unreachable"] == 1


async def test_a_server_that_closes_at_once_is_asked_ever_more_slowly(world) -> None:
    clock = WaitingClock(ignored_seconds=SHORT)
    world.begin(STEPS, clock=clock, draw=lambda: 0.0)
    await world.synced()
    world.kube.faults.add(EndAtOnce(), verb="watch")
    world.kube.drop_watches(abort=False)

    waits = [await clock.skip_wait() for _ in range(7)]

    assert waits == [1, 2, 4, 8, 16, 30, 30]


async def test_a_410_storm_is_asked_ever_more_slowly(world) -> None:
    clock = WaitingClock(ignored_seconds=SHORT)
    world.kube.streams_lists = "refused"
    world.begin(STEPS, clock=clock, draw=lambda: 0.0)
    await world.synced()
    world.kube.faults.add(ErrorEvent(), verb="watch")
    world.kube.drop_watches(abort=False)

    waits = [await clock.skip_wait() for _ in range(4)]

    assert waits == [1, 2, 4, 8]
    assert world.counts.seen["Pod relisted"] >= 3


async def test_a_server_is_not_asked_before_it_wants_to_be(world) -> None:
    clock = WaitingClock(ignored_seconds=SHORT)
    world.kube.faults.add(Refuse(status=429, retry_after=17), times=1)
    world.begin(STEPS, clock=clock, draw=lambda: 0.0)

    assert await clock.skip_wait() == 17
    await world.synced()


async def test_the_back_off_starts_over_after_a_watch_that_brought_something(world) -> None:
    clock = WaitingClock(ignored_seconds=SHORT)
    world.begin(STEPS, clock=clock, draw=lambda: 0.0)
    await world.synced()

    waits = []
    for name in ("d", "e"):
        world.kube.faults.add(Refuse(status=500), verb="watch", times=2)
        world.kube.create(PODS, pod_object(name))
        await world.probe.until(world.agrees)
        world.kube.drop_watches(abort=False)
        waits.append([await clock.skip_wait(), await clock.skip_wait()])
        await world.synced()

    assert waits == [[1, 2], [1, 2]]


async def test_a_refusal_is_logged_once_per_change_of_state(world) -> None:
    clock = WaitingClock(ignored_seconds=SHORT)
    with capture_logs() as logs:
        forbidden = world.kube.faults.add(Refuse(status=403, message="no rule"))
        world.begin(STEPS, clock=clock)
        for _ in range(5):
            await clock.skip_wait()
        last = await clock.next_wait()
        world.kube.faults.remove(forbidden)
        clock.advance(last)
        await world.synced()
        world.kube.create(PODS, pod_object("d"))
        await world.probe.until(world.agrees)

    lines = [one for one in logs if one["log_level"] in {"warning", "info"}]
    assert [one["event"] for one in lines] == ["list and watch failed", "works again"]
    assert str(lines[0]["error"]) == "watch pods in namespace demo: no rule"
