"""Rewrites, objectives, InferenceModels and headers together: who gives target and priority."""

import random
from collections import Counter
from collections.abc import Mapping, Sequence

import pytest

from epp.backend.endpoint_rows import EndpointRows
from epp.datastore.datastore import Datastore
from epp.errors import BadRequestError, ModelNotFoundError
from epp.requestcontrol.model_resolution import ResolvedModel, UnknownModelPolicy, resolve_model
from epp.testing.builders import make_model, make_objective, make_rewrite, make_rule
from epp_api.v1alpha2.inferencemodel_types import Criticality, InferenceModel
from epp_api.v1alpha2.inferencemodelrewrite_types import (
    InferenceModelRewrite,
    InferenceModelRewriteRule,
)

AUTO, REJECT, SERVE = UnknownModelPolicy

OBJECTIVE, OLD_OBJECTIVE = "x-llm-d-inference-objective", "x-gateway-inference-objective"
REWRITE, OLD_REWRITE = "x-llm-d-model-name-rewrite", "x-gateway-model-name-rewrite"

MODEL = make_model(model_name="food", criticality=Criticality.CRITICAL, targets={"model-target": 1})
PLAIN = make_model(model_name="food")
RESERVED = make_model(model_name="food", targets={"off": 0})
BATCH = make_objective("batch", priority=-5)
UNSET = make_objective("unset", priority=None)
EXACT = make_rule("exact-target", match=["food"])
GENERIC = make_rule("generic-target")
EMPTY = make_rule({}, match=["food"])
NAMELESS = make_rule("", match=["food"])

Headers = Mapping[str, str]


def store_of(*models: InferenceModel, rules: Sequence[InferenceModelRewriteRule] = ()) -> Datastore:
    store = Datastore(EndpointRows())
    for model in models:
        store.model_resolve(model.spec.model_name, [model])
    for objective in (BATCH, UNSET):
        store.objective_set(objective)
    rewrite: InferenceModelRewrite = make_rewrite("canary", *rules)
    store.rewrite_set(rewrite)
    return store


def resolve(
    store: Datastore,
    headers: Headers | None = None,
    *,
    name: str = "food",
    policy: UnknownModelPolicy = AUTO,
    strict: bool = False,
) -> ResolvedModel:
    return resolve_model(
        name, store, policy, random.Random(1), headers=headers or {}, strict_v03=strict
    )


HEADER = {REWRITE: "header-target"}
BY_RULE = "default/canary rule 0"


@pytest.mark.parametrize(
    ("store", "headers", "want", "by"),
    [
        pytest.param(store_of(), {}, "food", "", id="the-name-itself"),
        pytest.param(store_of(PLAIN), {}, "food", "", id="model-without-targets"),
        pytest.param(store_of(MODEL), {}, "model-target", "", id="model"),
        pytest.param(store_of(MODEL), HEADER, "header-target", f"header {REWRITE}", id="header"),
        pytest.param(
            store_of(MODEL, rules=[EXACT]), HEADER, "exact-target", BY_RULE, id="rule-over-all"
        ),
        pytest.param(store_of(rules=[EXACT]), {}, "exact-target", BY_RULE, id="rule-alone"),
        pytest.param(store_of(rules=[GENERIC]), {}, "generic-target", BY_RULE, id="generic-rule"),
        pytest.param(
            store_of(rules=[GENERIC, EXACT]),
            {},
            "exact-target",
            "default/canary rule 1",
            id="exact-over-generic",
        ),
        pytest.param(
            store_of(MODEL, rules=[make_rule("t", match=["header-target"])]),
            HEADER,
            "header-target",
            f"header {REWRITE}",
            id="rules-look-at-the-clients-name",
        ),
        pytest.param(
            store_of(rules=[EXACT, make_rule("twice", match=["exact-target"])]),
            {},
            "exact-target",
            BY_RULE,
            id="one-rule-applies-once",
        ),
        pytest.param(
            store_of(MODEL, rules=[EMPTY]), {}, "model-target", "", id="rule-without-targets"
        ),
        pytest.param(
            store_of(MODEL, rules=[EMPTY, GENERIC]),
            {},
            "model-target",
            "",
            id="rule-without-targets-still-wins-over-generic",
        ),
        pytest.param(
            store_of(MODEL, rules=[EMPTY]),
            HEADER,
            "header-target",
            f"header {REWRITE}",
            id="rule-without-targets-lets-the-header-through",
        ),
        pytest.param(
            store_of(MODEL, rules=[NAMELESS]), {}, "model-target", "", id="target-without-name"
        ),
        pytest.param(
            store_of(RESERVED, rules=[EXACT]), {}, "exact-target", BY_RULE, id="rule-over-reserved"
        ),
        pytest.param(
            store_of(MODEL),
            {OLD_REWRITE: "old"},
            "old",
            f"header {OLD_REWRITE}",
            id="older-header",
        ),
        pytest.param(
            store_of(MODEL),
            {OLD_REWRITE: "old", REWRITE: "new"},
            "new",
            f"header {REWRITE}",
            id="newer-header-first",
        ),
        pytest.param(
            store_of(MODEL),
            {OLD_REWRITE: "old", REWRITE: ""},
            "model-target",
            "",
            id="newer-header-first-even-if-empty",
        ),
    ],
)
def test_who_gives_the_target(store: Datastore, headers: Headers, want: str, by: str) -> None:
    resolved = resolve(store, headers)

    assert (resolved.target_model, resolved.rewrite) == (want, by)


