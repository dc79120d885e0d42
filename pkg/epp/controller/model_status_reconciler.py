"""InferenceModel status: writes the condition ``Accepted``, level-based, when it would change.

Written by **server-side apply** on the status subresource, forced, with the object's
resourceVersion. Of the ways to write one condition among those of other writers it is the right
one: ``conditions`` is a list-map by type, so an apply touches exactly our entry and the API
server remembers that it is ours, while a merge patch replaces the whole list and would have to
send back everybody else's entries. Force takes over an entry of ours that a person has edited;
it cannot reach other types. The resourceVersion makes the server refuse a judgement that rests
on an object which has changed meanwhile.

A model that ceases to refer to our pool loses our entry: an apply without a status gives up what
this field manager owns. The manager is named after the pool, so an entry that the endpoint picker
of the new pool has written over ours stays, and so does one of which a person owns a part. A
model that moves while nobody of this pool runs keeps its entry until its new pool's picker, or a
person, replaces it: nothing in the object tells whose it is but managed fields, which are not
kept.

Not being allowed to write never disturbs anything: one log line per change of state, and one
request a minute that finds out whether it is allowed now. Events follow the conditions: they are
recorded after a write that changed one, so a restart repeats none.
Has no state but the last trouble. The Kubernetes source wires it, the file source has no status.
"""

import time
from collections.abc import Callable, Mapping
from typing import Protocol

from epp.controller.model_status import (
    ACCEPTED,
    ModelJudge,
    Reason,
    Verdict,
    accepted_condition,
)
from epp.kube.api import KubeRequests
from epp.kube.controller import Result
from epp.kube.errors import (
    ApiError,
    ConflictError,
    ForbiddenError,
    InvalidError,
    NotFoundError,
    UnauthorizedError,
)
from epp.kube.events import EventType, ObjectRef
from epp.kube.resource import Resource
from epp.kube.timing import whole_second_time
from epp.logs import get_logger
from epp_api.meta import Condition, NamespacedName
from epp_api.v1alpha2.inferencemodel_types import (
    API_VERSION,
    GROUP,
    KIND,
    InferenceModel,
)

log = get_logger(__name__)

INFERENCE_MODELS = Resource(group=GROUP, version="v1alpha2", plural="inferencemodels", kind=KIND)

REFUSED_RETRY_SECONDS = 60.0
"""Pace of tries while the API server refuses: RBAC may be repaired at any time."""

_REQUEST_SECONDS = 10.0
_MANAGER_CHARS = 128
"""Limit of the API for the name of a field manager."""


class EventSink(Protocol):
    """Where Events go; ``epp.kube.events.EventRecorder`` is one."""

    def record(
        self, regarding: ObjectRef, event_type: EventType, reason: str, action: str, note: str
    ) -> None:
        """Say something about an object, without waiting."""
        ...


