"""Who owns a model name after one key was reconciled. T1 to T10 are the shared test vectors."""

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from epp.testing.builders import make_model, make_pool
from epp.testing.pool_world import PoolWorld
from epp_api.v1alpha2.inferencemodel_types import InferenceModel


async def settle(world: PoolWorld, *models: InferenceModel) -> None:
    """The pool exists, and these models have been reconciled, in this order."""
    world.pools_v1.upsert(make_pool())
    await world.reconcile_pool()
    for model in models:
        world.models.upsert(model)
        await world.reconcile_model(model.metadata.name, model.metadata.namespace)


M1 = make_model("m1", model_name="food", created=1000)
M1_AGAIN = make_model("m1", model_name="food", created=1002)
CHAT = make_model("m2", model_name="chat", created=1000)


@pytest.mark.parametrize(
    ("before", "event", "want"),
    [
        pytest.param([], M1, {"food": "m1"}, id="T1-first-claim"),
        pytest.param([M1], M1_AGAIN, {"food": "m1"}, id="T2-same-object-created-again"),
        pytest.param(
            [M1_AGAIN], make_model("m2", created=1003), {"food": "m1"}, id="T3-younger-is-ignored"
        ),
        pytest.param(
            [M1_AGAIN], make_model("m2", created=1001), {"food": "m2"}, id="T4-older-takes-over"
        ),
        pytest.param([CHAT], M1, {"chat": "m2", "food": "m1"}, id="T5-another-name"),
        pytest.param(
            [M1],
            make_model("m1", namespace="other", created=1),
            {"food": "m1"},
            id="T10-same-name-in-another-namespace",
        ),
        pytest.param(
            [M1], make_model("m2", pool="q", created=1), {"food": "m1"}, id="other-pools-model"
        ),
        pytest.param(
            [M1], make_model("m2", deleting=True, created=1), {"food": "m1"}, id="deleting-claim"
        ),
        pytest.param([M1], make_model("m1", deleting=True), {}, id="owner-is-being-deleted"),
        pytest.param([M1], make_model("a", created=1000), {"food": "a"}, id="tie-by-name"),
    ],
)
async def test_owner_after_a_claim(
    world: PoolWorld, before: list[InferenceModel], event: InferenceModel, want: dict[str, str]
) -> None:
    await settle(world, *before)

    world.models.upsert(event)
    await world.reconcile_model(event.metadata.name, event.metadata.namespace)

    assert world.owners() == want


async def test_t2_the_new_version_of_an_object_is_what_counts(world: PoolWorld) -> None:
    await settle(world, M1, M1_AGAIN)

    assert world.datastore.model_get("food") is M1_AGAIN


async def test_t6_an_owner_that_moves_to_another_pool_is_followed_by_the_next(
    world: PoolWorld,
) -> None:
    await settle(world, M1, make_model("m3", created=1005))

    world.models.upsert(make_model("m1", pool="q", created=1000))
    await world.reconcile_model("m1")

    assert world.owners() == {"food": "m3"}


async def test_t7_a_deleted_owner_is_followed_by_the_oldest_that_stays(world: PoolWorld) -> None:
    await settle(
        world, M1, make_model("m3", created=1005), make_model("m4", created=1004, deleting=True)
    )

    world.models.delete(M1.metadata.key)
    await world.reconcile_model("m1")

    assert world.owners() == {"food": "m3"}


async def test_t8_an_unknown_key_changes_nothing(world: PoolWorld) -> None:
    await settle(world, M1)

    await world.reconcile_model("unknown")

    assert world.owners() == {"food": "m1"}


async def test_t9_a_model_of_another_pool_does_not_follow(world: PoolWorld) -> None:
    await settle(world, M1, make_model("m5", pool="q", created=900))

    world.models.delete(M1.metadata.key)
    await world.reconcile_model("m1")

    assert world.owners() == {}
    assert not world.datastore.models_in_use


async def test_without_a_pool_no_model_is_active(world: PoolWorld) -> None:
    world.models.upsert(M1)

    await world.reconcile_model("m1")

    assert world.owners() == {}


