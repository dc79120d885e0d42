from collections.abc import Mapping
from typing import Any

import pytest
from structlog.testing import capture_logs

from epp.sources.manifest_set import Change, ManifestSet
from epp.sources.validation import ManifestValidator
from epp_api.meta import NamespacedName

T1, T2, T3 = (f"2026-01-01T00:00:0{n}Z" for n in (1, 2, 3))


def pod(name: str, ip: str = "10.0.0.1", extra: str = "") -> str:
    return (
        f"apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}{extra}}}\nstatus: {{podIP: {ip}}}\n"
    )


def model(name: str, model_name: str, criticality: str = "Standard") -> str:
    return (
        "apiVersion: inference.networking.x-k8s.io/v1alpha2\nkind: InferenceModel\n"
        f"metadata: {{name: {name}}}\n"
        f"spec: {{modelName: {model_name}, criticality: {criticality}, poolRef: {{name: p}}}}\n"
    )


def put(manifests: ManifestSet, name: str, *documents: str) -> None:
    manifests.put_file(name, "---\n".join(documents).encode())


def addresses(change: Change) -> Mapping[str, str]:
    return {
        key.name: obj.status.pod_ip
        for ((_, kind), key), obj in change.objects.items()
        if kind == "Pod"
    }


def created(change: Change, name: str) -> str:
    [obj] = [obj for (_, key), obj in change.objects.items() if key.name == name]
    return str(obj.metadata.creation_timestamp)


def texts(change: Change) -> list[str]:
    return [str(problem) for problem in change.problems]


@pytest.fixture
def manifests(checker: ManifestValidator) -> ManifestSet:
    return ManifestSet(checker)


def test_a_broken_file_keeps_its_objects_until_it_is_whole_again(manifests: ManifestSet) -> None:
    put(manifests, "a.yaml", pod("a"), pod("b"))
    manifests.resolve(T1)

    put(manifests, "a.yaml", "a: [")
    broken = manifests.resolve(T2)
    put(manifests, "a.yaml", pod("a", "10.0.0.9"))
    whole = manifests.resolve(T3)

    assert addresses(broken) == {"a": "10.0.0.1", "b": "10.0.0.1"}
    assert len(broken.problems) == 1
    assert texts(broken)[0].startswith("a.yaml: line 2: ")
    assert addresses(whole) == {"a": "10.0.0.9"}
    assert whole.problems == ()


def test_a_file_that_cannot_be_read_keeps_its_objects(manifests: ManifestSet) -> None:
    put(manifests, "a.yaml", pod("a"))

    manifests.unreadable("a.yaml", "cannot be read: why")
    change = manifests.resolve(T1)

    assert addresses(change) == {"a": "10.0.0.1"}
    assert texts(change) == ["a.yaml: cannot be read: why"]


def test_a_file_that_never_was_readable_declares_nothing(manifests: ManifestSet) -> None:
    manifests.unreadable("a.yaml", "is no regular file")
    change = manifests.resolve(T1)

    assert change.objects == {}
    assert texts(change) == ["a.yaml: is no regular file"]


def test_an_invalid_document_keeps_the_last_good_version_and_lets_others_change(
    manifests: ManifestSet,
) -> None:
    put(manifests, "a.yaml", pod("a"), pod("b"))
    manifests.resolve(T1)

    put(manifests, "a.yaml", pod("a", "10.0.0.8"), pod("b", "nonsense"))
    change = manifests.resolve(T2)

    assert addresses(change) == {"a": "10.0.0.8", "b": "10.0.0.1"}
    assert texts(change) == [
        "a.yaml (document 2): Pod default/b: status.podIP: is no valid ip (got 'nonsense')"
    ]


def test_an_object_that_was_never_valid_is_not_there(manifests: ManifestSet) -> None:
    put(manifests, "a.yaml", pod("a", "nonsense"))

    assert manifests.resolve(T1).objects == {}


def test_a_last_good_version_does_not_come_from_another_file(manifests: ManifestSet) -> None:
    put(manifests, "a.yaml", pod("a"))
    manifests.resolve(T1)

    manifests.drop_file("a.yaml")
    put(manifests, "b.yaml", pod("a", "nonsense"))

    assert manifests.resolve(T2).objects == {}


def test_a_document_without_a_name_keeps_everything_the_file_declared(
    manifests: ManifestSet,
) -> None:
    put(manifests, "a.yaml", pod("a"), pod("b"))
    manifests.resolve(T1)

    put(manifests, "a.yaml", pod("b", "10.0.0.9"), "apiVersion: v1\nkind: Pod\n")
    change = manifests.resolve(T2)

    assert addresses(change) == {"a": "10.0.0.1", "b": "10.0.0.9"}


def test_a_deleted_document_and_a_deleted_file_delete(manifests: ManifestSet) -> None:
    put(manifests, "a.yaml", pod("a"), pod("b"))
    put(manifests, "c.yaml", pod("c"))
    manifests.resolve(T1)

    put(manifests, "a.yaml", pod("a"))
    manifests.drop_file("c.yaml")

    assert addresses(manifests.resolve(T2)) == {"a": "10.0.0.1"}


def test_dropping_an_unknown_file_is_nothing(manifests: ManifestSet) -> None:
    manifests.drop_file("never.yaml")

    assert manifests.resolve(T1).objects == {}


def test_of_two_files_the_first_by_path_wins_whatever_came_first(manifests: ManifestSet) -> None:
    put(manifests, "b.yaml", pod("a", "10.0.0.2"))
    put(manifests, "a.yaml", pod("a", "10.0.0.1"))
    both = manifests.resolve(T1)

    manifests.drop_file("a.yaml")
    one = manifests.resolve(T2)

    assert addresses(both) == {"a": "10.0.0.1"}
    assert texts(both) == ["b.yaml: Pod default/a: also declared in a.yaml, which counts"]
    assert addresses(one) == {"a": "10.0.0.2"}
    assert one.problems == ()


