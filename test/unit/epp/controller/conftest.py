"""State transitions: objects in caches and one key in, the datastore's view out."""

import pytest

from epp.backend.endpoint_rows import EndpointRows
from epp.controller.claims import model_names
from epp.controller.inferencemodel_reconciler import InferenceModelReconciler
from epp.controller.inferencepool_reconciler import InferencePoolReconciler
from epp.controller.pod_reconciler import PodReconciler
from epp.datastore.datastore import Datastore
from epp.kube.cache import ObjectCache
from epp.testing.fake_clock import FakeClock
from epp_api.core_v1 import Pod
from epp_api.meta import NamespacedName
from epp_api.v1 import inferencepool_types as v1
from epp_api.v1alpha2 import inferencepool_types as v1alpha2
from epp_api.v1alpha2.inferencemodel_types import MODEL_NAME_INDEX, InferenceModel

POOL = NamespacedName("default", "pool")


class World:
    """What the API says (caches), what the EPP believes (datastore), and the reconcilers."""

    def __init__(self) -> None:
        self.pods: ObjectCache[Pod] = ObjectCache("Pod")
        self.pools_v1: ObjectCache[v1.InferencePool] = ObjectCache("InferencePool")
        self.pools_v1alpha2: ObjectCache[v1alpha2.InferencePool] = ObjectCache("InferencePool")
        self.models: ObjectCache[InferenceModel] = ObjectCache(
            "InferenceModel", {MODEL_NAME_INDEX: model_names}
        )
        self.rows = EndpointRows()
        self.clock = FakeClock()
        self.datastore = Datastore(self.rows, clock=self.clock)
        self._pool = InferencePoolReconciler(
            pool_key=POOL,
            pools=self.pools_v1,
            old_pools=self.pools_v1alpha2,
            pods=self.pods,
            models=self.models,
            datastore=self.datastore,
        )
        self._model = InferenceModelReconciler(
            pool_key=POOL, models=self.models, datastore=self.datastore
        )
        self._pod = PodReconciler(pods=self.pods, datastore=self.datastore)

    async def reconcile_pool(self, key: NamespacedName = POOL) -> None:
        await self._pool.reconcile(key)

    async def reconcile_model(self, name: str, namespace: str = "default") -> None:
        await self._model.reconcile(NamespacedName(namespace, name))

    async def reconcile_pod(self, name: str = "pod-0") -> None:
        await self._pod.reconcile(NamespacedName("default", name))

    def endpoints(self) -> dict[str, str]:
        """Target by endpoint key."""
        table = self.datastore.endpoint_table()
        return {str(endpoint.key): endpoint.target for endpoint in table.endpoints}

    def owners(self) -> dict[str, str]:
        """Object that owns each model name."""
        models = self.datastore.model_list()
        return {model.spec.model_name: model.metadata.name for model in models}


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture(scope="session")
def world_factory() -> type[World]:
    """For properties, which need a new world per example."""
    return World
