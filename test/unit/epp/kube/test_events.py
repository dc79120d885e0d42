"""What the recorder writes, how little of it, and that it never disturbs anybody."""

import asyncio
import itertools
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from epp.kube.errors import (
    ApiError,
    ConflictError,
    ForbiddenError,
    InvalidError,
    NotFoundError,
    ServerError,
    TooManyRequestsError,
    UnreachableError,
)
from epp.kube.events import (
    DropReason,
    EventRecorder,
    EventSettings,
    EventType,
    ObjectRef,
    clip,
)
from epp.kube.manager import Eternal
from epp.testing.fake_clock import FakeClock

MODEL = ObjectRef(api_version="g/v1", kind="Model", namespace="ns", name="m1", uid="u-1")
PATH = "/apis/events.k8s.io/v1/namespaces/ns/events"
SERIES = 30.0
SETTINGS = EventSettings(series_seconds=SERIES)
AWAY = [
    pytest.param(UnreachableError("refused"), id="unreachable"),
    pytest.param(ServerError("broken", status=500), id="broken"),
    pytest.param(TooManyRequestsError("later", status=429), id="busy"),
]


class EventApi:
    """Stores Events, or fails as told."""

    def __init__(self) -> None:
        self.events: dict[str, dict[str, Any]] = {}
        self.calls: list[tuple[str, str, str]] = []
        self.error: ApiError | None = None
        self.loses_answers = False
        self.hangs = False

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = "application/json",
        timeout_seconds: float = 30.0,
        what: str = "",
    ) -> bytes:
        self.calls.append((method, path, what))
        if self.hangs:
            await asyncio.Event().wait()
        if self.error is not None:
            raise self.error
        if method == "POST":
            place = f"{path}/{body['metadata']['name']}"
            if place in self.events:
                raise ConflictError("already exists", status=409)
            self.events[place] = body
        elif path not in self.events:
            raise NotFoundError("no such event", status=404)
        else:
            assert content_type == "application/merge-patch+json"
            self.events[path].update(body)
        if self.loses_answers:
            raise UnreachableError("connection lost")
        return b"{}"

    @property
    def only(self) -> dict[str, Any]:
        (event,) = self.events.values()
        return event


class Counts:
    """An observer that counts."""

    def __init__(self) -> None:
        self.written = 0
        self.dropped: Counter[DropReason] = Counter()

    def event_written(self) -> None:
        self.written += 1

    def event_dropped(self, why: DropReason) -> None:
        self.dropped[why] += 1


class Desk:
    """A recorder on a clock of its own."""

    def __init__(self, settings: EventSettings = SETTINGS) -> None:
        self.clock = FakeClock(0.0)
        self.api = EventApi()
        self.counts = Counts()
        numbers = itertools.count(1)
        self.recorder = EventRecorder(
            self.api,
            controller="example.com/picker",
            instance="pod-7",
            settings=settings,
            observer=self.counts,
            clock=self.clock,
            wall=lambda: 1.7e9 + self.clock.time(),
            suffix=lambda: f"{next(numbers):x}",
            draw=lambda: 0.0,
        )

    def say(self, note: str = "it is so", *, about: ObjectRef = MODEL) -> None:
        self.recorder.record(about, EventType.WARNING, "ModelNameInUse", "Accept", note)

    async def pass_time(self, seconds: float, step: float = 0.05) -> None:
        """Move time in steps, letting the task run in each."""
        for _ in range(max(1, round(seconds / step))):
            await settle()
            self.clock.advance(step)
        await settle()


async def settle() -> None:
    for _ in range(8):
        await asyncio.sleep(0)


@pytest.fixture
async def desk():
    desk = Desk()
    await desk.recorder.start()
    yield desk
    await desk.recorder.stop()


