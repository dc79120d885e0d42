"""The datastore's invariants, driven directly; reconcilers have their own tests."""

from collections.abc import MutableMapping, Sequence
from typing import Any

import pytest
from structlog.testing import capture_logs

from epp.backend.endpoint import Endpoint
from epp.backend.endpoint_rows import EndpointRows
from epp.backend.metrics_state import MetricsState
from epp.datastore.datastore import Datastore
from epp.datastore.endpoint_pool import EndpointPool
from epp.testing.builders import (
    make_endpoint,
    make_model,
    make_objective,
    make_pod,
    make_rewrite,
    make_rule,
)
from epp.testing.fake_clock import FakeClock
from epp_api.core_v1 import Pod
from epp_api.meta import NamespacedName

POOL = EndpointPool(
    namespace="default", name="pool", selector={"app": "x"}, target_ports=(8000, 8001)
)
KEY = NamespacedName("default", "pod-0")
RANK_0 = make_endpoint().key


class Listener:
    """Writes down what it is told, and whether the endpoint was a candidate at that moment."""

    def __init__(self, rows: EndpointRows) -> None:
        self._rows = rows
        self.journal: list[tuple[str, str, bool]] = []

    def endpoint_added(self, endpoint: Endpoint) -> None:
        self._note("added", endpoint)

    def endpoint_updated(self, old: Endpoint, new: Endpoint) -> None:
        row = self._rows.get(new.key)
        assert row is not None
        self.journal.append(("updated", f"{old.target} {new.target}", row.endpoint == new))

    def endpoint_removed(self, endpoint: Endpoint) -> None:
        self._note("removed", endpoint)

    def _note(self, what: str, endpoint: Endpoint) -> None:
        self.journal.append((what, endpoint.target, endpoint.key in self._rows))


@pytest.fixture
def rows() -> EndpointRows:
    return EndpointRows()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def datastore(rows: EndpointRows, clock: FakeClock) -> Datastore:
    return Datastore(rows, clock=clock)


@pytest.fixture
def listener(rows: EndpointRows, datastore: Datastore) -> Listener:
    listener = Listener(rows)
    datastore.add_endpoint_listener(listener)
    return listener


def targets(datastore: Datastore) -> list[str]:
    return [endpoint.target for endpoint in datastore.endpoint_table().endpoints]


def test_without_a_pool_pods_are_ignored(datastore: Datastore) -> None:
    datastore.pod_set(make_pod())

    assert targets(datastore) == []
    assert not datastore.pool_has_synced
    assert datastore.pool_get() is None
    assert not datastore.pool_selects(make_pod())


def test_setting_the_pool_takes_exactly_the_given_pods(datastore: Datastore) -> None:
    datastore.pool_set(POOL, [make_pod("a", ip="10.0.0.1"), make_pod("b", ip="10.0.0.2")])

    datastore.pool_set(POOL, [make_pod("b", ip="10.0.0.2"), make_pod("c", ip="10.0.0.3")])

    assert targets(datastore) == [
        "10.0.0.2:8000",
        "10.0.0.2:8001",
        "10.0.0.3:8000",
        "10.0.0.3:8001",
    ]
    assert datastore.pool_get() is POOL
    assert datastore.pool_has_synced


def test_a_listener_hears_additions_before_and_removals_after_the_row(
    datastore: Datastore, listener: Listener
) -> None:
    datastore.pool_set(POOL, [make_pod()])
    datastore.pod_delete(KEY)

    assert listener.journal == [
        ("added", "10.0.0.1:8000", False),
        ("added", "10.0.0.1:8001", False),
        ("removed", "10.0.0.1:8000", False),
        ("removed", "10.0.0.1:8001", False),
    ]


def test_a_new_address_is_told_before_it_is_used(datastore: Datastore, listener: Listener) -> None:
    datastore.pool_set(POOL, [make_pod(annotations={"llm-d.ai/active-ports": "8000"})])
    listener.journal.clear()

    moved = make_pod(ip="10.0.0.9", annotations={"llm-d.ai/active-ports": "8000"})
    datastore.pod_set(moved)
    datastore.pod_set(moved)

    assert listener.journal == [("updated", "10.0.0.1:8000 10.0.0.9:8000", False)]
    assert targets(datastore) == ["10.0.0.9:8000"]


def with_ports(value: str) -> Pod:
    return make_pod(annotations={"llm-d.ai/active-ports": value})


def port_warnings(logs: Sequence[MutableMapping[str, Any]]) -> list[tuple[str, str]]:
    return [(one["pod"], one["value"]) for one in logs if one["log_level"] == "warning"]


