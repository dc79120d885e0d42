"""The three controllers of a pool, wired to the caches of a source."""

from collections.abc import Sequence
from typing import Protocol

from epp.controller.inferencemodel_reconciler import InferenceModelReconciler
from epp.controller.inferencepool_reconciler import InferencePoolReconciler
from epp.controller.pod_reconciler import PodReconciler
from epp.datastore.datastore import Datastore
from epp.kube.cache import ObjectCache, ObjectEvent
from epp.kube.controller import Controller, OutcomeObserver
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
    pools.watch(source.pools_v1)
    pools.watch(source.pools_v1alpha2)

    models = Controller(
        "inferencemodel",
        InferenceModelReconciler(pool_key=pool_key, models=source.models, datastore=datastore),
        on_outcome=on_outcome,
    )
    models.watch(source.models, predicate=lambda event: _refers_to(event, pool_key))

    pods = Controller(
        "pod", PodReconciler(pods=source.pods, datastore=datastore), on_outcome=on_outcome
    )
    pods.watch(source.pods, predicate=lambda event: _selected(event, datastore))
    return (pools, models, pods)


def _refers_to(event: ObjectEvent[InferenceModel], pool: NamespacedName) -> bool:
    """Old or new refers to the pool: an object that moves away must be seen, too."""
    return any(
        model is not None
        and model.metadata.namespace == pool.namespace
        and model.spec.pool_ref.name == pool.name
        for model in (event.old, event.new)
    )


def _selected(event: ObjectEvent[Pod], datastore: Datastore) -> bool:
    """Old or new is selected by the pool. Without a pool the later resync finds the pod."""
    return any(pod is not None and datastore.pool_selects(pod) for pod in (event.old, event.new))
