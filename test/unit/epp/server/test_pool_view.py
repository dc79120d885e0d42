"""TablePoolView: the columns of a table reach the gauges under the right names."""

from dataclasses import dataclass, field

import pytest

from epp.backend.endpoint import Endpoint
from epp.backend.endpoint_rows import EndpointRows
from epp.backend.endpoint_table import EndpointTable
from epp.backend.metrics_state import MetricsState
from epp.server.pool_view import TablePoolView


@dataclass
class FakePool:
    name: str = "pool"


@dataclass
class FakeDatastore:
    pool: FakePool | None = field(default_factory=FakePool)
    rows: EndpointRows = field(default_factory=EndpointRows)

    def pool_get(self) -> FakePool | None:
        return self.pool

    def endpoint_table(self) -> EndpointTable:
        return self.rows.snapshot(110.0)


def test_without_a_pool_there_is_no_sample() -> None:
    assert TablePoolView(FakeDatastore(pool=None)).pool_sample() is None


def test_a_sample_has_the_columns_of_the_table() -> None:
    state = FakeDatastore()
    endpoint = Endpoint(namespace="d", pod_name="a", rank=1, address="10.0.0.1", port=8000)
    state.rows.put(endpoint)
    load = MetricsState(waiting_requests=1, running_requests=2, kv_usage=0.5)
    state.rows.publish(endpoint.key, load, now=109.0, due_at=110.0)
    state.rows.add_in_flight(endpoint.key, 3)

    sample = TablePoolView(state).pool_sample()

    assert sample is not None
    assert (sample.name, list(sample.endpoint_names)) == ("pool", ["a-rank-1"])
    columns = (sample.waiting, sample.running, sample.kv_usage, sample.in_flight)
    assert [column.tolist() for column in columns] == [[1.0], [2.0], [0.5], [3]]
    assert sample.age_seconds.tolist() == [pytest.approx(1.0)]
