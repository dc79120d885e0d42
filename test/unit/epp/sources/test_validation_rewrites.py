"""InferenceObjective and InferenceModelRewrite, in both of their API groups."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from epp.sources.problems import ManifestProblem
from epp.sources.validation import Manifest, ManifestValidator
from epp_api.v1alpha2.inferencemodelrewrite_types import InferenceModelRewrite
from epp_api.v1alpha2.inferenceobjective_types import InferenceObjective
from epp_api.v1alpha2.shared_types import API_VERSION, LEGACY_API_VERSION

Edited = Callable[..., dict[str, Any]]
Edits = Mapping[str, Any]

GROUPS = pytest.mark.parametrize(
    "api_version",
    [pytest.param(API_VERSION, id="llm-d"), pytest.param(LEGACY_API_VERSION, id="legacy")],
)
GROUP = r"must match ^$|^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
KIND = "must match ^[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?$"
RULE, TARGET, MATCH = "spec.rules.0", "spec.rules.0.targets.0", "spec.rules.0.matches.0"


def problems_of(outcome: Manifest | list[ManifestProblem]) -> list[tuple[str, str]]:
    assert isinstance(outcome, list)
    return [(problem.field, problem.message) for problem in outcome]


def row(kind: str, edits: Edits, field: str, message: str, *, id: str) -> Any:  # noqa: A002
    return pytest.param(kind, edits, field, message, id=f"{kind}-{id}")


OBJECT = "must be of type object"
REFUSED = [
    row("objective", {"spec.poolRef": ...}, "spec.poolRef", "is required", id="no-pool"),
    row("objective", {"spec.poolRef.name": ...}, "spec.poolRef.name", "is required", id="no-name"),
    row(
        "objective",
        {"spec.poolRef.name": ""},
        "spec.poolRef.name",
        "must have at least 1 characters",
        id="empty-pool",
    ),
    row(
        "objective",
        {"spec.poolRef.name": "a" * 254},
        "spec.poolRef.name",
        "must have at most 253 characters",
        id="pool-254",
    ),
    row("objective", {"spec.poolRef.group": "A.b"}, "spec.poolRef.group", GROUP, id="pool-group"),
    row("objective", {"spec.poolRef.kind": "1"}, "spec.poolRef.kind", KIND, id="pool-kind"),
    row(
        "objective",
        {"spec.priority": "high"},
        "spec.priority",
        "must be of type integer",
        id="priority-a-word",
    ),
    row(
        "objective",
        {"spec.priority": 1.5},
        "spec.priority",
        "must be of type integer",
        id="priority-fraction",
    ),
    row(
        "objective",
        {"spec.prio": 1},
        "spec.prio",
        "unknown field, did you mean priority?",
        id="slip",
    ),
    row("rewrite", {"spec.poolRef": ...}, "spec.poolRef", "is required", id="no-pool"),
    row("rewrite", {"spec.rules": ...}, "spec.rules", "is required", id="no-rules"),
    row("rewrite", {"spec.rules": {}}, "spec.rules", "must be of type array", id="rules-no-list"),
    row("rewrite", {"spec.rules.1": 3}, "spec.rules[1]", OBJECT, id="rule-a-number"),
    row(
        "rewrite",
        {f"{RULE}.targets": []},
        "spec.rules[0].targets",
        "must have at least 1 items",
        id="empty-targets",
    ),
    row(
        "rewrite",
        {f"{RULE}.split": []},
        "spec.rules[0].split",
        "must have at least 1 items",
        id="empty-split",
    ),
    row(
        "rewrite",
        {f"{TARGET}.modelRewrite": ...},
        "spec.rules[0].targets[0].modelRewrite",
        "is required",
        id="target-without-name",
    ),
    row(
        "rewrite",
        {f"{TARGET}.name": "r7"},
        "spec.rules[0].targets[0].name",
        "unknown field",
        id="target-named-as-a-models",
    ),
    row(
        "rewrite",
        {f"{TARGET}.weight": 0},
        "spec.rules[0].targets[0].weight",
        "must be at least 1",
        id="weight-0",
    ),
    row(
        "rewrite",
        {f"{TARGET}.weight": 1_000_001},
        "spec.rules[0].targets[0].weight",
        "must be at most 1000000",
        id="weight-1000001",
    ),
    row(
        "rewrite",
        {f"{MATCH}.model.type": "Prefix"},
        "spec.rules[0].matches[0].model.type",
        "must be one of Exact",
        id="match-type",
    ),
    row(
        "rewrite",
        {f"{MATCH}.model.value": ...},
        "spec.rules[0].matches[0].model.value",
        "is required",
        id="match-without-value",
    ),
    row(
        "rewrite",
        {f"{MATCH}.model.value": ""},
        "spec.rules[0].matches[0].model.value",
        "must have at least 1 characters",
        id="match-empty",
    ),
]


@GROUPS
@pytest.mark.parametrize(("kind", "edits", "field", "message"), REFUSED)
def test_a_manifest_is_refused_at_the_field(
    checker: ManifestValidator,
    edited: Edited,
    api_version: str,
    kind: str,
    edits: Edits,
    field: str,
    message: str,
) -> None:
    outcome = checker.validate(edited(kind, {"apiVersion": api_version, **edits}))

    assert problems_of(outcome) == [(field, message)]


@GROUPS
@pytest.mark.parametrize(
    ("kind", "edits"),
    [
        pytest.param("objective", {}, id="objective"),
        pytest.param("objective", {"spec": ...}, id="objective-without-spec"),
        pytest.param("objective", {"spec.priority": ...}, id="no-priority"),
        pytest.param("objective", {"spec.priority": 0}, id="priority-0"),
        pytest.param("objective", {"spec.priority": -(2**31)}, id="lowest-priority"),
        pytest.param("objective", {"spec.poolRef.group": ""}, id="core-group"),
        pytest.param("objective", {"status": {"nonsense": 1}}, id="status-is-dropped"),
        pytest.param("rewrite", {}, id="rewrite"),
        pytest.param("rewrite", {"spec": ...}, id="rewrite-without-spec"),
        pytest.param("rewrite", {"spec.rules": []}, id="no-rule"),
        pytest.param("rewrite", {"spec.rules.1": {}}, id="empty-rule"),
        pytest.param("rewrite", {f"{RULE}.matches": []}, id="no-matches"),
        pytest.param("rewrite", {MATCH: {}}, id="match-without-model"),
        pytest.param("rewrite", {f"{MATCH}.model.type": "Exact"}, id="match-type"),
        pytest.param("rewrite", {f"{TARGET}.weight": ...}, id="one-weight-missing"),
        pytest.param("rewrite", {f"{TARGET}.weight": 1_000_000}, id="highest-weight"),
        pytest.param("rewrite", {f"{TARGET}.modelRewrite": ""}, id="empty-target"),
    ],
)
def test_a_manifest_is_accepted(
    checker: ManifestValidator, edited: Edited, api_version: str, kind: str, edits: Edits
) -> None:
    outcome = checker.validate(edited(kind, {"apiVersion": api_version, **edits}))

    assert isinstance(outcome, Manifest)


@pytest.mark.parametrize(
    ("api_version", "priority", "accepted"),
    [
        pytest.param(API_VERSION, 2**31 - 1, True, id="int32"),
        pytest.param(API_VERSION, 2**31, False, id="beyond-int32"),
        pytest.param(LEGACY_API_VERSION, 2**63 - 1, True, id="legacy-int64"),
        pytest.param(LEGACY_API_VERSION, 2**63, False, id="legacy-beyond-int64"),
    ],
)
def test_priorities_have_the_range_of_their_api_group(
    checker: ManifestValidator, edited: Edited, api_version: str, priority: int, accepted: bool
) -> None:
    document = edited("objective", {"apiVersion": api_version, "spec.priority": priority})

    assert isinstance(checker.validate(document), Manifest) is accepted


@GROUPS
@pytest.mark.parametrize("kind", ["objective", "rewrite"])
def test_a11_the_pool_reference_gets_the_defaults_of_the_crd(
    checker: ManifestValidator, edited: Edited, api_version: str, kind: str
) -> None:
    outcome = checker.validate(edited(kind, {"apiVersion": api_version}))

    assert isinstance(outcome, Manifest)
    assert outcome.document["spec"]["poolRef"] == {
        "name": "chat-pool",
        "group": "inference.networking.k8s.io",
        "kind": "InferencePool",
    }


@GROUPS
def test_a11_an_objective_without_priority_has_priority_0(
    checker: ManifestValidator, edited: Edited, api_version: str
) -> None:
    outcome = checker.validate(
        edited("objective", {"apiVersion": api_version, "spec.priority": ...})
    )

    assert isinstance(outcome, Manifest)
    assert isinstance(outcome.obj, InferenceObjective)
    assert outcome.obj.api_version == api_version
    assert outcome.obj.spec.priority is None
    assert outcome.obj.priority == 0


@GROUPS
def test_a11_a_match_is_exact_by_default(
    checker: ManifestValidator, edited: Edited, api_version: str
) -> None:
    outcome = checker.validate(edited("rewrite", {"apiVersion": api_version}))

    assert isinstance(outcome, Manifest)
    [first, _] = outcome.document["spec"]["rules"][0]["matches"]
    assert first == {"model": {"value": "bot", "type": "Exact"}}


@GROUPS
@pytest.mark.parametrize(
    ("edits", "want"),
    [
        pytest.param({f"{RULE}.targets": ...}, ["old"], id="A10-split-alone"),
        pytest.param({}, ["r7", "r8"], id="targets-win"),
    ],
)
def test_split_is_the_older_name_of_targets(
    checker: ManifestValidator, edited: Edited, api_version: str, edits: Edits, want: list[str]
) -> None:
    split = [{"modelRewrite": "old", "weight": 3}]

    outcome = checker.validate(
        edited("rewrite", {"apiVersion": api_version, f"{RULE}.split": split, **edits})
    )

    assert isinstance(outcome, Manifest)
    assert isinstance(outcome.obj, InferenceModelRewrite)
    rule = outcome.obj.spec.rules[0]
    assert [target.model_rewrite for target in rule.targets] == want
    assert rule.split == []


@pytest.mark.parametrize("kind", ["objective", "rewrite"])
def test_no_field_is_immutable(checker: ManifestValidator, edited: Edited, kind: str) -> None:
    old = checker.validate(edited(kind))
    new = checker.validate(edited(kind, {"spec.poolRef.name": "other"}))

    assert isinstance(old, Manifest)
    assert isinstance(new, Manifest)
    assert checker.refused_changes(new, old) == []


def test_another_version_is_named_with_both_groups(
    checker: ManifestValidator, edited: Edited
) -> None:
    outcome = checker.validate(edited("objective", {"apiVersion": "llm-d.ai/v1"}))

    known = f"{LEGACY_API_VERSION}, {API_VERSION}"
    message = f"unknown version of InferenceObjective, known: {known}"
    assert problems_of(outcome) == [("apiVersion", message)]
