"""Datastore: the in-memory view that reconcilers write and requests read.

One writer, the event loop; every method is synchronous, so a reader never sees half a change.

Invariants:
1. No pool, no endpoints: without a pool, pods are ignored; the resync after ``pool_set`` finds them.
2. Every stored endpoint was ready and selected when last reconciled, and each is known to every
   listener (scraper, EDS file) exactly once. An endpoint is announced before it becomes a
   candidate, and withdrawn from candidates before listeners forget it. A listener that raises is
   logged; it keeps neither the endpoint nor the other listeners from being right.
3. For each model name at most one InferenceModel is active, the oldest, and one rewrite rule
   applies, whatever the order of events.
4. A change of address or labels keeps an endpoint's metrics; becoming ready again does not.
5. After ``pool_clear`` everything is empty.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from epp.backend.endpoint import Endpoint, EndpointKey
from epp.backend.endpoint_rows import EndpointRows
from epp.backend.endpoint_table import EndpointTable
from epp.datastore.endpoint_pool import EndpointPool
from epp.datastore.model_store import ModelStore, oldest
from epp.datastore.objective_store import ObjectiveStore
from epp.datastore.pod_endpoints import active_ports_problem, endpoints_of
from epp.datastore.rewrite_store import RankedRule, RewriteStore
from epp.logs import get_logger
from epp_api.core_v1 import Pod, pod_is_ready
from epp_api.meta import NamespacedName, labels_match
from epp_api.v1alpha2.inferencemodel_types import InferenceModel
from epp_api.v1alpha2.inferencemodelrewrite_types import InferenceModelRewrite
from epp_api.v1alpha2.inferenceobjective_types import InferenceObjective

log = get_logger(__name__)

_SHOWN_CHARACTERS = 120
"""Of an annotation in a log line."""


class EndpointListener(Protocol):
    """Learns of endpoints: called before an endpoint is a candidate, after it ceased to be one.

    Must be quick and must not raise: what can fail (a file, a connection) is retried by itself.
    """

    def endpoint_added(self, endpoint: Endpoint) -> None:
        """A new endpoint."""
        ...

    def endpoint_updated(self, old: Endpoint, new: Endpoint) -> None:
        """Another address, port or other labels under the same key."""
        ...

    def endpoint_removed(self, endpoint: Endpoint) -> None:
        """An endpoint that is gone."""
        ...


class Datastore:
    """Pool, models, objectives, rewrites, endpoints.

    Args:
        rows: Where endpoints and their metrics are kept.
        clock: Monotonic seconds.
    """

    def __init__(self, rows: EndpointRows, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._rows = rows
        self._clock = clock
        self._pool: EndpointPool | None = None
        self._models = ModelStore()
        self._objectives = ObjectiveStore()
        self._rewrites = RewriteStore()
        self._pods: dict[NamespacedName, tuple[EndpointKey, ...]] = {}
        self._port_problems: dict[NamespacedName, tuple[str, str]] = {}
        self._listeners: list[EndpointListener] = []

    def add_endpoint_listener(self, listener: EndpointListener) -> None:
        """Tell a listener of every later change; call before the first endpoint comes."""
        self._listeners.append(listener)

    # Pool

    @property
    def pool_has_synced(self) -> bool:
        """A pool is known."""
        return self._pool is not None

    def pool_get(self) -> EndpointPool | None:
        """The pool, None when there is none."""
        return self._pool

    def pool_set(self, pool: EndpointPool, pods: Iterable[Pod]) -> None:
        """Store the pool; endpoints become those of exactly these pods (the namespace's).

        Setting the same pool again is the resync: it costs time, and changes what has drifted.
        """
        if self._pool != pool:
            log.info(
                "pool set",
                pool=str(pool.key),
                selector=dict(pool.selector),
                target_ports=list(pool.target_ports),
            )
        self._pool = pool
        found = list(pods)
        gone = {*self._pods, *self._port_problems} - {pod.metadata.key for pod in found}
        for key in sorted(gone):
            self.pod_delete(key)
        for pod in found:
            self.pod_set(pod)

    def pool_clear(self) -> None:
        """Forget the pool and all that belongs to it."""
        if self._pool is not None:
            log.info("pool removed", pool=str(self._pool.key))
        self._pool = None
        self._models.clear()
        self._objectives.clear()
        self._rewrites.clear()
        for key in sorted(self._pods):
            self.pod_delete(key)
        self._port_problems.clear()

    def pool_selects(self, pod: Pod) -> bool:
        """Tell whether the pod belongs to the pool; False without one."""
        pool = self._pool
        return (
            pool is not None
            and pod.metadata.namespace == pool.namespace
            and labels_match(pool.selector, pod.metadata.labels)
        )

    # Pods and endpoints

    def endpoint_table(self) -> EndpointTable:
        """Snapshot of the endpoints."""
        return self._rows.snapshot(self._clock())

    def pod_set(self, pod: Pod) -> None:
        """Make the endpoints those that this pod is now: none unless ready and selected."""
        pool = self._pool
        if pool is None:
            return
        wanted: Sequence[Endpoint] = ()
        if pod_is_ready(pod) and self.pool_selects(pod):
            self._tell_port_problem(pod, pool)
            wanted = endpoints_of(pod, pool)
        self._replace_endpoints(pod.metadata.key, wanted)

    def pod_delete(self, key: NamespacedName) -> None:
        """Forget a pod's endpoints. An unknown pod is ignored."""
        self._port_problems.pop(key, None)
        self._replace_endpoints(key, [])

    def _tell_port_problem(self, pod: Pod, pool: EndpointPool) -> None:
        """Say once per change what is wrong with a pod's annotation: it may cost all endpoints."""
        annotations, key = pod.metadata.annotations, pod.metadata.key
        found = active_ports_problem(annotations, pool.target_ports)
        if found is None:
            self._port_problems.pop(key, None)
            return
        name, problem = found
        value = annotations[name][:_SHOWN_CHARACTERS]
        if self._port_problems.get(key) == (value, problem):
            return
        self._port_problems[key] = (value, problem)
        log.warning(
            "active ports cannot be used", pod=str(key), annotation=name, value=value, error=problem
        )

    def _replace_endpoints(self, key: NamespacedName, wanted: Sequence[Endpoint]) -> None:
        keys = tuple(endpoint.key for endpoint in wanted)
        for gone in (k for k in self._pods.get(key, ()) if k not in keys):
            self._remove(gone)
        for endpoint in wanted:
            self._put(endpoint)
        if keys:
            self._pods[key] = keys
        else:
            self._pods.pop(key, None)

    def _put(self, endpoint: Endpoint) -> None:
        row = self._rows.get(endpoint.key)
        if row is None:
            self._tell(lambda listener: listener.endpoint_added(endpoint))
            self._rows.put(endpoint)
            log.info("endpoint added", endpoint=endpoint.key, address=endpoint.target)
        elif row.endpoint != endpoint:
            old = row.endpoint
            self._tell(lambda listener: listener.endpoint_updated(old, endpoint))
            self._rows.put(endpoint)
            log.info("endpoint changed", endpoint=endpoint.key, address=endpoint.target)

    def _remove(self, key: EndpointKey) -> None:
        row = self._rows.get(key)
        if row is None:
            return
        self._rows.remove(key)
        self._tell(lambda listener: listener.endpoint_removed(row.endpoint))
        log.info("endpoint removed", endpoint=key, address=row.endpoint.target)

    def _tell(self, call: Callable[[EndpointListener], None]) -> None:
        for listener in self._listeners:
            try:
                call(listener)
            except Exception as exc:
                name = type(listener).__name__
                log.error("endpoint listener failed", listener=name, error=exc)

    # Models

    @property
    def models_in_use(self) -> bool:
        """At least one InferenceModel of the pool is active."""
        return len(self._models) > 0

    def model_get(self, model_name: str) -> InferenceModel | None:
        """The active InferenceModel of a name."""
        return self._models.get(model_name)

    def model_list(self) -> Sequence[InferenceModel]:
        """Active InferenceModels by model name."""
        return self._models.list()

    def model_names_owned_by(self, key: NamespacedName) -> frozenset[str]:
        """Model names that an object owns: one, or none."""
        return self._models.names_owned_by(key)

    def model_resolve(self, model_name: str, claims: Iterable[InferenceModel]) -> None:
        """Give a name to the oldest of all the objects that claim it, or to nobody."""
        owner = oldest(claims)
        if self._models.assign(model_name, owner):
            shown = None if owner is None else str(owner.metadata.key)
            log.info("model changed", model=model_name, owner=shown)

    @property
    def declared_model_names(self) -> frozenset[str]:
        """Model names that active objects speak of: clients' names and the servers' names."""
        names = set(self._rewrites.model_names())
        for model in self._models.list():
            names.add(model.spec.model_name)
            names.update(target.name for target in model.spec.target_models)
        return frozenset(names)

    # Objectives

    def objective_get(self, name: str) -> InferenceObjective | None:
        """The pool's InferenceObjective of a name."""
        return self._objectives.get(name)

    def objective_list(self) -> Sequence[InferenceObjective]:
        """InferenceObjectives of the pool by name."""
        return self._objectives.list()

    def objective_set(self, objective: InferenceObjective) -> None:
        """Store an objective of the pool in place of the one of its name."""
        if self._objectives.set(objective):
            name, priority = objective.metadata.name, objective.priority
            log.info("objective set", objective=name, priority=priority)

    def objective_delete(self, key: NamespacedName) -> None:
        """Forget an objective. An unknown one is ignored."""
        if self._objectives.delete(key):
            log.info("objective removed", objective=key.name)

    # Rewrites

    def rewrite_get(self, model_name: str) -> RankedRule | None:
        """The rewrite rule that applies to a model name."""
        return self._rewrites.get(model_name)

    def rewrite_list(self) -> Sequence[InferenceModelRewrite]:
        """InferenceModelRewrites of the pool by key."""
        return self._rewrites.list()

    def rewrite_set(self, rewrite: InferenceModelRewrite) -> bool:
        """Store a rewrite of the pool in place of the one of its key; True when it is news."""
        changed = self._rewrites.set(rewrite)
        if changed:
            log.info(
                "rewrite set", rewrite=str(rewrite.metadata.key), rules=len(rewrite.spec.rules)
            )
        return changed

    def rewrite_delete(self, key: NamespacedName) -> None:
        """Forget a rewrite. An unknown one is ignored."""
        if self._rewrites.delete(key):
            log.info("rewrite removed", rewrite=str(key))
