from collections.abc import Callable, Mapping
from typing import Any

import pytest

from epp.sources.problems import ManifestProblem
from epp.sources.validation import Manifest, ManifestValidator
from epp_api.meta import NamespacedName
from epp_api.v1 import inferencepool_types as pool_v1
from epp_api.v1alpha2 import inferencemodel_types as model_v1alpha2
from epp_api.v1alpha2 import inferencepool_types as pool_v1alpha2

Edited = Callable[..., dict[str, Any]]
Edits = Mapping[str, Any]

LABEL = "must match ^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$"
KIND = "must match ^[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?$"
NAME = r"must match ^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
NAMESPACE = "must match ^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
PORT_REQUIRED = "port is required when the endpoint picker is a Service"
WEIGHTS = "give a weight to every target or to none"


def problems_of(outcome: Manifest | list[ManifestProblem]) -> list[tuple[str, str]]:
    assert isinstance(outcome, list)
    return [(problem.field, problem.message) for problem in outcome]


def ports(*numbers: int) -> list[dict[str, int]]:
    return [{"number": number} for number in numbers]


def row(kind: str, edits: Edits, field: str, message: str, *, id: str) -> Any:  # noqa: A002
    return pytest.param(kind, edits, field, message, id=f"{kind.replace(' ', '-')}-{id}")


POOL = "spec.selector.matchLabels"
REF = "spec.endpointPickerRef"
TARGET = "spec.targetModels"
REFUSED = [
    row("model", {"spec.modelName": ...}, "spec.modelName", "is required", id="no-name"),
    row(
        "model",
        {"spec.modelName": "a" * 257},
        "spec.modelName",
        "must have at most 256 characters",
        id="name-257",
    ),
    row("model", {"spec.modelName": 1}, "spec.modelName", "must be of type string", id="name-1"),
    row(
        "model",
        {"spec.criticality": "critical"},
        "spec.criticality",
        "must be one of Critical, Standard, Sheddable",
        id="criticality",
    ),
    row("model", {f"{TARGET}.0.weight": ...}, TARGET, WEIGHTS, id="A1-one-target-unweighted"),
    row("model", {f"{TARGET}.0.weight": None}, TARGET, WEIGHTS, id="A1-null-weight"),
    row(
        "model",
        {f"{TARGET}.0.weight": 0},
        f"{TARGET}[0].weight",
        "must be at least 1",
        id="weight-0",
    ),
    row(
        "model",
        {f"{TARGET}.1.weight": 1_000_001},
        f"{TARGET}[1].weight",
        "must be at most 1000000",
        id="weight-1000001",
    ),
    row(
        "model",
        {f"{TARGET}.0.weight": 1.5},
        f"{TARGET}[0].weight",
        "must be of type integer",
        id="weight-fraction",
    ),
    row("model", {f"{TARGET}.0.name": ...}, f"{TARGET}[0].name", "is required", id="no-target"),
    row(
        "model",
        {f"{TARGET}.0.name": "a" * 254},
        f"{TARGET}[0].name",
        "must have at most 253 characters",
        id="target-254",
    ),
    row(
        "model",
        {TARGET: [{"name": str(n)} for n in range(11)]},
        TARGET,
        "must have at most 10 items",
        id="11-targets",
    ),
    row("model", {f"{TARGET}.0": None}, f"{TARGET}[0]", "must be of type object", id="null-target"),
    row("model", {"spec.poolRef": ...}, "spec.poolRef", "is required", id="no-pool"),
    row(
        "model",
        {"spec.poolRef.name": ""},
        "spec.poolRef.name",
        "must have at least 1 characters",
        id="empty-pool",
    ),
    row(
        "model",
        {"spec.poolRef.kind": "A\n"},
        "spec.poolRef.kind",
        KIND,
        id="pool-kind-ends-with-a-newline",
    ),
    row(
        "model",
        {"spec.poolref": {}},
        "spec.poolref",
        "unknown field, did you mean poolRef?",
        id="case-of-a-field",
    ),
    row("pod", {"status.podIP": "x"}, "status.podIP", "is no valid ip", id="address"),
    row("pod", {"status.podIP": "10.0.0.1\n"}, "status.podIP", "is no valid ip", id="newline"),
    row(
        "pod", {"status.podIP": 3}, "status.podIP", "must be of type string", id="address-a-number"
    ),
    row(
        "pod",
        {"status.conditions.0.status": True},
        "status.conditions[0].status",
        "must be one of True, False, Unknown",
        id="condition-status-unquoted",
    ),
    row(
        "pod",
        {"status.conditions.0.type": ...},
        "status.conditions[0].type",
        "is required",
        id="condition-without-type",
    ),
    row("pod", {"metadata": ...}, "metadata", "is required", id="no-metadata"),
    row("pod", {"metadata": None}, "metadata", "is required", id="null-metadata"),
    row("pod", {"metadata": 3}, "metadata", "must be of type object", id="metadata-a-number"),
    row("pod", {"metadata.name": ...}, "metadata.name", "is required", id="no-name"),
    row("pod", {"metadata.name": "A"}, "metadata.name", NAME, id="name-upper-case"),
    row("pod", {"metadata.name": "a\n"}, "metadata.name", NAME, id="name-ends-with-a-newline"),
    row(
        "pod",
        {"metadata.name": "a" * 254},
        "metadata.name",
        "must have at most 253 characters",
        id="name-254",
    ),
    row(
        "pod", {"metadata.namespace": "a.b"}, "metadata.namespace", NAMESPACE, id="namespace-dotted"
    ),
    row(
        "pod",
        {"metadata.namespace": "a\n"},
        "metadata.namespace",
        NAMESPACE,
        id="namespace-ends-with-a-newline",
    ),
    row(
        "pod",
        {"metadata.namespace": "a" * 64},
        "metadata.namespace",
        "must have at most 63 characters",
        id="namespace-64",
    ),
    row(
        "pod",
        {"metadata.labels.app": 1},
        "metadata.labels.app",
        "must be of type string",
        id="label-a-number",
    ),
    row(
        "pod",
        {"metadata.labels": {"a.b/c": 1}},
        "metadata.labels[a.b/c]",
        "must be of type string",
        id="label-with-a-prefix",
    ),
    row(
        "pod",
        {"metadata.creationTimestamp": "2026-01-01"},
        "metadata.creationTimestamp",
        "is no valid date-time",
        id="created-on-a-date",
    ),
    row(
        "pod",
        {"metadata.creationTimestamp": "2026-01-01T00:00:00"},
        "metadata.creationTimestamp",
        "is no valid date-time",
        id="created-without-zone",
    ),
    row(
        "pod",
        {"metadata.deletionTimestamp": 5},
        "metadata.deletionTimestamp",
        "must be of type string",
        id="deleted-at-a-number",
    ),
    row(
        "pod",
        {"metadata.generation": 2**63},
        "metadata.generation",
        "is no valid int64",
        id="generation-too-big",
    ),
    row(
        "pod",
        {"apiVersion": "v2"},
        "apiVersion",
        "unknown version of Pod, known: v1",
        id="other-version",
    ),
    row("pod", {"apiVersion": ...}, "apiVersion", "must be a string", id="no-api-version"),
    row("pod", {"kind": 3}, "kind", "must be a string", id="kind-a-number"),
    row(
        "pod",
        {"kind": "pod"},
        "kind",
        "unknown kind, known: InferenceModel, InferenceModelRewrite, InferenceObjective, "
        "InferencePool, Pod",
        id="kind-lower-case",
    ),
]


