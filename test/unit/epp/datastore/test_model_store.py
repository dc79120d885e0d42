import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.datastore.age import age_key
from epp.datastore.model_store import ModelStore, oldest
from epp.testing.builders import make_model
from epp_api.meta import Condition, NamespacedName
from epp_api.v1alpha2.inferencemodel_types import InferenceModel, InferenceModelStatus


@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param("2025-03-01T10:00:00Z", "2025-03-01T10:00:01Z", id="one-second"),
        pytest.param("2025-03-01T10:00:00.1Z", "2025-03-01T10:00:00.20Z", id="fractions"),
        pytest.param("2025-03-01T10:00:00Z", "2025-03-01T10:00:00.000001Z", id="no-fraction-first"),
        pytest.param("2025-03-01T12:00:00+02:00", "2025-03-01T10:00:01Z", id="offset-east"),
        pytest.param("2025-03-01T10:00:00Z", "2025-03-01T06:00:01-04:00", id="offset-west"),
        pytest.param("2025-03-01t10:00:00z", "2025-03-01T10:00:01Z", id="lower-case"),
        pytest.param("2025-03-01T10:00:00", "2025-03-01T10:00:01Z", id="no-offset-is-utc"),
        pytest.param("2025-03-01T10:00:00Z", None, id="absent-is-youngest"),
        pytest.param("2025-03-01T10:00:00Z", "yesterday", id="unreadable-is-youngest"),
    ],
)
def test_creation_is_compared_as_an_instant(first: str, second: str | None) -> None:
    older = make_model("z", created=first)
    younger = make_model("a", created=second)

    assert oldest([older, younger]) is older
    assert oldest([younger, older]) is older


@pytest.mark.parametrize(
    "created",
    [
        pytest.param(("2025-03-01T10:00:00Z", "2025-03-01T12:00:00+02:00"), id="equal-instants"),
        pytest.param((None, None), id="both-absent"),
        pytest.param((None, "yesterday"), id="absent-and-unreadable"),
    ],
)
def test_namespace_and_name_break_a_tie(created: tuple[str | None, str | None]) -> None:
    low = make_model("a", created=created[0])
    high = make_model("b", created=created[1])

    assert oldest([high, low]) is low
    assert age_key(low.metadata) < age_key(high.metadata)


def test_nobody_is_the_oldest_of_none() -> None:
    assert oldest([]) is None


@given(
    st.permutations([make_model(n, created=c) for n, c in zip("abcd", (5, 3, 3, 9), strict=True)])
)
def test_the_oldest_does_not_depend_on_order(models: list[InferenceModel]) -> None:
    owner = oldest(models)

    assert owner is not None
    assert owner.metadata.name == "b"


def test_an_owner_is_replaced_and_removed() -> None:
    store = ModelStore()
    first, second = make_model("a"), make_model("b")

    changes = [store.assign("food", owner) for owner in (first, first, second, None, None)]

    assert changes == [True, False, True, True, False]
    assert len(store) == 0
    assert store.names_owned_by(first.metadata.key) == frozenset()
    assert store.names_owned_by(second.metadata.key) == frozenset()


def test_a_status_is_kept_and_is_no_change_of_the_model() -> None:
    store = ModelStore()
    model = make_model("first", model_name="food")
    condition = Condition(type="Accepted", status="True")
    accepted = msgspec.structs.replace(model, status=InferenceModelStatus(conditions=[condition]))

    changes = [store.assign("food", owner) for owner in (model, accepted)]

    assert changes == [True, False]
    assert store.get("food") is accepted
    assert store.names_owned_by(model.metadata.key) == {"food"}


def test_an_object_owns_its_old_name_until_it_is_given_away() -> None:
    store = ModelStore()
    key = NamespacedName("default", "a")

    store.assign("old", make_model("a", model_name="old"))
    store.assign("new", make_model("a", model_name="new"))
    both = store.names_owned_by(key)
    store.assign("old", None)

    assert both == {"old", "new"}
    assert store.names_owned_by(key) == {"new"}


def test_lookup_is_exact() -> None:
    store = ModelStore()
    model = make_model(model_name="Food")

    store.assign("Food", model)

    assert store.get("Food") is model
    assert store.get("food") is None
    assert store.get("Food ") is None


def test_list_is_sorted_by_model_name_and_clear_forgets_all() -> None:
    store = ModelStore()
    for name in ("b", "a"):
        store.assign(name, make_model(name, model_name=name))

    listed = [model.spec.model_name for model in store.list()]
    store.clear()

    assert listed == ["a", "b"]
    assert store.list() == []
    assert store.names_owned_by(NamespacedName("default", "a")) == frozenset()


NAMES = st.sampled_from(["food", "chat"])
OBJECTS = st.sampled_from("abc")


@given(st.lists(st.tuples(NAMES, st.none() | OBJECTS), max_size=20))
def test_the_two_directions_always_agree(steps: list[tuple[str, str | None]]) -> None:
    store = ModelStore()

    for model_name, owner in steps:
        store.assign(model_name, None if owner is None else make_model(owner, model_name="any"))

    owners = {name: store.get(name) for name in ("food", "chat")}
    for obj in "abc":
        key = NamespacedName("default", obj)
        want = {name for name, m in owners.items() if m is not None and m.metadata.key == key}
        assert store.names_owned_by(key) == want
    assert len(store) == len(store.list())
