"""InferenceModel: who owns a model name.

Reference: GAIE v0.5.1 pkg/epp/controller/inferencemodel_reconciler.go. Departs from it: the owner
of a name is computed from every object that claims it, so it never depends on event order, and
an object that changed its name gives the old one to the next in line.
"""

from epp.controller.claims import claims_name, claims_of, refers_to, split_problem
from epp.datastore.datastore import Datastore
from epp.kube.cache import ObjectCache
from epp.kube.controller import Result
from epp.logs import get_logger
from epp_api.meta import NamespacedName
from epp_api.v1alpha2.inferencemodel_types import InferenceModel

log = get_logger(__name__)


class InferenceModelReconciler:
    """Reconciles one InferenceModel.

    Args:
        pool_key: The pool that is served.
        models: InferenceModels of the namespace, with the index ``MODEL_NAME_INDEX``.
        datastore: Written to.
    """

    def __init__(
        self,
        *,
        pool_key: NamespacedName,
        models: ObjectCache[InferenceModel],
        datastore: Datastore,
    ) -> None:
        self._pool_key = pool_key
        self._models = models
        self._datastore = datastore

    async def reconcile(self, key: NamespacedName) -> Result:
        """Resolve the names that the object owns or claims. Without a pool nothing is active."""
        if not self._datastore.pool_has_synced:
            return Result()
        names = set(self._datastore.model_names_owned_by(key))
        model = self._models.get(key)
        if model is not None:
            names.add(model.spec.model_name)
        for name in sorted(names):
            self._datastore.model_resolve(name, claims_of(self._models, name, self._pool_key))
        if model is not None:
            self._explain(model)
        return Result()

    def _explain(self, model: InferenceModel) -> None:
        """Say why an object of the pool has no effect."""
        if not refers_to(model, self._pool_key):
            return
        name, key = model.spec.model_name, str(model.metadata.key)
        problem = split_problem(model.spec.target_models)
        if problem is not None:
            log.warning("model rejected", model=name, object=key, error=problem)
        owner = self._datastore.model_get(name)
        if owner is not None and owner != model and claims_name(model, self._pool_key):
            log.info("model name in use", model=name, object=key, owner=str(owner.metadata.key))