@pytest.mark.parametrize(("kind", "edits", "field", "message"), REFUSED)
def test_a_manifest_is_refused_at_the_field(
    checker: ManifestValidator, edited: Edited, kind: str, edits: Edits, field: str, message: str
) -> None:
    outcome = checker.validate(edited(kind, edits))

    assert problems_of(outcome) == [(field, message)]


@pytest.mark.parametrize(
    ("kind", "edits"),
    [
        pytest.param("pool", {REF: ...}, id="A12-pool-without-picker"),
        pytest.param("pool", {f"{REF}.port": ..., f"{REF}.kind": "Other"}, id="other-kind-no-port"),
        pytest.param("pool", {f"{REF}.group": ""}, id="core-group"),
        pytest.param("pool", {"spec.targetPorts": ports(*range(1, 9))}, id="8-ports"),
        pytest.param("pool", {"spec.targetPorts.0.number": 65535}, id="highest-port"),
        pytest.param("pool", {f"{POOL}.app": ""}, id="empty-label"),
        pytest.param("pool", {f"{POOL}.app": "a" * 63}, id="label-63"),
        pytest.param("pool", {POOL: {"not a key!": "v"}}, id="label-keys-are-never-checked"),
        pytest.param("pool", {"spec.appProtocol": "kubernetes.io/h2c"}, id="h2c"),
        pytest.param("pool", {"status": {"nonsense": 1}}, id="status-is-dropped"),
        pytest.param("old pool", {"spec": ...}, id="old-pool-without-spec"),
        pytest.param("old pool", {"spec.selector": {}}, id="old-pool-empty-selector"),
        pytest.param("model", {"spec.modelName": ""}, id="empty-model-name"),
        pytest.param("model", {"spec.modelName": "a" * 256}, id="model-name-256"),
        pytest.param("model", {TARGET: []}, id="no-targets"),
        pytest.param("model", {TARGET: [{"name": "a"}, {"name": "b"}]}, id="no-weights"),
        pytest.param("model", {f"{TARGET}.0.weight": 1_000_000}, id="highest-weight"),
        pytest.param("model", {"spec.poolRef.group": ""}, id="pool-of-the-core-group"),
        pytest.param("pod", {"status": ...}, id="pod-without-status"),
        pytest.param("pod", {"status.podIP": "fd00::1"}, id="ipv6"),
        pytest.param("pod", {"status.hostIP": "any", "spec": {"a": 1}}, id="other-pod-fields"),
        pytest.param("pod", {"metadata.name": "a" * 253}, id="name-253"),
        pytest.param("pod", {"metadata.finalizers": ["x"]}, id="other-metadata"),
        pytest.param(
            "pod", {"metadata.creationTimestamp": "2026-01-01T00:00:00.5+02:00"}, id="timestamp"
        ),
    ],
)
def test_a_manifest_is_accepted(
    checker: ManifestValidator, edited: Edited, kind: str, edits: Edits
) -> None:
    assert isinstance(checker.validate(edited(kind, edits)), Manifest)


