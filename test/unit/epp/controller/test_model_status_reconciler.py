"""Status of one InferenceModel: when it is written, what it says, and what failures do: nothing."""

import msgspec
import pytest
from structlog.testing import capture_logs

from epp.kube.controller import Result
from epp.kube.errors import (
    ApiError,
    ConflictError,
    ForbiddenError,
    InvalidError,
    NotFoundError,
    ServerError,
    TooManyRequestsError,
    UnauthorizedError,
    UnreachableError,
)
from epp.kube.events import EventType
from epp.testing.builders import make_model, make_pool
from epp.testing.status_world import Said, StatusWorld
from epp_api.meta import Condition, NamespacedName
from epp_api.v1alpha2.inferencemodel_types import InferenceModel, InferenceModelStatus

T0_TEXT = "2023-11-14T22:13:20Z"
READY = Condition(
    type="Ready",
    status="Unknown",
    reason="Pending",
    message="not looked at yet",
    last_transition_time="1970-01-01T00:00:00Z",
)


@pytest.fixture
def status() -> StatusWorld:
    world = StatusWorld()
    world.pools_v1.upsert(make_pool())
    return world


async def test_a_model_that_owns_its_name_is_accepted(status: StatusWorld) -> None:
    status.api.store(make_model("m"), generation=4)

    result = await status.reconcile_status()

    assert result == Result()
    assert status.conditions()["Accepted"] == Condition(
        type="Accepted",
        status="True",
        reason="Accepted",
        message="model name 'food' of pool default/pool is this object's",
        last_transition_time=T0_TEXT,
        observed_generation=4,
    )
    assert status.api.calls[0]["what"] == (
        "patch inferencemodels.inference.networking.x-k8s.io/status default/m"
    )
    assert status.ear.said == [
        Said(
            "m",
            EventType.NORMAL,
            "Accepted",
            "model name 'food' of pool default/pool is this object's",
        )
    ]


async def test_a_loser_is_told_who_won(status: StatusWorld) -> None:
    status.api.store(make_model("m", created=1000))
    winner = status.api.store(make_model("w", created=1))

    await status.reconcile_status()

    message = (
        f"model name 'food' belongs to default/w, created {winner.metadata.creation_timestamp}"
    )
    assert status.accepted() == ("False", "ModelNameInUse")
    assert status.conditions()["Accepted"].message == message
    assert status.ear.said == [Said("m", EventType.WARNING, "ModelNameInUse", message)]


async def test_targets_that_cannot_be_drawn_are_named(status: StatusWorld) -> None:
    status.api.store(make_model("m", targets={"a": 1, "b": None}))

    await status.reconcile_status()

    assert status.accepted() == ("False", "InvalidTargets")
    assert [said.event_type for said in status.ear.said] == [EventType.WARNING]


async def test_without_a_pool_a_model_is_pending_and_no_event_is_made(status: StatusWorld) -> None:
    status.pools_v1.replace([])
    status.api.store(make_model("m"))

    await status.reconcile_status()

    assert status.accepted() == ("Unknown", "Pending")
    assert status.ear.said == []


async def test_nothing_is_written_when_nothing_would_change(status: StatusWorld) -> None:
    status.api.store(make_model("m"))
    await status.reconcile_status()

    status.clock.advance(100.0)
    result = await status.reconcile_status()

    assert result == Result()
    assert len(status.api.calls) == 1
    assert len(status.ear.said) == 1


async def test_other_conditions_are_neither_sent_nor_touched(status: StatusWorld) -> None:
    foreign = Condition(type="example.com/Loaded", status="True", reason="Yes", message="it is")
    model = make_model("m")
    both = InferenceModelStatus(conditions=[READY, foreign])
    status.api.store(msgspec.structs.replace(model, status=both))

    await status.reconcile_status()

    (call,) = status.api.calls
    assert [one["type"] for one in call["status"]["conditions"]] == ["Accepted"]
    assert status.conditions() == {
        "Ready": READY,
        "example.com/Loaded": foreign,
        "Accepted": status.conditions()["Accepted"],
    }


async def test_the_transition_time_moves_with_the_status_only(status: StatusWorld) -> None:
    status.api.store(make_model("m", created=1000))
    status.api.store(make_model("w", created=2))
    await status.reconcile_status()

    status.clock.advance(60.0)
    status.api.store(make_model("v", created=1))
    await status.reconcile_status()
    another_winner = status.conditions()["Accepted"]
    status.clock.advance(60.0)
    status.models.delete(NamespacedName("default", "w"))
    status.models.delete(NamespacedName("default", "v"))
    await status.reconcile_status()
    won = status.conditions()["Accepted"]

    assert "default/v" in another_winner.message
    assert another_winner.last_transition_time == T0_TEXT
    assert (won.status, won.last_transition_time) == ("True", "2023-11-14T22:15:20Z")
    assert [said.reason for said in status.ear.said] == [
        "ModelNameInUse",
        "ModelNameInUse",
        "Accepted",
    ]


async def test_a_new_generation_is_observed_without_an_event(status: StatusWorld) -> None:
    model = status.api.store(make_model("m"), generation=1)
    await status.reconcile_status()
    seen = status.conditions()["Accepted"]

    now = status.models.get(model.metadata.key)
    assert now is not None
    status.api.store(now, generation=2)
    await status.reconcile_status()

    assert status.conditions()["Accepted"] == msgspec.structs.replace(seen, observed_generation=2)
    assert len(status.ear.said) == 1


async def test_an_edited_entry_is_restored(status: StatusWorld) -> None:
    model = make_model("m")
    edited = Condition(type="Accepted", status="False", reason="Because", message="I say so")
    conditions = InferenceModelStatus(conditions=[edited])
    status.api.store(msgspec.structs.replace(model, status=conditions))

    await status.reconcile_status()

    assert status.accepted() == ("True", "Accepted")