async def test_an_event_says_everything_the_api_asks_for(desk: Desk) -> None:
    desk.say()
    await desk.pass_time(0.1)

    assert desk.api.only == {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": "m1.1", "namespace": "ns"},
        "eventTime": "2023-11-14T22:13:20.000000Z",
        "reportingController": "example.com/picker",
        "reportingInstance": "pod-7",
        "action": "Accept",
        "reason": "ModelNameInUse",
        "regarding": {
            "apiVersion": "g/v1",
            "kind": "Model",
            "namespace": "ns",
            "name": "m1",
            "uid": "u-1",
        },
        "note": "it is so",
        "type": "Warning",
    }
    assert desk.api.calls == [("POST", PATH, "create events.events.k8s.io in namespace ns")]
    assert desk.counts.written == 1


async def test_recording_is_synchronous_and_asks_nobody(desk: Desk) -> None:
    desk.say()

    assert desk.api.calls == []


async def test_what_was_recorded_before_the_start_is_written_after_it() -> None:
    desk = Desk()
    desk.say()

    await desk.recorder.start()
    await desk.pass_time(0.1)
    await desk.recorder.stop()

    assert desk.api.only["note"] == "it is so"


async def test_an_event_about_something_without_namespace_lives_in_default(desk: Desk) -> None:
    desk.say(about=ObjectRef(api_version="v1", kind="Node", namespace="", name="n1"))
    await desk.pass_time(0.1)

    assert desk.api.only["metadata"]["namespace"] == "default"
    assert desk.api.only["regarding"] == {"apiVersion": "v1", "kind": "Node", "name": "n1"}


async def test_a_repeat_becomes_a_series_of_the_same_event(desk: Desk) -> None:
    desk.say()
    await desk.pass_time(10.0)
    desk.say()
    await desk.pass_time(10.0)
    early = dict(desk.api.only)

    await desk.pass_time(SERIES)

    assert "series" not in early
    assert desk.api.only["series"] == {
        "count": 2,
        "lastObservedTime": "2023-11-14T22:13:30.000000Z",
    }
    assert [method for method, _, _ in desk.api.calls] == ["POST", "PATCH"]
    assert desk.api.calls[1][1:] == (
        f"{PATH}/m1.1",
        "patch events.events.k8s.io ns/m1.1",
    )


async def test_a_storm_makes_few_writes_and_none_of_it_is_lost(desk: Desk) -> None:
    for _ in range(100):
        for _ in range(100):
            desk.say()
        await desk.pass_time(1.0, step=0.5)
    await desk.pass_time(SERIES, step=0.5)

    assert len(desk.api.calls) <= 1 + (100 + SERIES) / SERIES
    assert desk.api.only["series"]["count"] == 10_000
    assert desk.counts.dropped == {}


async def test_another_note_is_another_event(desk: Desk) -> None:
    desk.say("owned by a")
    desk.say("owned by b")
    await desk.pass_time(0.2)

    assert [event["note"] for event in desk.api.events.values()] == ["owned by a", "owned by b"]


async def test_what_was_not_repeated_for_long_is_a_new_event(desk: Desk) -> None:
    desk.say()
    await desk.pass_time(400.0, step=5.0)
    desk.say()
    await desk.pass_time(0.2)

    assert len(desk.api.events) == 2
    assert all("series" not in event for event in desk.api.events.values())


async def test_an_event_that_the_server_forgot_is_made_again_with_its_series(desk: Desk) -> None:
    desk.say()
    await desk.pass_time(1.0)
    desk.api.events.clear()
    desk.say()

    await desk.pass_time(SERIES)

    assert desk.api.only["metadata"]["name"] == "m1.2"
    assert desk.api.only["series"]["count"] == 2
    assert desk.counts.written == 2


async def test_long_texts_are_cut_to_the_limits_of_the_api(desk: Desk) -> None:
    name = "m" * 235 + "-.x" + "y" * 15
    about = ObjectRef(api_version="v1", kind="Model", namespace="ns", name=name)

    desk.recorder.record(about, EventType.NORMAL, "R" * 500, "A" * 500, "ä" * 600 + "\ud800")
    await desk.pass_time(0.1)

    event = desk.api.only
    assert event["note"] == "ä" * 512
    assert (event["reason"], event["action"]) == ("R" * 128, "A" * 128)
    assert event["metadata"]["name"] == "m" * 235 + ".1"
    assert event["regarding"]["name"] == name