def test_every_error_is_told_in_path_order(checker: ManifestValidator, edited: Edited) -> None:
    edits = {
        "spec.targetPorts.0.number": 0,
        f"{POOL}.app": "-",
        "spec.appProtocol": "q",
        f"{REF}.kind": "",
    }

    outcome = checker.validate(edited("pool", edits))

    assert problems_of(outcome) == [
        ("spec.appProtocol", "must be one of http, kubernetes.io/h2c"),
        (f"{REF}.kind", "must have at least 1 characters"),
        (f"{REF}.kind", KIND),
        (f"{POOL}.app", LABEL),
        ("spec.targetPorts[0].number", "must be at least 1"),
    ]


def test_rules_are_not_evaluated_on_what_the_schema_refuses(
    checker: ManifestValidator, edited: Edited
) -> None:
    outcome = checker.validate(edited("pool", {"spec.targetPorts": ports(0, 0)}))

    assert [message for _, message in problems_of(outcome)] == ["must be at least 1"] * 2


def test_a_problem_names_object_field_message_and_value(
    checker: ManifestValidator, edited: Edited
) -> None:
    outcome = checker.validate(
        edited("model", {"spec.criticality": "x", "metadata.namespace": "n"})
    )

    assert isinstance(outcome, list)
    assert len(outcome) == 1
    assert str(outcome[0]) == (
        "InferenceModel n/bot: spec.criticality: must be one of Critical, Standard, Sheddable "
        "(got 'x')"
    )


def test_a_long_value_is_shortened(checker: ManifestValidator, edited: Edited) -> None:
    outcome = checker.validate(edited("model", {"spec.modelName": "a" * 5000}))

    assert isinstance(outcome, list)
    assert len(str(outcome[0])) < 250


@pytest.mark.parametrize("document", [None, 3, "x", [], True])
def test_a_document_that_is_no_object_is_refused(checker: ManifestValidator, document: Any) -> None:
    assert problems_of(checker.validate(document)) == [("", "must be an object")]
    assert checker.identity(document) is None
    assert checker.is_ours(document)


def test_a_document_beyond_the_bounds_is_refused(
    checker: ManifestValidator, edited: Edited
) -> None:
    deep: Any = 1
    for _ in range(50_000):
        deep = [deep]

    outcome = checker.validate(edited("pod", {"spec": deep}))

    assert problems_of(outcome) == [("", "nested too deeply or too large")]
    while isinstance(deep, list):  # taken apart by hand: freeing it whole would recurse
        deep = deep.pop()


def test_a_pool_gets_the_defaults_of_its_crd(checker: ManifestValidator, edited: Edited) -> None:
    outcome = checker.validate(edited("pool"))

    assert isinstance(outcome, Manifest)
    assert outcome.key == NamespacedName("default", "chat-pool")
    assert outcome.document["spec"]["appProtocol"] == "http"
    assert isinstance(outcome.obj, pool_v1.InferencePool)
    reference = outcome.document["spec"]["endpointPickerRef"]
    assert (reference["group"], reference["kind"], reference["failureMode"]) == (
        "",
        "Service",
        "FailClose",
    )