async def test_a_model_that_moves_away_loses_our_entry_and_nothing_else(
    status: StatusWorld,
) -> None:
    status.api.store(make_model("m"))
    await status.reconcile_status()
    ours = status.conditions()["Accepted"]
    moved = make_model("m", pool="q")
    moved_status = InferenceModelStatus(conditions=[READY, ours])
    status.api.store(msgspec.structs.replace(moved, status=moved_status))

    await status.reconcile_status()
    await status.reconcile_status()

    assert status.conditions() == {"Ready": READY}
    assert len(status.api.calls) == 2
    assert "status" not in status.api.calls[1]
    assert len(status.ear.said) == 1


async def test_the_entry_of_the_new_pools_picker_stays(status: StatusWorld) -> None:
    status.api.store(make_model("m"))
    await status.reconcile_status()
    key = NamespacedName("default", "m")
    theirs = Condition(type="Accepted", status="True", reason="Accepted", message="by q")
    moved = make_model("m", pool="q")
    status.api.store(
        msgspec.structs.replace(moved, status=InferenceModelStatus(conditions=[theirs]))
    )
    status.api.owned[key] = {"epp-pool": set(), "epp-q": {"Accepted"}}

    await status.reconcile_status()

    assert status.conditions()["Accepted"] == theirs


async def test_an_entry_of_which_somebody_else_owns_a_part_stays_and_is_let_go(
    status: StatusWorld,
) -> None:
    status.api.store(make_model("m"))
    await status.reconcile_status()
    ours = InferenceModelStatus(conditions=[status.conditions()["Accepted"]])
    status.api.store(msgspec.structs.replace(make_model("m", pool="q"), status=ours))
    status.api.shared = {"Accepted"}

    with capture_logs() as logs:
        result = await status.reconcile_status()

    assert result == Result()
    assert len(status.api.calls) == 2
    assert logs == []


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(make_model("m", pool="q"), id="never-ours"),
        pytest.param(make_model("m", deleting=True), id="being-deleted"),
        pytest.param(make_model("other"), id="gone"),
    ],
)
async def test_what_is_not_ours_to_say_is_not_written(
    status: StatusWorld, model: InferenceModel
) -> None:
    status.api.store(model)

    result = await status.reconcile_status()

    assert result == Result()
    assert status.api.calls == []


async def test_who_may_not_write_does_not(status: StatusWorld) -> None:
    status.leads = False
    status.api.store(make_model("m"))

    result = await status.reconcile_status()

    assert result == Result()
    assert status.api.calls == []
    assert status.ear.said == []


async def test_a_missing_permission_is_said_once_and_found_repaired_by_one_request_a_minute(
    status: StatusWorld,
) -> None:
    names = [f"m{number}" for number in range(20)]
    for name in names:
        status.api.store(make_model(name, model_name=name))
    status.api.error = ForbiddenError("patch inferencemodels/status: no rule", status=403)

    with capture_logs() as logs:
        results = [await status.reconcile_status(name) for name in names]
        calls = len(status.api.calls)
        status.clock.advance(60.0)
        results += [await status.reconcile_status(name) for name in names]
        status.api.error = None
        status.clock.advance(60.0)
        for name in names:
            assert await status.reconcile_status(name) == Result()

    assert results == [Result(requeue_after=60.0)] * 40
    assert calls == 1
    assert len(status.api.calls) == 2 + 20
    assert [line["event"] for line in logs] == [
        "model status not written, trying again",
        "model status is written again",
    ]
    assert all(status.accepted(name) == ("True", "Accepted") for name in names)


@pytest.mark.parametrize(
    ("error", "want", "logged"),
    [
        pytest.param(ConflictError("x", status=409), Result(requeue=True), False, id="conflict"),
        pytest.param(NotFoundError("x", status=404), Result(), False, id="gone"),
        pytest.param(
            UnauthorizedError("x", status=401), Result(requeue_after=60.0), True, id="token"
        ),
        pytest.param(InvalidError("x", status=422), Result(requeue_after=60.0), True, id="invalid"),
        pytest.param(ServerError("x", status=500), Result(requeue=True), True, id="server"),
        pytest.param(UnreachableError("x"), Result(requeue=True), True, id="unreachable"),
        pytest.param(
            TooManyRequestsError("x", status=429, retry_after=7.0),
            Result(requeue=True, requeue_after=7.0),
            True,
            id="busy",
        ),
    ],
)
async def test_no_error_of_the_api_gets_out(
    status: StatusWorld, error: ApiError, want: Result, logged: bool
) -> None:
    status.api.store(make_model("m"))
    status.api.error = error

    with capture_logs() as logs:
        results = [await status.reconcile_status() for _ in range(2)]

    assert results == [want, want]
    assert len(logs) == int(logged)
    assert status.ear.said == []


async def test_one_refused_object_does_not_hold_up_the_others(status: StatusWorld) -> None:
    status.api.store(make_model("m"))
    status.api.store(make_model("n", model_name="n"))
    status.api.error = InvalidError("too many conditions", status=422)
    await status.reconcile_status("m")
    status.api.error = None

    await status.reconcile_status("n")

    assert status.accepted("n") == ("True", "Accepted")


async def test_a_verdict_on_an_object_that_has_changed_is_refused_and_made_again(
    status: StatusWorld,
) -> None:
    status.api.store(make_model("m"))

    def move_meanwhile() -> None:
        status.api.before_each = lambda: None
        status.api.store(make_model("m", pool="q"))

    status.api.before_each = move_meanwhile
    first = await status.reconcile_status()
    second = await status.reconcile_status()

    assert first == Result(requeue=True)
    assert second == Result()
    assert status.conditions() == {}
