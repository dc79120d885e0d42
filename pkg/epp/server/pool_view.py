"""TablePoolView: the datastore's pool as the pool gauges want it."""

from typing import Protocol

from epp.backend.endpoint_table import EndpointTable
from epp.metrics.collectors import PoolSample


class NamedPool(Protocol):
    """What is needed of a pool."""

    @property
    def name(self) -> str:
        """Name of the InferencePool."""
        ...


class PoolState(Protocol):
    """What is needed of the datastore."""

    def pool_get(self) -> NamedPool | None:
        """The pool, None when there is none."""
        ...

    def endpoint_table(self) -> EndpointTable:
        """Snapshot of the endpoints."""
        ...


class TablePoolView:
    """Implements ``metrics.collectors.PoolView``."""

    def __init__(self, state: PoolState) -> None:
        self._state = state

    def pool_sample(self) -> PoolSample | None:
        """The pool as it is now; None while there is none."""
        pool = self._state.pool_get()
        if pool is None:
            return None
        table = self._state.endpoint_table()
        return PoolSample(
            name=pool.name,
            endpoint_names=[endpoint.name for endpoint in table.endpoints],
            waiting=table.waiting,
            running=table.running,
            kv_usage=table.kv_usage,
            in_flight=table.in_flight,
            age_seconds=table.age_seconds,
        )
