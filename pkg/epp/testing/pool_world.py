"""PoolWorld: reconcilers as state transitions: objects in caches and one key in, datastore out."""

from epp.backend.endpoint_rows import EndpointRows
from epp.controller.inferencemodel_reconciler import InferenceModelReconciler
from epp.controller.inferencemodelrewrite_reconciler import InferenceModelRewriteReconciler
from epp.controller.inferenceobjective_reconciler import InferenceObjectiveReconciler
from epp.controller.inferencepool_reconciler import InferencePoolReconciler
from epp.controller.pod_reconciler import PodReconciler
from epp.datastore.datastore import Datastore
from epp.sources.caches import SourceCaches
from epp.testing.builders import NAMESPACE, POOL_NAME
from epp.testing.fake_clock import FakeClock
from epp_api.meta import NamespacedName

POOL_KEY = NamespacedName(NAMESPACE, POOL_NAME)


class PoolWorld:
    """What the API says (caches), what the EPP believes (datastore), and the reconcilers.

    Has the caches that ``epp.controller.setup.ObjectSource`` asks for.
    """

    def __init__(self) -> None:
        caches = SourceCaches()
        self.pods = caches.pods
        self.pools_v1 = caches.pools_v1
        self.pools_v1alpha2 = caches.pools_v1alpha2
        self.models = caches.models
        self.objectives = caches.objectives
        self.legacy_objectives = caches.legacy_objectives
        self.rewrites = caches.rewrites
        self.legacy_rewrites = caches.legacy_rewrites
        self.rows = EndpointRows()
        self.clock = FakeClock()
        self.datastore = Datastore(self.rows, clock=self.clock)
        self._objective = InferenceObjectiveReconciler(
            preferred=self.objectives, legacy=self.legacy_objectives, datastore=self.datastore
        )
        self._rewrite = InferenceModelRewriteReconciler(
            preferred=self.rewrites, legacy=self.legacy_rewrites, datastore=self.datastore
        )
        self._pool = InferencePoolReconciler(
            pool_key=POOL_KEY,
            pools=self.pools_v1,
            old_pools=self.pools_v1alpha2,
            pods=self.pods,
            models=self.models,
            datastore=self.datastore,
            resyncs=(self._objective.resync, self._rewrite.resync),
        )
        self._model = InferenceModelReconciler(
            pool_key=POOL_KEY, models=self.models, datastore=self.datastore
        )
        self._pod = PodReconciler(pods=self.pods, datastore=self.datastore)

    async def reconcile_pool(self, key: NamespacedName = POOL_KEY) -> None:
        """Process a pool's key."""
        await self._pool.reconcile(key)

    async def reconcile_model(self, name: str, namespace: str = NAMESPACE) -> None:
        """Process a model's key."""
        await self._model.reconcile(NamespacedName(namespace, name))

    async def reconcile_objectives(self) -> None:
        """Process the objectives' one key."""
        await self._objective.reconcile(POOL_KEY)

    async def reconcile_rewrites(self) -> None:
        """Process the rewrites' one key."""
        await self._rewrite.reconcile(POOL_KEY)

    async def reconcile_pod(self, name: str = "pod-0") -> None:
        """Process a pod's key."""
        await self._pod.reconcile(NamespacedName(NAMESPACE, name))

    def endpoints(self) -> dict[str, str]:
        """Target by endpoint key."""
        table = self.datastore.endpoint_table()
        return {str(endpoint.key): endpoint.target for endpoint in table.endpoints}

    def owners(self) -> dict[str, str]:
        """Object that owns each model name."""
        models = self.datastore.model_list()
        return {model.spec.model_name: model.metadata.name for model in models}

    def priorities(self) -> dict[str, int]:
        """Priority by name of objective."""
        return {o.metadata.name: o.priority for o in self.datastore.objective_list()}

    def rewritten(self, *model_names: str) -> dict[str, list[str]]:
        """Targets of the rule that applies to each of these model names, where one does."""
        rules = {name: self.datastore.rewrite_get(name) for name in model_names}
        return {
            name: [target.model_rewrite for target in rule.targets]
            for name, rule in rules.items()
            if rule is not None
        }
