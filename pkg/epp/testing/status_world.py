"""StatusWorld: status of InferenceModels as a state transition: objects and a key in, status out.

The API server in it applies by field manager, as the real one does for a list of conditions, and
hands every stored object back to the cache at once, as a watch would in time.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from epp.controller.model_status import ModelJudge
from epp.controller.model_status_reconciler import INFERENCE_MODELS, ModelStatusReconciler
from epp.controller.model_status_setup import StatusControl, build_status_controller
from epp.kube.controller import Result
from epp.kube.errors import ApiError, ConflictError, InvalidError, NotFoundError
from epp.kube.events import EventType, ObjectRef
from epp.testing.builders import NAMESPACE
from epp.testing.pool_world import POOL_KEY, PoolWorld
from epp_api.meta import Condition, NamespacedName
from epp_api.v1alpha2.inferencemodel_types import InferenceModel, InferenceModelStatus

EPOCH = 1.7e9
"""Wall time of a new world, 2023-11-14T22:13:20Z."""


class StatusApi:
    """InferenceModels with a status subresource and field managers.

    Attributes:
        owned: Condition types that each field manager owns, by object.
        shared: Condition types of which somebody else owns a part: they cannot be given up.
        calls: Body of every apply, with ``what`` it was called.
        error: Raised instead of applying.
        before_each: Called before an apply is looked at.
    """

    def __init__(self, world: PoolWorld) -> None:
        self.owned: dict[NamespacedName, dict[str, set[str]]] = {}
        self.shared: set[str] = set()
        self.calls: list[dict[str, Any]] = []
        self.error: ApiError | None = None
        self.before_each: Callable[[], object] = lambda: None
        self._world = world
        self._versions = itertools.count(1)

    def store(self, model: InferenceModel, *, generation: int = 0) -> InferenceModel:
        """Create or replace an object."""
        metadata = msgspec.structs.replace(
            model.metadata,
            resource_version=str(next(self._versions)),
            uid=f"uid-{model.metadata.name}",
            generation=generation,
        )
        stored = msgspec.structs.replace(model, metadata=metadata)
        self._world.models.upsert(stored)
        return stored

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = "application/json",
        timeout_seconds: float = 30.0,  # noqa: ARG002 - answers at once
        what: str = "",
    ) -> bytes:
        """Apply a status; raises what the API server would answer."""
        self.calls.append({"what": what, **body})
        self.before_each()
        if self.error is not None:
            raise self.error
        key = NamespacedName(body["metadata"]["namespace"], body["metadata"]["name"])
        model = self._world.models.get(key)
        expected = INFERENCE_MODELS.path(namespace=key.namespace, name=key.name)
        if model is None or path != f"{expected}/status":
            raise NotFoundError(f"{what}: gone", status=404)
        force = {"fieldManager": (query or {}).get("fieldManager"), "force": "true"}
        if (method, content_type, query) != ("PATCH", "application/apply-patch+yaml", force):
            raise InvalidError(f"{what}: {method} is no forced apply of a manager", status=400)
        if body["metadata"]["resourceVersion"] != model.metadata.resource_version:
            raise ConflictError(f"{what}: changed meanwhile", status=409)
        self._apply(model, force["fieldManager"] or "", body)
        return b"{}"

    def _apply(self, model: InferenceModel, manager: str, body: Mapping[str, Any]) -> None:
        if body.get("status") == {}:
            raise InvalidError("an empty status becomes null", status=422)
        applied = msgspec.convert(body.get("status", {}), InferenceModelStatus).conditions
        types = {one.type for one in applied}
        managers = self.owned.setdefault(model.metadata.key, {})
        given_up = managers.get(manager, set()) - types
        if given_up & self.shared:
            raise InvalidError("the rest of the entry lacks required fields", status=422)
        for other in managers:
            managers[other] -= types
        managers[manager] = types
        conditions = {one.type: one for one in model.status.conditions if one.type not in given_up}
        conditions |= {one.type: one for one in applied}
        status = InferenceModelStatus(conditions=list(conditions.values()))
        self.store(
            msgspec.structs.replace(model, status=status), generation=model.metadata.generation
        )


@dataclass(frozen=True, slots=True)
class Said:
    """An Event that was recorded about ``name``, whose uid was right."""

    name: str
    event_type: EventType
    reason: str
    note: str


class EventEar:
    """Hears Events."""

    def __init__(self) -> None:
        self.said: list[Said] = []

    def record(
        self, regarding: ObjectRef, event_type: EventType, reason: str, action: str, note: str
    ) -> None:
        """Remember it."""
        known = action == "Accept" and regarding.uid == f"uid-{regarding.name}"
        name = regarding.name if known else f"{regarding} {action}"
        self.said.append(Said(name, event_type, reason, note))


class StatusWorld(PoolWorld):
    """A pool world with a status writer. ``leads`` is the answer to ``may_write``."""

    def __init__(self) -> None:
        super().__init__()
        self.api = StatusApi(self)
        self.ear = EventEar()
        self.leads = True
        self.outcomes: list[tuple[str, str]] = []
        self.judge = ModelJudge(
            pool_key=POOL_KEY,
            models=self.models,
            pools=self.pools_v1,
            old_pools=self.pools_v1alpha2,
        )
        started_at = self.clock()
        self._reconciler = ModelStatusReconciler(
            judge=self.judge,
            client=self.api,
            events=self.ear,
            may_write=lambda: self.leads,
            clock=self.clock,
            wall=lambda: EPOCH + self.clock() - started_at,
        )

    async def reconcile_status(self, name: str = "m") -> Result:
        """Process a model's key."""
        return await self._reconciler.reconcile(NamespacedName(NAMESPACE, name))

    def build_controller(self) -> StatusControl:
        """A controller on the caches of this world; not started."""
        return build_status_controller(
            self,
            POOL_KEY,
            client=self.api,
            events=self.ear,
            may_write=lambda: self.leads,
            on_outcome=lambda name, outcome: self.outcomes.append((name, outcome)),
        )

    def conditions(self, name: str = "m") -> Mapping[str, Condition]:
        """Conditions of a model that exists, by type."""
        (model,) = (one for one in self.models.list() if one.metadata.name == name)
        return {one.type: one for one in model.status.conditions}

    def accepted(self, name: str = "m") -> tuple[str, str]:
        """Status and reason of a model's condition."""
        condition = self.conditions(name)["Accepted"]
        return condition.status, condition.reason


async def drain(control: StatusControl) -> Sequence[str]:
    """Process what waits, in order, as one worker would; the names that were processed."""
    queue, names = control.controller.queue, []
    while len(queue):
        key = await queue.get()
        names.append(key.name)
        await control.controller.process(key)
    return names