@pytest.mark.parametrize(
    "targets",
    [
        pytest.param({"a": 1, "b": None}, id="A1-one-weight-missing"),
        pytest.param({"a": -1, "b": 2}, id="negative-weight"),
    ],
)
async def test_a_split_that_cannot_be_drawn_is_rejected_with_a_log_line(
    world: PoolWorld, targets: dict[str, int | None]
) -> None:
    with capture_logs() as logs:
        await settle(world, make_model("bad", targets=targets, created=1), M1)

    assert world.owners() == {"food": "m1"}
    (line,) = [line for line in logs if line["event"] == "model rejected"]
    assert (line["log_level"], line["object"]) == ("warning", "default/bad")
    assert "spec.targetModels" in line["error"]


@pytest.mark.parametrize(
    "targets",
    [
        pytest.param({}, id="none"),
        pytest.param({"a": None, "b": None}, id="no-weights"),
        pytest.param({"a": 95, "b": 5}, id="weights"),
        pytest.param({"a": 0}, id="reserved-name"),
    ],
)
async def test_a_split_that_can_be_drawn_is_accepted(
    world: PoolWorld, targets: dict[str, int | None]
) -> None:
    await settle(world, make_model("m1", targets=targets))

    assert world.owners() == {"food": "m1"}


async def test_a2_a_model_that_changes_its_name_vacates_the_old_one(world: PoolWorld) -> None:
    await settle(world, M1, make_model("next", created=2000))

    world.models.upsert(make_model("m1", model_name="drinks", created=1000))
    await world.reconcile_model("m1")

    assert world.owners() == {"drinks": "m1", "food": "next"}


async def test_a3_a_model_without_criticality_is_stored_as_it_is(world: PoolWorld) -> None:
    await settle(world, M1)

    model = world.datastore.model_get("food")

    assert model is not None
    assert model.spec.criticality is None


@pytest.mark.parametrize("order", [pytest.param(o, id="-".join(o)) for o in ("AB", "BA")])
async def test_a4_the_oldest_is_active_whichever_comes_first(world: PoolWorld, order: str) -> None:
    models = {"A": make_model("a", created=1000), "B": make_model("b", created=1001)}

    await settle(world, *(models[name] for name in order))

    assert world.owners() == {"food": "a"}


async def test_a5_the_next_becomes_active_without_an_event_of_its_own(world: PoolWorld) -> None:
    a, b = make_model("a", created=1000), make_model("b", created=1001)
    await settle(world, a, b)

    world.models.delete(a.metadata.key)
    await world.reconcile_model("a")

    assert world.datastore.model_get("food") is b


async def test_an_owner_recreated_with_a_younger_age_loses_to_one_that_waited(
    world: PoolWorld,
) -> None:
    await settle(world, M1, make_model("m2", created=1001))

    world.models.upsert(M1_AGAIN)
    await world.reconcile_model("m1")

    assert world.owners() == {"food": "m2"}


async def test_a_model_that_has_no_effect_is_explained(world: PoolWorld) -> None:
    with capture_logs() as logs:
        await settle(world, M1, make_model("m2", created=1003))

    (line,) = [line for line in logs if line["event"] == "model name in use"]
    assert (line["model"], line["object"], line["owner"]) == ("food", "default/m2", "default/m1")


ANY_MODEL = st.builds(
    make_model,
    st.sampled_from("abcd"),
    model_name=st.sampled_from(["food", "chat"]),
    pool=st.sampled_from(["pool", "q"]),
    created=st.integers(1, 4),
    deleting=st.booleans(),
)


@given(events=st.lists(st.tuples(st.sampled_from("abcd"), st.none() | ANY_MODEL), max_size=12))
async def test_after_every_event_the_owner_is_the_oldest_claim(
    events: list[tuple[str, InferenceModel | None]],
) -> None:
    world = PoolWorld()
    await settle(world)

    for name, model in events:
        changed = name if model is None else model.metadata.name
        if model is None:
            world.models.delete(make_model(name).metadata.key)
        else:
            world.models.upsert(model)
        await world.reconcile_model(changed)

    assert world.owners() == expected_owners(world.models.list())


def expected_owners(models: Sequence[InferenceModel]) -> dict[str, str]:
    claims = [
        model
        for model in models
        if model.spec.pool_ref.name == "pool" and model.metadata.deletion_timestamp is None
    ]
    claims.sort(
        key=lambda m: (
            m.spec.model_name,
            m.metadata.creation_timestamp or "",
            m.metadata.name,
        )
    )
    groups = itertools.groupby(claims, key=lambda model: model.spec.model_name)
    return {name: next(group).metadata.name for name, group in groups}
