"""The three controllers of a pool, wired to the caches of a source."""

from collections.abc import Sequence
from typing import Protocol

from epp.controller.claims import refers_to
from epp.controller.inferencemodel_reconciler import InferenceModelReconciler
from epp.controller.inferencepool_reconciler import InferencePoolReconciler
from epp.controller.pod_reconciler import PodReconciler
from epp.datastore.datastore import Datastore
from epp.kube.cache import ObjectCache
from epp.kube.controller import Controller, OutcomeObserver
from epp.kube.predicates import key_in, old_or_new
from epp_api.core_v1 import Pod
from epp_api.meta import NamespacedName
from epp_api.v1 import inferencepool_types as v1
from epp_api.v1alpha2 import inferencepool_types as v1alpha2
from epp_api.v1alpha2.inferencemodel_types import InferenceModel


class ObjectSource(Protocol):
    """The caches that a source fills."""

    @property
    def pods(self) -> ObjectCache[Pod]:
        """Pods."""
        ...

    @property
    def pools_v1(self) -> ObjectCache[v1.InferencePool]:
        """InferencePools of the current version."""
        ...

    @property
    def pools_v1alpha2(self) -> ObjectCache[v1alpha2.InferencePool]:
        """InferencePools of the first generation."""
        ...

    @property
    def models(self) -> ObjectCache[InferenceModel]:
        """InferenceModels, with the index ``MODEL_NAME_INDEX``."""
        ...


def build_controllers(
    source: ObjectSource,
    datastore: Datastore,
    pool_key: NamespacedName,
    *,
    on_outcome: OutcomeObserver = lambda _name, _outcome: None,
) -> Sequence[Controller]:
    """Pool first, then models and pods; each watches only what concerns the pool."""
    pools = Controller(
        "inferencepool",
        InferencePoolReconciler(
            pool_key=pool_key,
            pools=source.pools_v1,
            old_pools=source.pools_v1alpha2,
            pods=source.pods,
            models=source.models,
            datastore=datastore,
        ),
        on_outcome=on_outcome,
    )
    pools.watch(source.pools_v1, predicate=key_in((pool_key,)))
    pools.watch(source.pools_v1alpha2, predicate=key_in((pool_key,)))

    models = Controller(
        "inferencemodel",
        InferenceModelReconciler(pool_key=pool_key, models=source.models, datastore=datastore),
        on_outcome=on_outcome,
    )
    models.watch(source.models, predicate=old_or_new(lambda model: refers_to(model, pool_key)))

    pods = Controller(
        "pod", PodReconciler(pods=source.pods, datastore=datastore), on_outcome=on_outcome
    )
    pods.watch(source.pods, predicate=old_or_new(datastore.pool_selects))
    return (pools, models, pods)
