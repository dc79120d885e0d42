"""InferenceModel: who owns a model name.

Reference: GAIE v0.5.1 pkg/epp/controller/inferencemodel_reconciler.go. Departs from it: the owner
of a name is computed from every object that claims it, so it never depends on event order, and
an object that changed its name gives the old one to the next in line.
"""

from epp.controller.claims import relevant_models
from epp.datastore.datastore import Datastore
from epp.kube.cache import ObjectCache
from epp.kube.controller import Result
from epp_api.meta import NamespacedName
from epp_api.v1alpha2.inferencemodel_types import InferenceModel


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

    def reconcile(self, key: NamespacedName) -> Result:
        """Resolve the names that the object owns or claims. Without a pool nothing is active."""
        if not self._datastore.pool_has_synced:
            return Result()
        names = set(self._datastore.model_names_owned_by(key))
        model = self._models.get(key)
        if model is not None:
            names.add(model.spec.model_name)
        for name in sorted(names):
            claims = relevant_models(self._models, name, self._pool_key)
            self._datastore.model_resolve(name, claims)
        return Result()