@given(text=st.text(), limit=st.integers(0, 20))
def test_a_cut_text_is_a_prefix_that_fits(text: str, limit: int) -> None:
    cut = clip(text, limit)

    assert text.startswith(cut)
    assert len(cut.encode()) <= limit
    assert cut == text or len(cut.encode()) > limit - 4


@pytest.mark.parametrize(
    ("error", "why"),
    [
        pytest.param(ForbiddenError("no rule", status=403), DropReason.REFUSED, id="forbidden"),
        pytest.param(InvalidError("no", status=422), DropReason.REFUSED, id="invalid"),
        pytest.param(ApiError("teapot", status=418), DropReason.REFUSED, id="other"),
    ],
)
async def test_trouble_is_counted_and_said_once_and_so_is_its_end(
    desk: Desk, error: ApiError, why: DropReason
) -> None:
    with capture_logs() as logs:
        desk.api.error = error
        for number in range(5):
            desk.say(f"note {number}")
        await desk.pass_time(2.0)
        desk.api.error = None
        desk.say("good news")
        desk.say("more of it")
        await desk.pass_time(2.0)

    assert desk.counts.dropped == {why: 5}
    assert [line["event"] for line in logs] == ["events are dropped", "events are written again"]
    assert logs[0]["error"] is error


@pytest.mark.parametrize("error", AWAY)
async def test_an_event_survives_an_api_server_that_is_away(desk: Desk, error: ApiError) -> None:
    with capture_logs() as logs:
        desk.api.error = error
        desk.say()
        await desk.pass_time(20.0)
        desk.api.error = None
        await desk.pass_time(15.0)

    assert desk.api.only["note"] == "it is so"
    assert desk.api.only["eventTime"] == "2023-11-14T22:13:20.000000Z"
    assert "series" not in desk.api.only
    assert (desk.counts.written, desk.counts.dropped, logs) == (1, {}, [])


@pytest.mark.parametrize("error", AWAY)
async def test_an_event_is_given_up_after_ever_rarer_tries(desk: Desk, error: ApiError) -> None:
    desk.api.error = error
    with capture_logs() as logs:
        for number in range(3):
            desk.say(f"note {number}")
        tries = []
        for second in range(400):
            before = len(desk.api.calls)
            await desk.pass_time(1.0, step=0.25)
            tries += [second] * (len(desk.api.calls) - before)

    per_event = [0, 1, 3, 7, 15, 31, 61, 91]
    assert len(tries) == 3 * len(per_event)
    assert all(abs(tries[i * 3] - want) <= 2 for i, want in enumerate(per_event))
    assert desk.counts.dropped == {DropReason.FAILED: 3}
    assert [line["event"] for line in logs] == ["events are dropped"]
    assert desk.recorder._again_at == {}
    assert desk.clock.pending == 0


async def test_a_server_that_names_a_time_is_not_asked_before(desk: Desk) -> None:
    desk.api.error = TooManyRequestsError("later", status=429, retry_after=7.0)
    desk.say()
    await desk.pass_time(6.9)
    early = len(desk.api.calls)
    await desk.pass_time(0.5)

    assert (early, len(desk.api.calls)) == (1, 2)


async def test_an_absurd_time_is_not_waited_for(desk: Desk) -> None:
    desk.api.error = TooManyRequestsError("later", status=429, retry_after=1e6)
    desk.say()
    await desk.pass_time(61.0, step=0.5)

    assert len(desk.api.calls) == 2


async def test_others_are_written_while_one_waits_for_its_next_try(desk: Desk) -> None:
    desk.api.error = UnreachableError("refused")
    desk.say("first")
    await desk.pass_time(0.2)
    desk.api.error = None
    desk.say("second")
    await desk.pass_time(0.2)
    early = [event["note"] for event in desk.api.events.values()]
    await desk.pass_time(1.0)

    assert early == ["second"]
    assert [event["note"] for event in desk.api.events.values()] == ["second", "first"]