def test_active_ports_that_cannot_be_used_are_told_once_per_change(datastore: Datastore) -> None:
    with capture_logs() as logs:
        datastore.pool_set(POOL, [with_ports("8000;8001")])
        datastore.pool_set(POOL, [with_ports("8000;8001")])
        datastore.pod_set(with_ports("8000;8001"))
        datastore.pod_set(with_ports("all"))
        datastore.pod_set(with_ports("8000"))
        datastore.pod_set(with_ports("all"))

    assert port_warnings(logs) == [(str(KEY), v) for v in ("8000;8001", "all", "all")]
    assert targets(datastore) == []


def test_active_ports_are_not_judged_while_the_pod_does_not_serve_the_pool(
    datastore: Datastore,
) -> None:
    with capture_logs() as logs:
        datastore.pool_set(POOL, [])
        datastore.pod_set(make_pod(ready=False, annotations={"llm-d.ai/active-ports": "all"}))

    assert port_warnings(logs) == []


@pytest.mark.parametrize("how", ["deleted", "not-listed", "pool-gone"])
def test_what_was_told_of_a_pod_that_is_gone_is_forgotten(datastore: Datastore, how: str) -> None:
    datastore.pool_set(POOL, [with_ports("all")])
    if how == "deleted":
        datastore.pod_delete(KEY)
    elif how == "not-listed":
        datastore.pool_set(POOL, [])
    else:
        datastore.pool_clear()

    with capture_logs() as logs:
        datastore.pool_set(POOL, [with_ports("all")])

    assert port_warnings(logs) == [(str(KEY), "all")]


def test_nothing_is_told_twice(datastore: Datastore, listener: Listener) -> None:
    datastore.pool_set(POOL, [make_pod()])
    datastore.pool_set(POOL, [make_pod()])
    datastore.pod_set(make_pod())
    datastore.pod_delete(KEY)
    datastore.pod_delete(KEY)
    datastore.pool_clear()

    assert [what for what, _, _ in listener.journal] == ["added", "added", "removed", "removed"]


def test_a_new_address_keeps_metrics_and_a_new_start_does_not(
    datastore: Datastore, rows: EndpointRows
) -> None:
    state = MetricsState(waiting_requests=7)
    datastore.pool_set(POOL, [make_pod()])
    rows.publish(RANK_0, state, now=1.0, due_at=2.0)
    rows.add_in_flight(RANK_0, 2)

    datastore.pod_set(make_pod(ip="10.0.0.9"))
    moved = rows.get(RANK_0)
    datastore.pod_set(make_pod(ready=False))
    datastore.pod_set(make_pod())
    back = rows.get(RANK_0)

    assert moved is not None
    assert (moved.state, moved.in_flight, moved.endpoint.address) == (state, 2, "10.0.0.9")
    assert back is not None
    assert not back.known


def test_clear_empties_everything(datastore: Datastore, listener: Listener) -> None:
    datastore.pool_set(POOL, [make_pod()])
    datastore.model_resolve("food", [make_model()])
    datastore.objective_set(make_objective())
    datastore.rewrite_set(make_rewrite("a", make_rule()))
    listener.journal.clear()

    datastore.pool_clear()

    assert targets(datastore) == []
    assert datastore.pool_get() is None
    assert datastore.model_get("food") is None
    assert not datastore.models_in_use
    assert datastore.objective_list() == []
    assert datastore.rewrite_list() == []
    assert datastore.declared_model_names == frozenset()
    assert [what for what, _, _ in listener.journal] == ["removed", "removed"]


class Broken:
    """A listener that fails at everything."""

    def endpoint_added(self, endpoint: Endpoint) -> None:
        raise OSError("disk full")

    def endpoint_updated(self, old: Endpoint, new: Endpoint) -> None:
        raise OSError("disk full")

    def endpoint_removed(self, endpoint: Endpoint) -> None:
        raise OSError("disk full")


def test_a_broken_listener_costs_no_endpoint_and_no_other_listener(rows: EndpointRows) -> None:
    datastore = Datastore(rows, clock=FakeClock())
    healthy = Listener(rows)
    datastore.add_endpoint_listener(Broken())
    datastore.add_endpoint_listener(healthy)

    with capture_logs() as logs:
        datastore.pool_set(POOL, [make_pod()])
        datastore.pod_set(make_pod(ip="10.0.0.9"))
        added = targets(datastore)
        datastore.pod_delete(KEY)

    assert added == ["10.0.0.9:8000", "10.0.0.9:8001"]
    assert targets(datastore) == []
    assert [what for what, _, _ in healthy.journal] == [
        *("added", "added"),
        *("updated", "updated"),
        *("removed", "removed"),
    ]
    failures = [line for line in logs if line["event"] == "endpoint listener failed"]
    assert len(failures) == 6
    assert failures[0]["listener"] == "Broken"