def test_of_two_documents_of_a_file_the_first_wins(manifests: ManifestSet) -> None:
    put(manifests, "a.yaml", pod("a", "10.0.0.1"), pod("a", "10.0.0.2"))
    change = manifests.resolve(T1)

    assert addresses(change) == {"a": "10.0.0.1"}
    assert texts(change) == [
        "a.yaml: Pod default/a: also declared earlier in this file, which counts"
    ]


def test_one_name_of_two_kinds_or_namespaces_is_two_objects(manifests: ManifestSet) -> None:
    put(manifests, "a.yaml", pod("a"), model("a", "m"), pod("a", extra=", namespace: other"))
    change = manifests.resolve(T1)

    assert len(change.objects) == 3
    assert change.problems == ()


def test_first_seen_stays_through_edits_and_a_move_between_files(manifests: ManifestSet) -> None:
    put(manifests, "a.yaml", pod("a"))
    first = manifests.resolve(T1)
    put(manifests, "a.yaml", pod("a", "10.0.0.2"))
    edit = manifests.resolve(T2)
    put(manifests, "b.yaml", pod("a", "10.0.0.2"))
    manifests.drop_file("a.yaml")
    moved = manifests.resolve(T3)

    assert [created(change, "a") for change in (first, edit, moved)] == [T1, T1, T1]
    assert moved.replaced == frozenset()


def test_an_object_deleted_and_added_again_is_new(manifests: ManifestSet) -> None:
    put(manifests, "a.yaml", pod("a"))
    manifests.resolve(T1)
    manifests.drop_file("a.yaml")
    manifests.resolve(T2)

    put(manifests, "a.yaml", pod("a"))

    assert created(manifests.resolve(T3), "a") == T3


def test_a_creation_timestamp_of_the_manifest_wins(manifests: ManifestSet) -> None:
    put(manifests, "a.yaml", pod("a", extra=", creationTimestamp: 2020-01-01T00:00:00Z"))

    assert created(manifests.resolve(T1), "a") == "2020-01-01T00:00:00Z"


def test_an_edit_of_an_immutable_field_is_a_replacement(manifests: ManifestSet) -> None:
    put(manifests, "a.yaml", model("a", "old"))
    manifests.resolve(T1)

    put(manifests, "a.yaml", model("a", "new"))
    with capture_logs() as logs:
        change = manifests.resolve(T2)

    model_id = (
        ("inference.networking.x-k8s.io/v1alpha2", "InferenceModel"),
        NamespacedName("default", "a"),
    )
    assert change.replaced == {model_id}
    assert created(change, "a") == T2
    assert [(entry["event"], entry["field"]) for entry in logs] == [
        ("immutable field changed, object replaced", "spec.modelName")
    ]


def test_an_edit_of_another_field_is_no_replacement(manifests: ManifestSet) -> None:
    put(manifests, "a.yaml", model("a", "m"))
    manifests.resolve(T1)

    put(manifests, "a.yaml", model("a", "m", "Critical"))
    change = manifests.resolve(T2)

    assert change.replaced == frozenset()
    assert created(change, "a") == T1


def test_a_replacement_is_told_once(manifests: ManifestSet) -> None:
    put(manifests, "a.yaml", model("a", "old"))
    manifests.resolve(T1)
    put(manifests, "a.yaml", model("a", "new"))
    manifests.resolve(T2)

    assert manifests.resolve(T3).replaced == frozenset()


def test_other_kinds_are_ignored_with_one_line(manifests: ManifestSet) -> None:
    other = "apiVersion: v1\nkind: Secret\n"

    with capture_logs() as logs:
        put(manifests, "a.yaml", other, pod("a"), other)
        put(manifests, "a.yaml", other, pod("a", "10.0.0.2"))
    change = manifests.resolve(T1)

    assert [(entry["file"], entry["kinds"]) for entry in logs] == [("a.yaml", ["Secret"])]
    assert addresses(change) == {"a": "10.0.0.2"}
    assert change.problems == ()


def test_a_json_file_is_read_as_json(manifests: ManifestSet) -> None:
    manifests.put_file("a.json", b'{"apiVersion": "v1", "kind": "Pod", "kind": "Pod"}')

    assert texts(manifests.resolve(T1)) == ["a.json: duplicate key 'kind'"]


def test_a_document_without_a_name_does_not_hold_back_later_documents(
    manifests: ManifestSet,
) -> None:
    put(manifests, "a.yaml", pod("a"), pod("b"))
    manifests.resolve(T1)

    put(manifests, "a.yaml", "apiVersion: v1\nkind: Pod\n", pod("b", "10.0.0.9"))
    change = manifests.resolve(T2)

    assert addresses(change)["b"] == "10.0.0.9"
    assert texts(change) == ["a.yaml: Pod: metadata: is required"]


def test_an_invalid_document_does_not_keep_an_object_of_another_kind(
    manifests: ManifestSet,
) -> None:
    put(manifests, "a.yaml", pod("a"), model("a", "m"))
    manifests.resolve(T1)

    put(manifests, "a.yaml", model("a", "1"))
    change = manifests.resolve(T2)

    assert [kind for ((_, kind), _), _ in change.objects.items()] == ["InferenceModel"]


def test_every_object_is_typed(manifests: ManifestSet, checker: ManifestValidator) -> None:
    put(manifests, "a.yaml", pod("a"), model("b", "m"))

    objects: Mapping[Any, Any] = manifests.resolve(T1).objects

    assert {type(obj).__name__ for obj in objects.values()} == {"Pod", "InferenceModel"}