async def test_a_write_whose_answer_was_lost_makes_no_second_event(desk: Desk) -> None:
    desk.api.loses_answers = True
    desk.say()
    await desk.pass_time(0.2)
    desk.api.loses_answers = False
    desk.say()
    await desk.pass_time(2.0)

    assert desk.api.only["series"]["count"] == 2
    assert [method for method, _, _ in desk.api.calls] == ["POST", "POST", "PATCH"]
    assert desk.counts.written == 1


async def test_no_more_wait_for_another_try_than_may_wait_at_all() -> None:
    desk = Desk(EventSettings(queued=5, pause_seconds=0.01))
    await desk.recorder.start()
    desk.api.error = UnreachableError("refused")

    for number in range(20):
        desk.say(f"note {number}")
        await desk.pass_time(0.02, step=0.02)

    assert desk.counts.dropped == {DropReason.FAILED: 15}
    await desk.recorder.stop()
    assert desk.counts.dropped == {DropReason.FAILED: 15, DropReason.STOPPED: 5}
    assert desk.clock.pending == 0


async def test_a_storm_without_permission_asks_rarely(desk: Desk) -> None:
    desk.api.error = ForbiddenError("no rule", status=403)

    for _ in range(120):
        desk.say()
        await desk.pass_time(1.0, step=0.5)

    assert len(desk.api.calls) <= 1 + 120 / SERIES


async def test_a_repeat_carries_what_could_not_be_written_before(desk: Desk) -> None:
    desk.api.error = UnreachableError("refused")
    desk.say()
    await desk.pass_time(1.0)
    desk.api.error = None
    desk.say()

    await desk.pass_time(SERIES)

    assert desk.api.only["series"]["count"] == 2
    assert desk.api.only["eventTime"] == "2023-11-14T22:13:20.000000Z"


async def test_a_full_queue_drops_the_new_ones_and_counts_them() -> None:
    desk = Desk(EventSettings(queued=3))
    await desk.recorder.start()
    desk.api.hangs = True
    desk.say("hangs")
    await settle()

    for number in range(5):
        desk.say(f"note {number}")

    assert desk.counts.dropped == {DropReason.QUEUE_FULL: 2}
    await desk.recorder.stop()
    assert desk.counts.dropped == {DropReason.QUEUE_FULL: 2, DropReason.STOPPED: 3}


async def test_an_event_dropped_from_a_full_queue_is_new_the_next_time() -> None:
    desk = Desk(EventSettings(queued=1))
    desk.say("first")
    desk.say("dropped")
    await desk.recorder.start()
    await desk.pass_time(1.0)

    desk.say("dropped")
    await desk.pass_time(1.0)
    await desk.recorder.stop()

    assert [event["note"] for event in desk.api.events.values()] == ["first", "dropped"]
    assert all("series" not in event for event in desk.api.events.values())


async def test_memory_is_bounded_by_the_remembered_events() -> None:
    desk = Desk(EventSettings(remembered=10, queued=1000))
    await desk.recorder.start()

    for number in range(100):
        desk.say(f"note {number}")
    await desk.pass_time(20.0)
    await desk.recorder.stop()

    assert len(desk.recorder._recent) == 10
    assert desk.counts.written == 10
    assert desk.counts.dropped == {DropReason.FORGOTTEN: 90}


async def test_writes_are_spread_out(desk: Desk) -> None:
    for number in range(50):
        desk.say(f"note {number}")

    await desk.pass_time(1.0)

    assert 15 <= len(desk.api.calls) <= 22


async def test_after_the_stop_nothing_is_taken(desk: Desk) -> None:
    await desk.recorder.stop()
    desk.say()
    await desk.recorder.stop()

    assert desk.counts.dropped == {DropReason.STOPPED: 1}
    assert desk.api.calls == []


async def test_a_stop_does_not_wait_for_a_write_that_hangs(desk: Desk) -> None:
    desk.api.hangs = True
    desk.say()
    await settle()

    await asyncio.wait_for(desk.recorder.stop(), 5.0)

    assert isinstance(desk.recorder, Eternal)
    assert len(desk.api.calls) == 1
