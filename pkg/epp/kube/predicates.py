"""Predicates: which events of a cache are worth a reconcile.

A predicate only saves work; reconcilers stay correct without it. When in doubt, let pass.
"""

from collections.abc import Callable, Collection
from typing import Generic, TypeVar

from epp.kube.cache import KubeObject, ObjectEvent
from epp_api.meta import NamespacedName

T = TypeVar("T", bound=KubeObject)
Predicate = Callable[[ObjectEvent[T]], bool]


def everything(_event: ObjectEvent[T]) -> bool:
    """Let every event pass."""
    return True


class ByEvent(Generic[T]):
    """A predicate with a question of its own per kind of event.

    Args:
        create: Asked with the new object.
        update: Asked with the old and the new object.
        delete: Asked with the last known object.
    """

    def __init__(
        self,
        *,
        create: Callable[[T], bool],
        update: Callable[[T, T], bool],
        delete: Callable[[T], bool],
    ) -> None:
        self._create = create
        self._update = update
        self._delete = delete

    def __call__(self, event: ObjectEvent[T]) -> bool:
        """Ask the question that fits the event."""
        if event.old is None:
            return event.new is not None and self._create(event.new)
        if event.new is None:
            return self._delete(event.old)
        return self._update(event.old, event.new)


def old_or_new(test: Callable[[T], bool]) -> Predicate[T]:
    """Pass when the test holds for the object, before or after an update.

    An object that ceases to satisfy the test must be seen once more, to be let go.
    """
    return ByEvent(create=test, update=lambda old, new: test(old) or test(new), delete=test)


def key_in(keys: Collection[NamespacedName]) -> Predicate[T]:
    """Pass events of these objects only."""
    return lambda event: event.key in keys
