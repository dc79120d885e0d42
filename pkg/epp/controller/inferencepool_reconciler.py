"""InferencePool: the pool itself, and a full resync of all that depends on it.

Level-based: the pool is what the caches say now. Every successful pass lists the pods of the
namespace again and resolves every model name, objective and rewrite again, so nothing can be left
over from before, whatever failed or was missed in between, and whichever API group declares the
pool now.
Reference: GAIE v1.5.0 pkg/epp/controller/inferencepool_reconciler.go; departs from it in the
resync of all kinds after a pool was deleted and created again.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

from epp.controller.claims import claims_of
from epp.datastore.datastore import Datastore
from epp.datastore.endpoint_pool import EndpointPool, pool_from_v1, pool_from_v1alpha2
from epp.kube.cache import KubeObject, ObjectCache
from epp.kube.controller import Result
from epp.logs import get_logger
from epp_api.core_v1 import Pod
from epp_api.meta import NamespacedName
from epp_api.v1 import inferencepool_types as v1
from epp_api.v1alpha2 import inferencepool_types as v1alpha2
from epp_api.v1alpha2.inferencemodel_types import InferenceModel

log = get_logger(__name__)

P = TypeVar("P", bound=KubeObject)


class InferencePoolReconciler:
    """Reconciles the one pool of this process; other keys are ignored.

    Args:
        pool_key: The pool to serve.
        pools: Pools of the current API version.
        old_pools: Pools of v1alpha2; used when the current version has none of this name.
        pods: Pods of the namespace.
        models: InferenceModels of the namespace.
        datastore: Written to.
        resyncs: Called after each pass with a pool: the other kinds that hang on it.
    """

    def __init__(
        self,
        *,
        pool_key: NamespacedName,
        pools: ObjectCache[v1.InferencePool],
        old_pools: ObjectCache[v1alpha2.InferencePool],
        pods: ObjectCache[Pod],
        models: ObjectCache[InferenceModel],
        datastore: Datastore,
        resyncs: Sequence[Callable[[], None]] = (),
    ) -> None:
        self._pool_key = pool_key
        self._pools = pools
        self._old_pools = old_pools
        self._pods = pods
        self._models = models
        self._datastore = datastore
        self._resyncs = tuple(resyncs)
        self._shadows = False

    async def reconcile(self, key: NamespacedName) -> Result:
        """Make the datastore's pool, and all that hangs on it, agree with the caches."""
        if key != self._pool_key:
            return Result()
        pool = self._current()
        if pool is None:
            self._datastore.pool_clear()
            return Result()
        self._datastore.pool_set(pool, self._pods.list())
        stored = {model.spec.model_name for model in self._datastore.model_list()}
        claimed = {model.spec.model_name for model in self._models.list()}
        for name in sorted(stored | claimed):
            self._datastore.model_resolve(name, claims_of(self._models, name, pool.key))
        for resync in self._resyncs:
            resync()
        return Result()

    def _current(self) -> EndpointPool | None:
        current = _alive(self._pools.get(self._pool_key))
        old = _alive(self._old_pools.get(self._pool_key))
        shadows = current is not None and old is not None
        if shadows and not self._shadows:
            log.info("pool exists in two API versions, v1 counts", pool=str(self._pool_key))
        self._shadows = shadows
        if current is not None:
            return pool_from_v1(current)
        if old is None:
            return None
        if old.spec is None:
            log.warning("pool has no spec", pool=str(self._pool_key))
        return pool_from_v1alpha2(old)


def _alive(pool: P | None) -> P | None:
    """The pool, unless it is being deleted: finalizers are not waited for."""
    return pool if pool is not None and pool.metadata.deletion_timestamp is None else None
