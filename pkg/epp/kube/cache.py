"""ObjectCache: the objects of one kind as a source last saw them, with events and indexes.

A source (manifest directory, Kubernetes reflector) is its only writer. Handlers are called
synchronously, after the cache has changed, with the old and the new object; they must only
enqueue keys. Reconcilers re-read the cache by key: events may be merged, objects never lie.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Generic, NamedTuple, Protocol, TypeVar

from epp_api.meta import NamespacedName, ObjectMeta


class KubeObject(Protocol):
    """Anything with metadata."""

    @property
    def metadata(self) -> ObjectMeta:
        """Name, labels, timestamps."""
        ...


T = TypeVar("T", bound=KubeObject)


class ObjectEvent(NamedTuple, Generic[T]):
    """A change: ``old`` is None for a creation, ``new`` is None for a deletion."""

    key: NamespacedName
    old: T | None
    new: T | None


EventHandler = Callable[[ObjectEvent[T]], None]
Indexer = Callable[[T], Sequence[str]]


class ObjectCache(Generic[T]):
    """Objects by key, with named indexes.

    Args:
        kind: For logs and errors.
        indexers: Index name to a function that gives an object's index values.
    """

    def __init__(self, kind: str, indexers: Mapping[str, Indexer[T]] | None = None) -> None:
        self.kind = kind
        self._objects: dict[NamespacedName, T] = {}
        self._indexers = dict(indexers or {})
        self._indexes: dict[str, dict[str, set[NamespacedName]]] = {n: {} for n in self._indexers}
        self._handlers: list[EventHandler[T]] = []
        self._synced = asyncio.Event()

    @property
    def has_synced(self) -> bool:
        """The first complete list has been stored."""
        return self._synced.is_set()

    async def wait_synced(self) -> None:
        """Wait for the first complete list."""
        await self._synced.wait()

    def mark_synced(self) -> None:
        """Called by the source after its first complete list."""
        self._synced.set()

    def subscribe(self, handler: EventHandler[T]) -> None:
        """Call a handler for every later change, and now for every object already there."""
        self._handlers.append(handler)
        for key, obj in list(self._objects.items()):
            handler(ObjectEvent(key, None, obj))

    def get(self, key: NamespacedName) -> T | None:
        """The object, None when there is none."""
        return self._objects.get(key)

    def list(self) -> Sequence[T]:
        """Every object, sorted by key."""
        return [self._objects[key] for key in sorted(self._objects)]

    def by_index(self, index: str, value: str) -> Sequence[T]:
        """Objects with this index value, sorted by key. Raises KeyError for an unknown index."""
        return [self._objects[key] for key in sorted(self._indexes[index].get(value, ()))]

    def upsert(self, obj: T) -> None:
        """Store an object; an equal one changes nothing and fires nothing."""
        key = obj.metadata.key
        old = self._objects.get(key)
        if old == obj:
            return
        self._unindex(key, old)
        self._objects[key] = obj
        self._index(key, obj)
        self._fire(ObjectEvent(key, old, obj))

    def delete(self, key: NamespacedName) -> None:
        """Forget an object; an unknown key is ignored."""
        old = self._objects.pop(key, None)
        if old is None:
            return
        self._unindex(key, old)
        self._fire(ObjectEvent(key, old, None))

    def replace(self, objects: Iterable[T]) -> None:
        """Make the cache hold exactly these objects, firing only what changed."""
        fresh = {obj.metadata.key: obj for obj in objects}
        for key in [key for key in self._objects if key not in fresh]:
            self.delete(key)
        for obj in fresh.values():
            self.upsert(obj)

    def _index(self, key: NamespacedName, obj: T) -> None:
        for name, values_of in self._indexers.items():
            for value in values_of(obj):
                self._indexes[name].setdefault(value, set()).add(key)

    def _unindex(self, key: NamespacedName, obj: T | None) -> None:
        if obj is None:
            return
        for name, values_of in self._indexers.items():
            for value in values_of(obj):
                keys = self._indexes[name].get(value)
                if keys is not None:
                    keys.discard(key)
                    if not keys:
                        del self._indexes[name][value]

    def _fire(self, event: ObjectEvent[T]) -> None:
        for handler in self._handlers:
            handler(event)
