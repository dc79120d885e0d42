from epp.datastore.objective_store import ObjectiveStore
from epp.testing.builders import make_objective
from epp_api.meta import NamespacedName


def test_lookup_is_exact() -> None:
    store = ObjectiveStore()
    objective = make_objective("Batch")

    store.set(objective)

    assert store.get("Batch") is objective
    assert store.get("batch") is None
    assert store.get("") is None


def test_the_last_version_of_an_object_counts() -> None:
    store = ObjectiveStore()

    changes = [store.set(make_objective(priority=priority)) for priority in (1, 1, 2)]

    assert changes == [True, False, True]
    assert [objective.priority for objective in store.list()] == [2]


def test_only_the_object_itself_is_deleted() -> None:
    store = ObjectiveStore()
    store.set(make_objective("a"))

    deleted = [
        store.delete(NamespacedName(namespace, name))
        for namespace, name in (("default", "b"), ("other", "a"), ("default", "a"))
    ]

    assert deleted == [False, False, True]
    assert len(store) == 0


def test_list_is_sorted_by_name_and_clear_forgets_all() -> None:
    store = ObjectiveStore()
    for name in ("b", "a"):
        store.set(make_objective(name))

    listed = [objective.metadata.name for objective in store.list()]
    store.clear()

    assert listed == ["a", "b"]
    assert len(store) == 0
