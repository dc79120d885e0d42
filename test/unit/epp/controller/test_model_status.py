"""The verdict on an InferenceModel as a function of what the caches say."""

from collections.abc import Sequence

import pytest

from epp.controller.model_status import ModelJudge, Reason, Verdict
from epp.testing.builders import make_model, make_old_pool, make_pool
from epp.testing.pool_world import POOL_KEY, PoolWorld
from epp_api.v1alpha2.inferencemodel_types import InferenceModel

ACCEPTED = Verdict(
    reason=Reason.ACCEPTED, message="model name 'food' of pool default/pool is this object's"
)
NO_POOL = Verdict(reason=Reason.PENDING, message="pool default/pool does not exist")


def judge_of(world: PoolWorld) -> ModelJudge:
    return ModelJudge(
        pool_key=POOL_KEY,
        models=world.models,
        pools=world.pools_v1,
        old_pools=world.pools_v1alpha2,
    )


def in_use(owner: str, created: str) -> Verdict:
    return Verdict(
        reason=Reason.MODEL_NAME_IN_USE,
        message=f"model name 'food' belongs to default/{owner}, created {created}",
    )


@pytest.mark.parametrize(
    ("model", "others", "want"),
    [
        pytest.param(make_model("m"), [], ACCEPTED, id="alone"),
        pytest.param(make_model("m"), [make_model("n", created=2000)], ACCEPTED, id="older"),
        pytest.param(
            make_model("m"),
            [make_model("n", created="2020-01-01T00:00:00Z")],
            in_use("n", "2020-01-01T00:00:00Z"),
            id="younger",
        ),
        pytest.param(
            make_model("m", created=None),
            [make_model("a", created=None)],
            in_use("a", "at an unknown time"),
            id="no-times-first-by-name",
        ),
        pytest.param(
            make_model("m"), [make_model("n", created=1, pool="q")], ACCEPTED, id="other-pool"
        ),
        pytest.param(
            make_model("m"), [make_model("n", created=1, deleting=True)], ACCEPTED, id="rival-goes"
        ),
        pytest.param(
            make_model("m"),
            [make_model("n", created=1, targets={"a": 1, "b": None})],
            ACCEPTED,
            id="rival-is-unusable",
        ),
        pytest.param(
            make_model("m", targets={"a": 1, "b": None}),
            [make_model("n", created=1)],
            Verdict(
                reason=Reason.INVALID_TARGETS,
                message="spec.targetModels: either every target has a weight, or none has",
            ),
            id="invalid-comes-before-conflict",
        ),
        pytest.param(make_model("m", pool="q"), [], None, id="not-ours"),
        pytest.param(make_model("m", namespace="elsewhere"), [], None, id="other-namespace"),
        pytest.param(make_model("m", deleting=True), [], None, id="being-deleted"),
    ],
)
def test_verdict_with_a_pool(
    world: PoolWorld, model: InferenceModel, others: Sequence[InferenceModel], want: Verdict | None
) -> None:
    world.pools_v1.upsert(make_pool())
    for obj in (model, *others):
        world.models.upsert(obj)

    assert judge_of(world).verdict(model) == want


@pytest.mark.parametrize(
    ("pools", "old_pools", "want"),
    [
        pytest.param([], [], NO_POOL, id="none"),
        pytest.param([make_pool("q")], [make_old_pool("q")], NO_POOL, id="another"),
        pytest.param([make_pool(deleting=True)], [], NO_POOL, id="being-deleted"),
        pytest.param([], [make_old_pool(deleting=True)], NO_POOL, id="old-one-being-deleted"),
        pytest.param([], [make_old_pool()], ACCEPTED, id="old-one"),
        pytest.param([make_pool(deleting=True)], [make_old_pool()], ACCEPTED, id="old-one-stays"),
    ],
)
def test_verdict_by_pool(world: PoolWorld, pools, old_pools, want: Verdict) -> None:
    for pool in pools:
        world.pools_v1.upsert(pool)
    for old_pool in old_pools:
        world.pools_v1alpha2.upsert(old_pool)
    model = make_model("m")
    world.models.upsert(model)

    assert judge_of(world).verdict(model) == want


@pytest.mark.parametrize(
    ("reason", "status"),
    [
        pytest.param(Reason.ACCEPTED, "True", id="accepted"),
        pytest.param(Reason.MODEL_NAME_IN_USE, "False", id="in-use"),
        pytest.param(Reason.INVALID_TARGETS, "False", id="invalid"),
        pytest.param(Reason.PENDING, "Unknown", id="pending"),
    ],
)
def test_the_status_follows_from_the_reason(reason: Reason, status: str) -> None:
    assert reason.status == status
