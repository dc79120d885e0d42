"""Which events make which models be judged again, and where all of them end up."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epp.controller.model_status import ACCEPTED
from epp.controller.model_status_setup import STATUS_CONTROLLER, build_status_controller
from epp.kube.events import EventRecorder
from epp.testing.builders import make_model, make_old_pool, make_pool
from epp.testing.pool_world import POOL_KEY
from epp.testing.status_world import StatusWorld, drain
from epp_api.meta import NamespacedName
from epp_api.v1alpha2.inferencemodel_types import InferenceModel, InferenceModelStatus


@pytest.fixture
def status() -> StatusWorld:
    world = StatusWorld()
    world.pools_v1.upsert(make_pool())
    return world


async def test_a_new_winner_changes_every_claimant(status: StatusWorld) -> None:
    control = status.build_controller()
    for number, name in enumerate(("a", "b", "c")):
        status.api.store(make_model(name, created=1000 + number))
    status.api.store(make_model("x", model_name="other"))
    await drain(control)

    status.api.store(make_model("w", created=1))
    processed = await drain(control)

    assert set(processed) == {"a", "b", "c", "w"}
    assert status.accepted("w") == ("True", "Accepted")
    for name in ("a", "b", "c"):
        assert status.accepted(name) == ("False", "ModelNameInUse")
        assert "default/w" in status.conditions(name)["Accepted"].message
    assert set(status.outcomes) == {(STATUS_CONTROLLER, "success")}


@pytest.mark.parametrize(
    "leave",
    [
        pytest.param(lambda s: s.models.delete(NamespacedName("default", "w")), id="deleted"),
        pytest.param(lambda s: s.api.store(make_model("w", created=1, deleting=True)), id="going"),
        pytest.param(lambda s: s.api.store(make_model("w", created=1, pool="q")), id="moved"),
        pytest.param(
            lambda s: s.api.store(make_model("w", created=1, targets={"a": 1, "b": None})),
            id="unusable",
        ),
        pytest.param(
            lambda s: s.api.store(make_model("w", created=1, model_name="else")), id="renamed"
        ),
    ],
)
async def test_the_next_in_line_is_accepted_when_the_owner_leaves(
    status: StatusWorld, leave: Callable[[StatusWorld], Any]
) -> None:
    control = status.build_controller()
    status.api.store(make_model("w", created=1))
    status.api.store(make_model("a", created=1000))
    status.api.store(make_model("b", created=1001))
    await drain(control)

    leave(status)
    await drain(control)

    assert status.accepted("a") == ("True", "Accepted")
    assert "default/a" in status.conditions("b")["Accepted"].message


async def test_a_written_status_does_not_wake_the_rivals(status: StatusWorld) -> None:
    control = status.build_controller()
    status.api.store(make_model("a", created=1))
    await drain(control)
    status.api.store(make_model("b", created=2))

    processed = await drain(control)

    assert sorted(processed) == ["a", "b", "b"]


@pytest.mark.parametrize(
    ("remove", "add"),
    [
        pytest.param(
            lambda s: s.pools_v1.replace([]), lambda s: s.pools_v1.upsert(make_pool()), id="v1"
        ),
        pytest.param(
            lambda s: s.pools_v1.replace([]),
            lambda s: s.pools_v1alpha2.upsert(make_old_pool()),
            id="v1alpha2",
        ),
    ],
)
async def test_the_pool_coming_and_going_changes_every_model(
    status: StatusWorld, remove: Callable[[StatusWorld], None], add: Callable[[StatusWorld], None]
) -> None:
    control = status.build_controller()
    status.api.store(make_model("a", model_name="a"))
    status.api.store(make_model("b", model_name="b"))
    await drain(control)

    remove(status)
    await drain(control)
    without = [status.accepted(name) for name in "ab"]
    add(status)
    await drain(control)

    assert without == [("Unknown", "Pending")] * 2
    assert [status.accepted(name) for name in "ab"] == [("True", "Accepted")] * 2


async def test_another_pool_or_another_pools_model_wakes_nobody(status: StatusWorld) -> None:
    control = status.build_controller()
    status.api.store(make_model("a"))
    await drain(control)

    status.pools_v1.upsert(make_pool("q"))
    status.api.store(make_model("x", pool="q"))

    assert await drain(control) == []


async def test_a_new_leader_looks_at_everything(status: StatusWorld) -> None:
    control = status.build_controller()
    status.leads = False
    status.api.store(make_model("a"))
    status.api.store(make_model("b", model_name="b"))
    status.api.store(make_model("x", pool="q"))
    await drain(control)
    written_before = len(status.api.calls)

    status.leads = True
    control.requeue_all()
    processed = await drain(control)

    assert written_before == 0
    assert processed[:2] == ["a", "b"]
    assert "x" not in processed
    assert status.accepted("b") == ("True", "Accepted")


async def test_it_works_with_the_real_recorder(status: StatusWorld) -> None:
    recorder = EventRecorder(status.api, controller="llm-d.ai/epp", instance="pod")
    control = build_status_controller(status, POOL_KEY, client=status.api, events=recorder)
    status.api.store(make_model("m"))

    await control.controller.start()
    async with asyncio.timeout(5.0):
        while "Accepted" not in status.conditions():
            await asyncio.sleep(0)
    await control.controller.stop()
    await recorder.stop()

    assert status.accepted() == ("True", "Accepted")


NAMES = ("a", "b", "c")
MODELS = st.builds(
    make_model,
    st.sampled_from(NAMES),
    model_name=st.sampled_from(("food", "chat")),
    pool=st.sampled_from(("pool", "pool", "pool", "q")),
    created=st.integers(1, 4),
    deleting=st.booleans(),
    targets=st.sampled_from((None, {"t": 1, "u": 2}, {"t": 1, "u": None})),
)
STEPS = st.lists(
    st.one_of(MODELS, st.sampled_from(NAMES), st.sampled_from(("pool", "no pool"))), max_size=12
)


@settings(deadline=None, max_examples=80)
@given(steps=STEPS)
async def test_whatever_happens_every_condition_ends_up_as_judged(steps: Sequence[Any]) -> None:
    status = StatusWorld()
    control = status.build_controller()

    for step in steps:
        if isinstance(step, InferenceModel):
            known = status.models.get(step.metadata.key)
            kept = InferenceModelStatus() if known is None else known.status
            status.api.store(msgspec.structs.replace(step, status=kept))
        elif step == "pool":
            status.pools_v1.upsert(make_pool())
        elif step == "no pool":
            status.pools_v1.replace([])
        else:
            status.models.delete(NamespacedName("default", step))
        await drain(control)

    for model in status.models.list():
        verdict = status.judge.verdict(model)
        condition = status.conditions(model.metadata.name).get(ACCEPTED)
        if verdict is not None:
            assert condition is not None
            assert (condition.reason, condition.message) == (verdict.reason, verdict.message)
        elif not status.judge.concerns(model):
            assert condition is None