def test_a_table_carries_the_time_it_was_taken(datastore: Datastore, clock: FakeClock) -> None:
    clock.advance(5.0)

    assert datastore.endpoint_table().taken_at == clock()


@pytest.mark.parametrize(
    ("pod", "want"),
    [
        pytest.param(make_pod(), True, id="all-labels"),
        pytest.param(make_pod(labels={"app": "x", "more": "y"}), True, id="more-labels"),
        pytest.param(make_pod(labels={"app": "y"}), False, id="other-value"),
        pytest.param(make_pod(labels={}), False, id="no-label"),
        pytest.param(make_pod(namespace="other"), False, id="other-namespace"),
        pytest.param(make_pod(ready=False), True, id="readiness-does-not-matter"),
    ],
)
def test_pool_selects_by_namespace_and_labels(datastore: Datastore, pod: Pod, want: bool) -> None:
    datastore.pool_set(POOL, [])

    assert datastore.pool_selects(pod) is want


def test_an_empty_selector_selects_every_pod_of_the_namespace(datastore: Datastore) -> None:
    datastore.pool_set(EndpointPool(namespace="default", name="pool", target_ports=(8000,)), [])

    assert datastore.pool_selects(make_pod(labels={}))
    assert not datastore.pool_selects(make_pod(namespace="other", labels={}))


def test_models_are_found_listed_and_vacated(datastore: Datastore) -> None:
    older, younger = make_model("old", created=1), make_model("new", created=2)

    datastore.model_resolve("food", [younger, older])
    datastore.model_resolve("chat", [make_model("chat", model_name="chat")])

    assert datastore.model_get("food") is older
    assert [model.spec.model_name for model in datastore.model_list()] == ["chat", "food"]
    assert datastore.model_names_owned_by(older.metadata.key) == {"food"}
    assert datastore.models_in_use

    datastore.model_resolve("food", [])

    assert datastore.model_get("food") is None


def test_objectives_are_found_listed_and_deleted(datastore: Datastore) -> None:
    batch = make_objective("batch", priority=-5)
    datastore.objective_set(make_objective("chat"))
    datastore.objective_set(batch)

    listed = [objective.metadata.name for objective in datastore.objective_list()]
    found = datastore.objective_get("batch")
    datastore.objective_delete(batch.metadata.key)

    assert listed == ["batch", "chat"]
    assert found is batch
    assert datastore.objective_get("batch") is None


def test_rewrites_are_found_listed_and_deleted(datastore: Datastore) -> None:
    rewrite = make_rewrite("b", make_rule("t", match=["food"]))
    datastore.rewrite_set(rewrite)
    datastore.rewrite_set(make_rewrite("a", make_rule("g")))

    listed = [rewrite.metadata.name for rewrite in datastore.rewrite_list()]
    found = datastore.rewrite_get("food")
    datastore.rewrite_delete(rewrite.metadata.key)
    left = datastore.rewrite_get("food")

    assert listed == ["a", "b"]
    assert found is not None
    assert found.rewrite.name == "b"
    assert left is not None
    assert left.rewrite.name == "a"


def test_declared_names_are_those_of_clients_and_of_servers(datastore: Datastore) -> None:
    datastore.model_resolve("food", [make_model(targets={"food-v1": 1, "food-v2": 1})])
    datastore.rewrite_set(make_rewrite("a", make_rule("chat-v1", match=["chat"])))

    names = datastore.declared_model_names

    assert names == {"food", "food-v1", "food-v2", "chat", "chat-v1"}


def test_each_change_is_logged_once(datastore: Datastore) -> None:
    with capture_logs() as logs:
        for _ in range(2):
            datastore.pool_set(POOL, [make_pod()])
            datastore.model_resolve("food", [make_model()])
            datastore.objective_set(make_objective())
            datastore.rewrite_set(make_rewrite("a", make_rule()))
        for _ in range(2):
            datastore.objective_delete(make_objective().metadata.key)
            datastore.rewrite_delete(make_rewrite("a").metadata.key)
            datastore.pool_clear()

    assert [line["event"] for line in logs] == [
        *("pool set", "endpoint added", "endpoint added", "model changed"),
        *("objective set", "rewrite set", "objective removed", "rewrite removed"),
        *("pool removed", "endpoint removed", "endpoint removed"),
    ]
