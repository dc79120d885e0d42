"""Corners where a schema alone would say something else than the API server does."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from epp.sources.manifest_set import ManifestSet
from epp.sources.problems import ManifestProblem
from epp.sources.validation import Manifest, ManifestValidator

Edited = Callable[..., dict[str, Any]]
Edits = Mapping[str, Any]


def problems_of(outcome: Manifest | list[ManifestProblem]) -> list[tuple[str, str]]:
    assert isinstance(outcome, list)
    return [(problem.field, problem.message) for problem in outcome]


def ports(*numbers: int) -> list[dict[str, int]]:
    return [{"number": number} for number in numbers]


def test_positions_are_in_the_order_of_numbers(checker: ManifestValidator, edited: Edited) -> None:
    outcome = checker.validate(edited("pool", {"spec.targetPorts": ports(*[0] * 11)}))

    fields = [field for field, _ in problems_of(outcome)]
    assert fields == ["spec.targetPorts", *(f"spec.targetPorts[{n}].number" for n in range(11))]


def test_an_integral_float_is_an_integer_as_for_the_api_server(
    checker: ManifestValidator, edited: Edited
) -> None:
    assert isinstance(
        checker.validate(edited("pool", {"spec.targetPorts.0.number": 80.0})), Manifest
    )


def test_a_model_without_spec_is_refused_at_the_field(
    checker: ManifestValidator, edited: Edited
) -> None:
    assert problems_of(checker.validate(edited("model", {"spec": ...}))) == [
        ("spec", "is required")
    ]


def test_a_slip_in_metadata_is_refused(checker: ManifestValidator, edited: Edited) -> None:
    outcome = checker.validate(edited("pod", {"metadata.lables": {"app": "x"}}))

    assert problems_of(outcome) == [("metadata.lables", "unknown field, did you mean labels?")]


def test_a_label_value_is_checked(checker: ManifestValidator, edited: Edited) -> None:
    assert isinstance(checker.validate(edited("pod", {"metadata.labels.app": "-x"})), list)


def test_a_namespace_of_another_type_is_refused(checker: ManifestValidator, edited: Edited) -> None:
    assert problems_of(checker.validate(edited("pod", {"metadata.namespace": ["a"]}))) == [
        ("metadata.namespace", "must be of type string")
    ]


def test_an_empty_namespace_is_no_namespace(checker: ManifestValidator, edited: Edited) -> None:
    assert isinstance(checker.validate(edited("pod", {"metadata.namespace": ""})), Manifest)


@pytest.mark.parametrize(
    "text", ["20260101T000000Z", "2026-01-01T00:00Z", "2026-W01-1T00:00:00Z", "2026-01-01T00+00"]
)
def test_a_timestamp_is_rfc_3339(checker: ManifestValidator, edited: Edited, text: str) -> None:
    assert isinstance(checker.validate(edited("pod", {"metadata.creationTimestamp": text})), list)


@pytest.mark.parametrize(
    "edits",
    [
        pytest.param({"metadata.name": "a\nb"}, id="newline-in-a-name"),
        pytest.param({"metadata.name": "\ud800"}, id="surrogate-in-a-name"),
        pytest.param({"metadata.labels": {"a\nb": 1}}, id="newline-in-a-key"),
    ],
)
def test_a_problem_is_one_line_of_utf_8(
    checker: ManifestValidator, edited: Edited, edits: Edits
) -> None:
    outcome = checker.validate(edited("pod", edits))

    assert isinstance(outcome, list)
    assert "\n" not in str(outcome[0])
    assert str(outcome[0]).encode()


def test_an_integer_too_long_to_print_is_refused(checker: ManifestValidator) -> None:
    manifests = ManifestSet(checker)
    text = "apiVersion: v1\nkind: Pod\nmetadata: {name: a, generation: !!int 0x%s}\n" % ("f" * 5000)

    manifests.put_file("a.yaml", text.encode())

    assert len(manifests.resolve("2026-01-01T00:00:00Z").problems) == 1