class ModelStatusReconciler:
    """Reconciles the status of one InferenceModel.

    Args:
        judge: Says what the condition should be.
        client: Writes it.
        events: Told about new verdicts.
        may_write: Asked before every write; only one replica should say yes.
        clock: Monotonic seconds.
        wall: Seconds since the epoch, for lastTransitionTime.
        retry_seconds: Pace of tries while the API server refuses.
    """

    def __init__(
        self,
        *,
        judge: ModelJudge,
        client: KubeRequests,
        events: EventSink,
        may_write: Callable[[], bool] = lambda: True,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        retry_seconds: float = REFUSED_RETRY_SECONDS,
    ) -> None:
        self._judge = judge
        self._client = client
        self._events = events
        self._may_write = may_write
        self._clock = clock
        self._wall = wall
        self._retry_seconds = retry_seconds
        self._manager = f"epp-{judge.pool_key.name}"[:_MANAGER_CHARS]
        self._trouble: type[ApiError] | None = None
        self._refused_until = 0.0

    async def reconcile(self, key: NamespacedName) -> Result:
        """Write the condition if it should say something else. Raises nothing of the API's."""
        model = self._judge.models.get(key)
        if model is None or not self._may_write():
            return Result()
        verdict = self._judge.verdict(model)
        before = accepted_condition(model)
        wanted = None if verdict is None else self._condition(model, verdict, before)
        if wanted == before or (wanted is None and self._judge.concerns(model)):
            return Result()
        left_seconds = self._refused_until - self._clock()
        if left_seconds > 0:
            return Result(requeue_after=left_seconds)
        try:
            await self._apply(model, wanted)
        except InvalidError as exc:
            if wanted is None:
                log.debug("entry stays, somebody else owns a part", object=str(key), error=exc)
                return Result()
            return self._failed(key, exc)
        except ApiError as exc:
            return self._failed(key, exc)
        self._succeeded()
        if verdict is not None:
            self._tell(model, verdict, before)
        return Result()

    def _condition(
        self, model: InferenceModel, verdict: Verdict, before: Condition | None
    ) -> Condition:
        """The wanted entry; it keeps its transition time as long as the status is the same."""
        since = None
        if before is not None and before.status == verdict.reason.status:
            since = before.last_transition_time
        return Condition(
            type=ACCEPTED,
            status=verdict.reason.status,
            reason=verdict.reason.value,
            message=verdict.message,
            last_transition_time=since or whole_second_time(self._wall()),
            observed_generation=model.metadata.generation,
        )

    async def _apply(self, model: InferenceModel, condition: Condition | None) -> None:
        """Own exactly this entry, or none."""
        namespace, name = model.metadata.key
        await self._client.request(
            "PATCH",
            INFERENCE_MODELS.path(namespace=namespace, name=name, subresource="status"),
            query={"fieldManager": self._manager, "force": "true"},
            body=_configuration(model, condition),
            content_type="application/apply-patch+yaml",
            timeout_seconds=_REQUEST_SECONDS,
            what=f"patch {INFERENCE_MODELS.qualified}/status {namespace}/{name}",
        )

    def _failed(self, key: NamespacedName, error: ApiError) -> Result:
        match error:
            case NotFoundError():
                log.debug("model is gone, no status written", object=str(key), error=error)
                return Result()
            case ConflictError():
                log.debug("model has changed, judged again", object=str(key), error=error)
                return Result(requeue=True)
            case ForbiddenError() | UnauthorizedError():
                self._refused_until = self._clock() + self._retry_seconds
                self._note_trouble(error)
                return Result(requeue_after=self._retry_seconds)
            case InvalidError():
                self._note_trouble(error)
                return Result(requeue_after=self._retry_seconds)
            case _:
                self._note_trouble(error)
                return Result(requeue=True, requeue_after=error.retry_after or 0.0)

    def _note_trouble(self, error: ApiError) -> None:
        if self._trouble is not type(error):
            self._trouble = type(error)
            log.warning("model status not written, trying again", error=error)

    def _succeeded(self) -> None:
        self._refused_until = 0.0
        if self._trouble is not None:
            self._trouble = None
            log.info("model status is written again")

    def _tell(self, model: InferenceModel, verdict: Verdict, before: Condition | None) -> None:
        """Record an Event if the verdict is a new one that somebody should see."""
        same = before is not None and before.reason == verdict.reason.value
        match verdict.reason:
            case Reason.PENDING:
                return
            case Reason.ACCEPTED:
                event_type = EventType.NORMAL
            case _:
                event_type = EventType.WARNING
                same = same and before is not None and before.message == verdict.message
        if same:
            return
        meta = model.metadata
        regarding = ObjectRef(
            api_version=API_VERSION,
            kind=KIND,
            namespace=meta.namespace,
            name=meta.name,
            uid=meta.uid,
        )
        self._events.record(regarding, event_type, verdict.reason.value, "Accept", verdict.message)


def _configuration(model: InferenceModel, condition: Condition | None) -> Mapping[str, object]:
    """What is applied. To give up everything the status is left out: an empty one is refused."""
    fields: dict[str, object] = {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {
            "namespace": model.metadata.namespace,
            "name": model.metadata.name,
            "resourceVersion": model.metadata.resource_version,
        },
    }
    if condition is not None:
        fields["status"] = {"conditions": [_wire(condition)]}
    return fields


def _wire(condition: Condition) -> Mapping[str, object]:
    return {
        "type": condition.type,
        "status": condition.status,
        "reason": condition.reason,
        "message": condition.message,
        "lastTransitionTime": condition.last_transition_time,
        "observedGeneration": condition.observed_generation,
    }
