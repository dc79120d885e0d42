"""The controller of InferenceModel status, wired to the caches of a source.

Besides the object itself, whoever wants the same name is judged again when a claim changes, and
every model of the pool when the pool comes or goes.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from epp.controller.model_status import ModelJudge
from epp.controller.model_status_reconciler import (
    REFUSED_RETRY_SECONDS,
    EventSink,
    ModelStatusReconciler,
)
from epp.controller.setup import ObjectSource
from epp.kube.api import KubeRequests
from epp.kube.cache import ObjectEvent
from epp.kube.controller import Controller, OutcomeObserver
from epp.kube.predicates import key_in, old_or_new
from epp_api.meta import NamespacedName
from epp_api.v1alpha2.inferencemodel_types import MODEL_NAME_INDEX, InferenceModel

STATUS_CONTROLLER = "inferencemodel-status"
"""Name of the controller, in logs and metrics."""


class StatusControl(NamedTuple):
    """The controller of model status, and how to make it look at every model again."""

    controller: Controller
    requeue_all: Callable[[], None]


def build_status_controller(
    source: ObjectSource,
    pool_key: NamespacedName,
    *,
    client: KubeRequests,
    events: EventSink,
    may_write: Callable[[], bool] = lambda: True,
    on_outcome: OutcomeObserver = lambda _name, _outcome: None,
    retry_seconds: float = REFUSED_RETRY_SECONDS,
) -> StatusControl:
    """Wire the reconciler to the caches.

    Call ``requeue_all`` when ``may_write`` begins to say yes: what was asked for before was
    dropped.

    Args:
        source: Caches of pools and models.
        pool_key: The pool that is served.
        client: Writes the status.
        events: Told about new verdicts.
        may_write: Asked before every write, e.g. ``lambda: elector.is_leader``.
        on_outcome: Told how each call ended.
        retry_seconds: Pace of tries while the API server refuses.
    """
    judge = ModelJudge(
        pool_key=pool_key,
        models=source.models,
        pools=source.pools_v1,
        old_pools=source.pools_v1alpha2,
    )
    reconciler = ModelStatusReconciler(
        judge=judge,
        client=client,
        events=events,
        may_write=may_write,
        retry_seconds=retry_seconds,
    )
    controller = Controller(STATUS_CONTROLLER, reconciler, on_outcome=on_outcome)

    def every_model(_event: object = None) -> Sequence[NamespacedName]:
        return judge.concerned_keys()

    def requeue_all() -> None:
        for key in every_model():
            controller.queue.add(key)

    controller.watch(
        source.models,
        predicate=old_or_new(judge.concerns),
        keys=lambda event: _affected(judge, event),
    )
    controller.watch(source.pools_v1, predicate=key_in((pool_key,)), keys=every_model)
    controller.watch(source.pools_v1alpha2, predicate=key_in((pool_key,)), keys=every_model)
    return StatusControl(controller, requeue_all)


def _affected(judge: ModelJudge, event: ObjectEvent[InferenceModel]) -> Iterable[NamespacedName]:
    """The object itself; besides, if its claim changed, everybody who wants the same name."""
    keys = {event.key}
    if _claim(event.old) != _claim(event.new):
        for model in (event.old, event.new):
            if model is not None:
                rivals = judge.models.by_index(MODEL_NAME_INDEX, model.spec.model_name)
                keys.update(rival.metadata.key for rival in rivals if judge.concerns(rival))
    return keys


def _claim(model: InferenceModel | None) -> object:
    """All that decides about a name, so that a written status does not wake the rivals."""
    if model is None:
        return None
    return (model.spec, model.metadata.deletion_timestamp, model.metadata.creation_timestamp)
