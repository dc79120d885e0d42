"""Which objects of a kind that exists in two API groups count for the pool.

An object counts when it names the pool, in the API group that declares the pool, and is not being
deleted. As soon as one object of ``llm-d.ai`` counts, none of the kind's first API group does:
while people move from one to the other, the two never mix. This is decided from all the objects
each time, so it holds for every source and whatever the order of events.
Reference: llm-d-router ebab687 pkg/epp/server/controller_config.go, where the group that the
cluster serves decides; departs from it in looking at objects, since having both CRDs installed
says nothing about which of them is used.
"""

from collections.abc import Mapping, Sequence
from typing import Generic, Protocol, TypeVar

from epp.datastore.endpoint_pool import EndpointPool
from epp.kube.cache import KubeObject, ObjectCache
from epp.logs import get_logger
from epp_api.meta import NamespacedName
from epp_api.v1alpha2.shared_types import GROUP, LEGACY_GROUP, PoolObjectReference

log = get_logger(__name__)


class _Spec(Protocol):
    @property
    def pool_ref(self) -> PoolObjectReference | None: ...


class PoolObject(KubeObject, Protocol):
    """An object that refers to a pool."""

    @property
    def spec(self) -> _Spec:
        """What is wanted, the pool's name included."""
        ...


T = TypeVar("T", bound=PoolObject)


def names_pool(obj: PoolObject, pool: NamespacedName) -> bool:
    """Tell whether an object names this pool, in whichever API group."""
    reference = obj.spec.pool_ref
    return (
        obj.metadata.namespace == pool.namespace
        and reference is not None
        and reference.name == pool.name
    )


def counts_for(obj: PoolObject, pool: EndpointPool) -> bool:
    """Tell whether an object counts for a pool, its own API group aside."""
    reference = obj.spec.pool_ref
    return (
        names_pool(obj, pool.key)
        and reference is not None
        and reference.group == pool.group
        and obj.metadata.deletion_timestamp is None
    )


class PoolObjects(Generic[T]):
    """The objects of one kind, of both API groups.

    Says once what an operator would wonder about: the older group's objects that are ignored, and
    objects that name the pool in another API group than its own.

    Args:
        kind: For logs.
        preferred: Objects of ``llm-d.ai``.
        legacy: Objects of the kind's first API group.
    """

    def __init__(self, kind: str, preferred: ObjectCache[T], legacy: ObjectCache[T]) -> None:
        self._kind = kind
        self._preferred = preferred
        self._legacy = legacy
        self._ignores_legacy = False
        self._elsewhere: frozenset[NamespacedName] = frozenset()

    def counting(self, pool: EndpointPool) -> Mapping[NamespacedName, T]:
        """Objects that count for the pool, by key."""
        preferred, legacy = self._preferred.list(), self._legacy.list()
        ours = [obj for obj in preferred if counts_for(obj, pool)]
        old = [obj for obj in legacy if counts_for(obj, pool)]
        self._say_ignored(bool(ours), len(old))
        self._say_elsewhere([*preferred, *legacy], pool)
        return {obj.metadata.key: obj for obj in ours or old}

    def _say_ignored(self, preferred: bool, legacy: int) -> None:
        ignores = preferred and legacy > 0
        if ignores and not self._ignores_legacy:
            log.warning(
                "objects of the older API group are ignored",
                kind=self._kind,
                group=GROUP,
                ignored_group=LEGACY_GROUP,
                ignored=legacy,
            )
        self._ignores_legacy = ignores

    def _say_elsewhere(self, objects: Sequence[T], pool: EndpointPool) -> None:
        elsewhere = {
            obj.metadata.key: obj.spec.pool_ref.group
            for obj in objects
            if names_pool(obj, pool.key)
            and obj.spec.pool_ref is not None
            and obj.spec.pool_ref.group != pool.group
        }
        for key in sorted(elsewhere.keys() - self._elsewhere):
            log.warning(
                "object names the pool in another API group, ignored",
                kind=self._kind,
                object=str(key),
                group=elsewhere[key],
                pool_group=pool.group,
            )
        self._elsewhere = frozenset(elsewhere)
