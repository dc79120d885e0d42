"""Which models claim a name in a pool, and which splits can be drawn from."""

from collections.abc import Mapping

import msgspec
import pytest

from epp.controller.claims import claims_name, claims_of, refers_to, split_problem
from epp.sources.caches import SourceCaches
from epp.testing.builders import make_model
from epp.testing.pool_world import POOL_KEY
from epp_api.v1alpha2.inferencemodel_types import InferenceModel, TargetModel


def of_group(group: str, kind: str = "InferencePool") -> InferenceModel:
    """A model whose reference spells out group and kind."""
    made = make_model()
    reference = msgspec.structs.replace(made.spec.pool_ref, group=group, kind=kind)
    return msgspec.structs.replace(
        made, spec=msgspec.structs.replace(made.spec, pool_ref=reference)
    )


MIXED: Mapping[str, int | None] = {"a": 1, "b": None}


@pytest.mark.parametrize(
    ("model", "refers", "claims"),
    [
        pytest.param(make_model(), True, True, id="plain"),
        pytest.param(make_model(pool="other"), False, False, id="other-pool"),
        pytest.param(make_model(namespace="other"), False, False, id="other-namespace"),
        pytest.param(make_model(deleting=True), True, False, id="being-deleted"),
        pytest.param(make_model(targets=MIXED), True, False, id="unusable-split"),
        pytest.param(make_model(targets={"a": 1, "b": 3}), True, True, id="split"),
        pytest.param(of_group("inference.networking.k8s.io"), True, True, id="newer-group"),
        pytest.param(of_group("inference.networking.x-k8s.io"), True, True, id="older-group"),
        pytest.param(of_group(""), True, True, id="no-group"),
    ],
)
def test_which_models_count_for_a_pool(model: InferenceModel, refers: bool, claims: bool) -> None:
    assert (refers_to(model, POOL_KEY), claims_name(model, POOL_KEY)) == (refers, claims)


def test_all_claims_of_a_name_are_found_and_no_others() -> None:
    models = SourceCaches().models
    for model in (
        make_model("first"),
        make_model("second"),
        make_model("other-name", model_name="chat"),
        make_model("other-pool", pool="other"),
        make_model("going", deleting=True),
        make_model("broken", targets=MIXED),
        make_model("first", namespace="other"),
    ):
        models.upsert(model)

    found = claims_of(models, "food", POOL_KEY)

    assert sorted(str(model.metadata.key) for model in found) == ["default/first", "default/second"]
    assert list(claims_of(models, "unknown", POOL_KEY)) == []


@pytest.mark.parametrize(
    ("weights", "problem"),
    [
        pytest.param([], None, id="no-targets"),
        pytest.param([None], None, id="one-target"),
        pytest.param([None, None], None, id="without-weights"),
        pytest.param([1, 99], None, id="weights"),
        pytest.param([0, 1], None, id="nothing-for-one"),
        pytest.param([0, None], "either every target has a weight, or none has", id="mixed"),
        pytest.param([1, -1], "a weight is negative", id="negative"),
    ],
)
def test_why_a_split_cannot_be_drawn_from(weights: list[int | None], problem: str | None) -> None:
    targets = [TargetModel(name=f"t{n}", weight=weight) for n, weight in enumerate(weights)]

    told = split_problem(targets)

    assert told == (problem and f"spec.targetModels: {problem}")
