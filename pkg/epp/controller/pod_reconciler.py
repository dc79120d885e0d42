"""Pod: its endpoints.

Reference: GAIE v1.5.0 pkg/epp/controller/pod_reconciler.go.
"""

from epp.datastore.datastore import Datastore
from epp.kube.cache import ObjectCache
from epp.kube.controller import Result
from epp_api.core_v1 import Pod
from epp_api.meta import NamespacedName


class PodReconciler:
    """Reconciles one pod.

    Args:
        pods: Pods of the namespace.
        datastore: Written to; it knows readiness, selector and ports.
    """

    def __init__(self, *, pods: ObjectCache[Pod], datastore: Datastore) -> None:
        self._pods = pods
        self._datastore = datastore

    async def reconcile(self, key: NamespacedName) -> Result:
        """Store the endpoints of a ready, selected pod; forget those of any other."""
        pod = self._pods.get(key)
        if pod is None:
            self._datastore.pod_delete(key)
        else:
            self._datastore.pod_set(pod)
        return Result()