@pytest.mark.parametrize(
    ("store", "headers", "want", "by"),
    [
        pytest.param(store_of(), {}, 0, "", id="nobody"),
        pytest.param(store_of(PLAIN), {}, 1, "", id="model"),
        pytest.param(store_of(MODEL), {}, 2, "", id="critical-model"),
        pytest.param(store_of(), {OBJECTIVE: "batch"}, -5, "batch", id="objective"),
        pytest.param(store_of(MODEL), {OBJECTIVE: "batch"}, -5, "batch", id="objective-over-model"),
        pytest.param(store_of(MODEL), {OBJECTIVE: "unset"}, 0, "unset", id="unset-is-0"),
        pytest.param(store_of(MODEL), {OBJECTIVE: "nobody"}, 2, "", id="unknown-objective"),
        pytest.param(store_of(), {OBJECTIVE: "nobody"}, 0, "", id="unknown-objective-alone"),
        pytest.param(store_of(MODEL), {OBJECTIVE: "Batch"}, 2, "", id="case-counts"),
        pytest.param(store_of(MODEL), {OLD_OBJECTIVE: "batch"}, -5, "batch", id="older-header"),
        pytest.param(
            store_of(MODEL),
            {OBJECTIVE: "unset", OLD_OBJECTIVE: "batch"},
            0,
            "unset",
            id="newer-header-first",
        ),
        pytest.param(
            store_of(MODEL),
            {OBJECTIVE: "", OLD_OBJECTIVE: "batch"},
            2,
            "",
            id="newer-header-first-even-if-empty",
        ),
        pytest.param(store_of(rules=[EXACT]), {}, 0, "", id="a-rule-gives-no-priority"),
    ],
)
def test_who_gives_the_priority(store: Datastore, headers: Headers, want: int, by: str) -> None:
    resolved = resolve(store, headers)

    assert (resolved.priority, resolved.objective) == (want, by)


OTHER = make_model(model_name="other")


@pytest.mark.parametrize(
    ("store", "headers", "policy", "served"),
    [
        pytest.param(store_of(OTHER), {}, AUTO, False, id="undeclared"),
        pytest.param(store_of(OTHER, rules=[EXACT]), {}, AUTO, True, id="exact-rule-declares"),
        pytest.param(store_of(OTHER, rules=[GENERIC]), {}, AUTO, True, id="generic-rule-declares"),
        pytest.param(store_of(rules=[EXACT]), {}, REJECT, True, id="rule-declares-to-reject-too"),
        pytest.param(store_of(OTHER, rules=[EMPTY]), {}, AUTO, False, id="empty-rule-does-not"),
        pytest.param(store_of(OTHER), HEADER, AUTO, False, id="rewrite-header-does-not"),
        pytest.param(store_of(OTHER), {OBJECTIVE: "batch"}, AUTO, False, id="objective-does-not"),
        pytest.param(store_of(), HEADER, AUTO, True, id="auto-without-models"),
        pytest.param(store_of(rules=[EMPTY]), {}, AUTO, True, id="rules-are-no-models-in-use"),
        pytest.param(store_of(), HEADER, REJECT, False, id="reject"),
        pytest.param(store_of(OTHER), HEADER, SERVE, True, id="serve"),
    ],
)
def test_which_names_are_known(
    store: Datastore, headers: Headers, policy: UnknownModelPolicy, served: bool
) -> None:
    if served:
        assert resolve(store, headers, policy=policy).priority == 0
    else:
        with pytest.raises(ModelNotFoundError, match="`food` does not exist"):
            resolve(store, headers, policy=policy)


def test_a_request_without_a_model_is_refused_whatever_its_headers_say() -> None:
    with pytest.raises(BadRequestError, match="names no model"):
        resolve(store_of(rules=[GENERIC]), HEADER, name="")


@pytest.mark.parametrize("headers", [{}, {**HEADER, OBJECTIVE: "batch"}])
def test_strict_v03_knows_models_alone(headers: Headers) -> None:
    store = store_of(MODEL, rules=[EXACT])

    resolved = resolve(store, headers, strict=True)

    assert resolved == ResolvedModel(target_model="model-target", priority=2, critical=True)
    with pytest.raises(ModelNotFoundError):
        resolve(store_of(OTHER, rules=[EXACT]), headers, strict=True)


def test_that_a_model_is_critical_does_not_depend_on_the_objective() -> None:
    assert resolve(store_of(MODEL), {OBJECTIVE: "batch"}).critical


@pytest.mark.parametrize(
    ("targets", "want"),
    [
        pytest.param({"a": 95, "b": 5}, {"a": 0.95, "b": 0.05}, id="weights"),
        pytest.param({"a": None, "b": None}, {"a": 0.5, "b": 0.5}, id="unset-is-uniform"),
        pytest.param({"a": None, "b": 1}, {"b": 1.0}, id="unset-among-weights-is-zero"),
        pytest.param({"a": 0, "b": 0}, {"a": 0.5, "b": 0.5}, id="nothing-above-zero-is-uniform"),
        pytest.param({"": 5, "b": 5}, {"b": 1.0}, id="nameless-is-never-drawn"),
    ],
)
def test_shares_of_a_rules_targets(
    targets: Mapping[str, int | None], want: Mapping[str, float]
) -> None:
    store = store_of(rules=[make_rule(targets)])
    source = random.Random(11)

    drawn = Counter(resolve_model("food", store, AUTO, source).target_model for _ in range(10_000))

    assert {name: count / 10_000 for name, count in drawn.items()} == pytest.approx(want, abs=0.02)
