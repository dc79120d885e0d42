"""The controllers of a pool, wired to the caches of a source."""

from collections.abc import Sequence
from typing import Protocol, TypeVar

from epp.controller.claims import refers_to
from epp.controller.inferencemodel_reconciler import InferenceModelReconciler
from epp.controller.inferencemodelrewrite_reconciler import InferenceModelRewriteReconciler
from epp.controller.inferenceobjective_reconciler import InferenceObjectiveReconciler
from epp.controller.inferencepool_reconciler import InferencePoolReconciler
from epp.controller.pod_reconciler import PodReconciler
from epp.controller.pool_objects import PoolObject, names_pool
from epp.datastore.datastore import Datastore
from epp.kube.cache import ObjectCache
from epp.kube.controller import Controller, OutcomeObserver, Reconciler
from epp.kube.predicates import Predicate, key_in, old_or_new
from epp_api.core_v1 import Pod
from epp_api.meta import NamespacedName
from epp_api.v1 import inferencepool_types as v1
from epp_api.v1alpha2 import inferencepool_types as v1alpha2
from epp_api.v1alpha2.inferencemodel_types import InferenceModel
from epp_api.v1alpha2.inferencemodelrewrite_types import InferenceModelRewrite
from epp_api.v1alpha2.inferenceobjective_types import InferenceObjective

CONTROLLERS = (
    "inferencepool",
    "inferencemodel",
    "inferenceobjective",
    "inferencemodelrewrite",
    "pod",
)
"""Names of the controllers, in the order in which they start."""

T = TypeVar("T", bound=PoolObject)


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

    @property
    def objectives(self) -> ObjectCache[InferenceObjective]:
        """InferenceObjectives of ``llm-d.ai``."""
        ...

    @property
    def legacy_objectives(self) -> ObjectCache[InferenceObjective]:
        """InferenceObjectives of the first API group."""
        ...

    @property
    def rewrites(self) -> ObjectCache[InferenceModelRewrite]:
        """InferenceModelRewrites of ``llm-d.ai``."""
        ...

    @property
    def legacy_rewrites(self) -> ObjectCache[InferenceModelRewrite]:
        """InferenceModelRewrites of the first API group."""
        ...


def build_controllers(
    source: ObjectSource,
    datastore: Datastore,
    pool_key: NamespacedName,
    *,
    on_outcome: OutcomeObserver = lambda _name, _outcome: None,
) -> Sequence[Controller]:
    """Pool first, then what hangs on it; each watches only what concerns the pool.

    Returns:
        One controller for each of ``CONTROLLERS``, in that order.
    """
    objective_reconciler = InferenceObjectiveReconciler(
        preferred=source.objectives, legacy=source.legacy_objectives, datastore=datastore
    )
    rewrite_reconciler = InferenceModelRewriteReconciler(
        preferred=source.rewrites, legacy=source.legacy_rewrites, datastore=datastore
    )
    pool_reconciler = InferencePoolReconciler(
        pool_key=pool_key,
        pools=source.pools_v1,
        old_pools=source.pools_v1alpha2,
        pods=source.pods,
        models=source.models,
        datastore=datastore,
        resyncs=(objective_reconciler.resync, rewrite_reconciler.resync),
    )
    model_reconciler = InferenceModelReconciler(
        pool_key=pool_key, models=source.models, datastore=datastore
    )
    pod_reconciler = PodReconciler(pods=source.pods, datastore=datastore)

    def controller(name: str, reconciler: Reconciler) -> Controller:
        return Controller(name, reconciler, on_outcome=on_outcome)

    pools = controller("inferencepool", pool_reconciler)
    pools.watch(source.pools_v1, predicate=key_in((pool_key,)))
    pools.watch(source.pools_v1alpha2, predicate=key_in((pool_key,)))

    models = controller("inferencemodel", model_reconciler)
    models.watch(source.models, predicate=old_or_new(lambda model: refers_to(model, pool_key)))

    objectives = controller("inferenceobjective", objective_reconciler)
    _watch_whole(objectives, pool_key, source.objectives, source.legacy_objectives)

    rewrites = controller("inferencemodelrewrite", rewrite_reconciler)
    _watch_whole(rewrites, pool_key, source.rewrites, source.legacy_rewrites)

    pods = controller("pod", pod_reconciler)
    pods.watch(source.pods, predicate=old_or_new(datastore.pool_selects))
    return (pools, models, objectives, rewrites, pods)


def _watch_whole(controller: Controller, pool_key: NamespacedName, *caches: ObjectCache[T]) -> None:
    """Watch a kind whose objects are reconciled together: one key, so a burst is one pass.

    The predicate asks for the pool's name alone. The group of its API decides too, but it may
    change, and an object that names the wrong one is worth a word in the log.
    """
    concerns: Predicate[T] = old_or_new(lambda obj: names_pool(obj, pool_key))
    for cache in caches:
        controller.watch(cache, predicate=concerns, keys=lambda _event: (pool_key,))
