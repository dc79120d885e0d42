"""InferenceObjective: the priorities that requests can ask for by name.

Level-based over the whole kind: which objects count depends on all of them, so the key says only
that something changed.
Reference: llm-d-router ebab687 pkg/epp/controller/inferenceobjective_reconciler.go.
"""

from epp.controller.pool_objects import PoolObjects
from epp.datastore.datastore import Datastore
from epp.kube.cache import ObjectCache
from epp.kube.controller import Result
from epp_api.meta import NamespacedName
from epp_api.v1alpha2.inferenceobjective_types import KIND, InferenceObjective


class InferenceObjectiveReconciler:
    """Keeps the datastore's objectives those that count for the pool.

    Args:
        preferred: InferenceObjectives of ``llm-d.ai``.
        legacy: InferenceObjectives of the first API group.
        datastore: Written to.
    """

    def __init__(
        self,
        *,
        preferred: ObjectCache[InferenceObjective],
        legacy: ObjectCache[InferenceObjective],
        datastore: Datastore,
    ) -> None:
        self._objects = PoolObjects(KIND, preferred, legacy)
        self._datastore = datastore

    async def reconcile(self, _key: NamespacedName) -> Result:
        """Make the datastore agree with the caches. Without a pool no objective counts."""
        self.resync()
        return Result()

    def resync(self) -> None:
        """The same, for whoever has changed the pool."""
        pool = self._datastore.pool_get()
        counting = {} if pool is None else self._objects.counting(pool)
        for stored in self._datastore.objective_list():
            if stored.metadata.key not in counting:
                self._datastore.objective_delete(stored.metadata.key)
        for objective in counting.values():
            self._datastore.objective_set(objective)