def test_an_old_pool_gets_the_defaults_of_its_crd(
    checker: ManifestValidator, edited: Edited
) -> None:
    outcome = checker.validate(edited("old pool"))

    assert isinstance(outcome, Manifest)
    assert isinstance(outcome.obj, pool_v1alpha2.InferencePool)
    assert outcome.document["spec"]["extensionRef"] == {
        "name": "epp",
        "group": "",
        "kind": "Service",
        "failureMode": "FailClose",
    }


def test_a_model_gets_the_defaults_of_its_crd_and_no_criticality(
    checker: ManifestValidator, edited: Edited
) -> None:
    outcome = checker.validate(edited("model"))

    assert isinstance(outcome, Manifest)
    assert isinstance(outcome.obj, model_v1alpha2.InferenceModel)
    assert outcome.obj.spec.criticality is None
    assert outcome.document["spec"]["poolRef"] == {
        "name": "chat-pool",
        "group": "inference.networking.x-k8s.io",
        "kind": "InferencePool",
    }


def test_nulls_are_pruned_before_defaults(checker: ManifestValidator, edited: Edited) -> None:
    outcome = checker.validate(edited("pool", {"spec.appProtocol": None, f"{REF}.group": None}))

    assert isinstance(outcome, Manifest)
    assert outcome.document["spec"]["appProtocol"] == "http"
    assert outcome.document["spec"]["endpointPickerRef"]["group"] == ""


def test_status_is_dropped_but_not_that_of_a_pod(
    checker: ManifestValidator, edited: Edited
) -> None:
    pool = checker.validate(edited("pool", {"status": {"parents": []}}))
    pod = checker.validate(edited("pod"))

    assert isinstance(pool, Manifest)
    assert isinstance(pod, Manifest)
    assert "status" not in pool.document
    assert pod.document["status"]["podIP"] == "10.0.0.1"


def test_the_document_given_is_not_changed(checker: ManifestValidator, edited: Edited) -> None:
    document = edited("pool", {"spec.appProtocol": None, "status": {}})
    before = edited("pool", {"spec.appProtocol": None, "status": {}})

    checker.validate(document)

    assert document == before


def test_a_namespace_comes_from_the_manifest_or_the_default(edited: Edited) -> None:
    checker = ManifestValidator("prod")

    implied = checker.validate(edited("pod"))
    named = checker.validate(edited("pod", {"metadata.namespace": "dev"}))

    assert isinstance(implied, Manifest)
    assert isinstance(named, Manifest)
    assert (implied.key.namespace, named.key.namespace) == ("prod", "dev")


@pytest.mark.parametrize(
    ("edits", "want"),
    [
        pytest.param({"spec.modelName": "other"}, ["spec.modelName"], id="A2-model-name"),
        pytest.param({"spec.criticality": "Critical"}, [], id="criticality"),
        pytest.param({"spec.poolRef.name": "other"}, [], id="pool-reference"),
        pytest.param({TARGET: ...}, [], id="targets"),
    ],
)
def test_only_an_immutable_field_refuses_a_change(
    checker: ManifestValidator, edited: Edited, edits: Edits, want: list[str]
) -> None:
    old, new = checker.validate(edited("model")), checker.validate(edited("model", edits))

    assert isinstance(old, Manifest)
    assert isinstance(new, Manifest)
    assert checker.refused_changes(new, old) == want


@pytest.mark.parametrize(
    ("api_version", "kind", "want"),
    [
        pytest.param("v1", "Pod", True, id="pod"),
        pytest.param("v1", "Secret", False, id="core-kind"),
        pytest.param("apps/v1", "Deployment", False, id="workload"),
        pytest.param("inference.networking.k8s.io/v1", "InferencePol", True, id="slip"),
        pytest.param("inference.networking.k8s.io/v9", "InferencePool", True, id="version"),
        pytest.param("inference.networking.x-k8s.io/v1alpha2", "InferenceObjective", True, id="o"),
        pytest.param("llm-d.ai/v1alpha2", "InferenceModelRewrite", True, id="rewrite"),
        pytest.param("llm-d.ai/v9", "InferenceModelRewrite", True, id="rewrite-version"),
        pytest.param("llm-d.ai/v1alpha2", "InferenceObjectiv", True, id="slip-in-a-shared-group"),
        pytest.param("llm-d.ai/v1alpha1", "EndpointPickerConfig", False, id="shared-group"),
        pytest.param(
            "inference.networking.x-k8s.io/v1alpha1", "InferencePoolImport", False, id="import"
        ),
        pytest.param(None, "Pod", True, id="nobody-knows"),
    ],
)
def test_which_documents_are_ours(
    checker: ManifestValidator, api_version: Any, kind: str, want: bool
) -> None:
    assert checker.is_ours({"apiVersion": api_version, "kind": kind}) is want
