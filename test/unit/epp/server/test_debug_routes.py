"""``/debug/pool`` lists every object that decides, as the datastore has it."""

from types import SimpleNamespace
from typing import Any

import pytest

from epp.backend.endpoint_rows import EndpointRows
from epp.datastore.datastore import Datastore
from epp.datastore.endpoint_pool import pool_from_v1
from epp.server.debug_routes import pool_route
from epp.testing.builders import make_model, make_objective, make_pool, make_rewrite, make_rule


def shown(store: Datastore) -> Any:
    totals = SimpleNamespace(routed=3, refused=2, without_epp=1)
    return pool_route(store, totals, lambda: 4)("/debug/pool", {})


@pytest.fixture
def store() -> Datastore:
    store = Datastore(EndpointRows())
    store.pool_set(pool_from_v1(make_pool()), [])
    return store


def test_the_objects_of_the_pool_are_listed(store: Datastore) -> None:
    model = make_model("m", model_name="food", targets={"a": 9, "b": 1})
    store.model_resolve("food", [model])
    store.objective_set(make_objective("urgent", priority=7))
    store.rewrite_set(make_rewrite("r", make_rule({"x": 1, "y": None}, match=["food"])))

    view = shown(store)

    assert view["models"] == [
        {
            "model_name": "food",
            "object": "default/m",
            "criticality": None,
            "targets": [{"name": "a", "weight": 9}, {"name": "b", "weight": 1}],
        }
    ]
    assert view["objectives"] == [{"object": "default/urgent", "priority": 7}]
    targets = [{"name": "x", "weight": 1}, {"name": "y", "weight": None}]
    rule = {"models": ["food"], "targets": targets}
    assert view["rewrites"] == [{"object": "default/r", "rules": [rule]}]
    assert view["totals"] == {"routed": 3, "refused": 2, "without_epp": 1, "open_streams": 4}


def test_without_objects_the_lists_are_empty(store: Datastore) -> None:
    view = shown(store)

    assert [view[part] for part in ("endpoints", "models", "objectives", "rewrites")] == [[]] * 4
