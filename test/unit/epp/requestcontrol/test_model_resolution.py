import random
from collections import Counter
from collections.abc import Iterable, Mapping

import pytest

from epp.backend.endpoint_rows import EndpointRows
from epp.datastore.datastore import Datastore
from epp.errors import BadRequestError, ErrorCode, ModelNotFoundError
from epp.requestcontrol.model_resolution import (
    ResolvedModel,
    UnknownModelPolicy,
    draw_target,
    resolve_model,
)
from epp.testing.builders import make_model
from epp_api.v1alpha2.inferencemodel_types import Criticality, InferenceModel, TargetModel
from epp_api.v1alpha2.inferencemodelrewrite_types import InferenceModelRewrite
from epp_api.v1alpha2.inferenceobjective_types import InferenceObjective


def store_of(
    models: Iterable[InferenceModel] = (),
    objectives: Iterable[InferenceObjective] = (),
    rewrites: Iterable[InferenceModelRewrite] = (),
) -> Datastore:
    store = Datastore(EndpointRows())
    for model in models:
        store.model_resolve(model.spec.model_name, [model])
    for objective in objectives:
        store.objective_set(objective)
    for rewrite in rewrites:
        store.rewrite_set(rewrite)
    return store


def resolve(
    name: str, *models: InferenceModel, policy: UnknownModelPolicy = UnknownModelPolicy.AUTO
) -> ResolvedModel:
    return resolve_model(name, store_of(models), policy, random.Random(1))


@pytest.mark.parametrize(
    ("criticality", "want"),
    [
        pytest.param(Criticality.CRITICAL, (2, True), id="critical"),
        pytest.param(Criticality.STANDARD, (1, False), id="standard"),
        pytest.param(None, (1, False), id="unset-is-standard"),
        pytest.param(Criticality.SHEDDABLE, (-1, False), id="sheddable"),
    ],
)
def test_priority_of_a_declared_model(
    criticality: Criticality | None, want: tuple[int, bool]
) -> None:
    resolved = resolve("food", make_model(criticality=criticality))

    assert (resolved.priority, resolved.critical) == want
    assert resolved.target_model == "food"


@pytest.mark.parametrize(
    ("policy", "in_use", "served"),
    [
        pytest.param(UnknownModelPolicy.AUTO, False, True, id="auto-without-models"),
        pytest.param(UnknownModelPolicy.AUTO, True, False, id="auto-with-models"),
        pytest.param(UnknownModelPolicy.REJECT, False, False, id="reject"),
        pytest.param(UnknownModelPolicy.SERVE, True, True, id="serve"),
    ],
)
def test_an_undeclared_model(policy: UnknownModelPolicy, in_use: bool, served: bool) -> None:
    models = [make_model()] if in_use else []

    if served:
        assert resolve("new", *models, policy=policy) == ResolvedModel(target_model="new")
    else:
        with pytest.raises(ModelNotFoundError, match="`new`") as info:
            resolve("new", *models, policy=policy)
        assert (info.value.code, info.value.param) == (ErrorCode.BAD_CONFIGURATION, "model")


def test_matching_is_exact() -> None:
    with pytest.raises(ModelNotFoundError):
        resolve("Food", make_model(model_name="food"))


def test_no_model_is_a_bad_request() -> None:
    with pytest.raises(BadRequestError, match="model") as info:
        resolve("", policy=UnknownModelPolicy.SERVE)

    assert info.value.param == "model"


def test_a_long_name_is_shortened_in_the_answer() -> None:
    with pytest.raises(ModelNotFoundError) as info:
        resolve("x" * 5000, policy=UnknownModelPolicy.REJECT)

    assert len(info.value.message) < 300


@pytest.mark.parametrize(
    ("targets", "want"),
    [
        pytest.param({}, {"food": 1.0}, id="no-targets"),
        pytest.param({"a": 50, "b": 25, "c": 25}, {"a": 0.5, "b": 0.25, "c": 0.25}, id="weights"),
        pytest.param({"a": None, "b": None}, {"a": 0.5, "b": 0.5}, id="unset-is-uniform"),
        pytest.param({"a": None, "b": 1}, {"b": 1.0}, id="unset-among-weights-is-zero"),
        pytest.param({"a": 1, "b": None}, {"a": 1.0}, id="whichever-comes-first"),
        pytest.param({"a": 0, "b": 3, "c": 0}, {"b": 1.0}, id="zero-is-never-drawn"),
        pytest.param({"a": -5, "b": 3}, {"b": 1.0}, id="negative-counts-as-zero"),
    ],
)
def test_shares_of_a_split(targets: Mapping[str, int | None], want: Mapping[str, float]) -> None:
    listed = [TargetModel(name=name, weight=weight) for name, weight in targets.items()]
    source = random.Random(11)

    drawn = Counter(draw_target("food", listed, source) for _ in range(10_000))

    assert {name: count / 10_000 for name, count in drawn.items()} == pytest.approx(want, abs=0.02)


@pytest.mark.parametrize(
    "targets",
    [
        pytest.param([TargetModel(name="a", weight=0)], id="reserved"),
        pytest.param([TargetModel(name="a", weight=-1)], id="negative"),
        pytest.param([TargetModel(name="", weight=1)], id="nameless-weighted"),
        pytest.param([TargetModel(name="")], id="nameless"),
    ],
)
def test_a_split_without_a_valid_target_is_not_found(targets: list[TargetModel]) -> None:
    with pytest.raises(ModelNotFoundError, match="no valid target"):
        draw_target("food", targets, random.Random(1))


def test_one_request_takes_one_draw() -> None:
    class Counting(random.Random):
        draws = 0

        def randrange(self, *args: int) -> int:  # type: ignore[override]  # narrower on purpose
            self.draws += 1
            return super().randrange(*args)

    source = Counting(1)
    model = make_model(targets={"a": 1, "b": 1})

    resolve_model("food", store_of([model]), UnknownModelPolicy.AUTO, source)

    assert source.draws == 1
