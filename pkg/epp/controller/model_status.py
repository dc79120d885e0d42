"""What the condition ``Accepted`` of an InferenceModel should say. Computed from caches, pure.

=================================  =========  ================
what the caches say                status     reason
=================================  =========  ================
the pool does not exist            Unknown    Pending
the traffic split cannot be drawn  False      InvalidTargets
an older object owns the name      False      ModelNameInUse
otherwise                          True       Accepted
=================================  =========  ================

An object of another pool, or one that is being deleted, gets no verdict.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from epp.controller.claims import claims_of, refers_to, split_problem
from epp.datastore.model_store import oldest
from epp.kube.cache import KubeObject, ObjectCache
from epp_api.meta import Condition, NamespacedName
from epp_api.v1 import inferencepool_types as v1
from epp_api.v1alpha2 import inferencepool_types as v1alpha2
from epp_api.v1alpha2.inferencemodel_types import InferenceModel

ACCEPTED = "Accepted"
"""Type of the condition."""


class Reason(StrEnum):
    """Why the condition is what it is; the names are the field's, InvalidTargets is ours."""

    ACCEPTED = "Accepted"
    MODEL_NAME_IN_USE = "ModelNameInUse"
    INVALID_TARGETS = "InvalidTargets"
    PENDING = "Pending"

    @property
    def status(self) -> str:
        """Status of a condition with this reason."""
        match self:
            case Reason.ACCEPTED:
                return "True"
            case Reason.PENDING:
                return "Unknown"
            case _:
                return "False"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What we think of an object."""

    reason: Reason
    message: str


class ModelJudge:
    """Judges InferenceModels of one pool.

    Args:
        pool_key: The pool.
        models: InferenceModels of the namespace, with the index ``MODEL_NAME_INDEX``.
        pools: Pools of the current API version.
        old_pools: Pools of v1alpha2.
    """

    def __init__(
        self,
        *,
        pool_key: NamespacedName,
        models: ObjectCache[InferenceModel],
        pools: ObjectCache[v1.InferencePool],
        old_pools: ObjectCache[v1alpha2.InferencePool],
    ) -> None:
        self.pool_key = pool_key
        self.models = models
        self._pools = pools
        self._old_pools = old_pools

    def concerns(self, model: InferenceModel) -> bool:
        """The object refers to our pool."""
        return refers_to(model, self.pool_key)

    def concerned_keys(self) -> Sequence[NamespacedName]:
        """Every object that refers to our pool."""
        return [model.metadata.key for model in self.models.list() if self.concerns(model)]

    def verdict(self, model: InferenceModel) -> Verdict | None:
        """What the condition should say; None when it is not ours to say."""
        if not self.concerns(model) or model.metadata.deletion_timestamp is not None:
            return None
        if not self._pool_exists():
            return Verdict(reason=Reason.PENDING, message=f"pool {self.pool_key} does not exist")
        problem = split_problem(model.spec.target_models)
        if problem is not None:
            return Verdict(reason=Reason.INVALID_TARGETS, message=problem)
        name = model.spec.model_name
        owner = oldest(claims_of(self.models, name, self.pool_key))
        if owner is not None and owner.metadata.key != model.metadata.key:
            return Verdict(reason=Reason.MODEL_NAME_IN_USE, message=_in_use(name, owner))
        message = f"model name {name!r} of pool {self.pool_key} is this object's"
        return Verdict(reason=Reason.ACCEPTED, message=message)

    def _pool_exists(self) -> bool:
        return _alive(self._pools.get(self.pool_key)) or _alive(self._old_pools.get(self.pool_key))


def accepted_condition(model: InferenceModel) -> Condition | None:
    """The condition as the object has it."""
    found = [one for one in model.status.conditions if one.type == ACCEPTED]
    return found[0] if found else None


def _in_use(name: str, owner: InferenceModel) -> str:
    created = owner.metadata.creation_timestamp or "at an unknown time"
    return f"model name {name!r} belongs to {owner.metadata.key}, created {created}"


def _alive(pool: KubeObject | None) -> bool:
    return pool is not None and pool.metadata.deletion_timestamp is None
