"""The objects of a fake API server: versions, history, optimistic locks. No network here.

Every write gets the next resourceVersion and leaves an event; a write that changes nothing does
neither. Whoever watches reads the history from a version on. ``compact`` forgets the history, so
that older versions are gone.
"""

import copy
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import orjson

from epp.kube.resource import Resource
from epp.testing.fake_kube_selectors import Json, Matches

Key = tuple[Resource, str, str]
"""Kind, namespace and name."""


class StatusError(Exception):
    """A refusal: what the Status object of the answer says.

    Attributes:
        code: HTTP status.
        reason: E.g. ``AlreadyExists``.
        message: For humans.
    """

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message


class Stored(NamedTuple):
    """An object and its JSON, made once."""

    obj: Json
    json: bytes


class Change(NamedTuple):
    """A write: ``old`` is None for a creation; for a deletion ``is_delete``."""

    version: int
    key: Key
    old: Stored | None
    new: Stored
    is_delete: bool


class FakeObjects:
    """Objects of every kind, in one history.

    Args:
        on_change: Called after every write.
    """

    def __init__(self, on_change: Callable[[], None]) -> None:
        self.version = 1000
        self.oldest = 1000
        self._on_change = on_change
        self._objects: dict[Key, Stored] = {}
        self._history: list[Change] = []
        self._uids = itertools.count(1)

    def get(self, key: Key) -> Stored:
        """One object. Raises StatusError 404."""
        if key not in self._objects:
            resource, _, name = key
            raise StatusError(404, "NotFound", f'{resource.qualified} "{name}" not found')
        return self._objects[key]

    def select(self, resource: Resource, namespace: str, matches: Matches) -> Iterator[Stored]:
        """Objects of a kind, sorted by namespace and name; an empty namespace is all of them."""
        keys = sorted(
            (key for key in self._objects if key[0] == resource and namespace in {"", key[1]}),
            key=lambda key: key[1:],
        )
        return (stored for key in keys if matches((stored := self._objects[key]).obj))

    def create(self, resource: Resource, namespace: str, obj: Json) -> Stored:
        """Store a new object. Raises StatusError 409."""
        fresh = copy.deepcopy(obj)
        meta = fresh.setdefault("metadata", {})
        number = next(self._uids)
        if not meta.get("name") and meta.get("generateName"):
            meta["name"] = f"{meta['generateName']}{number:05x}"
        name = meta.get("name")
        if not isinstance(name, str) or not name:
            raise StatusError(422, "Invalid", "metadata.name: Required value")
        if resource.namespaced:
            meta["namespace"] = namespace
        key = (resource, namespace, name)
        if key in self._objects:
            raise StatusError(409, "AlreadyExists", f'{resource.qualified} "{name}" already exists')
        meta.setdefault("uid", f"00000000-0000-4000-8000-{number:012x}")
        meta.setdefault("creationTimestamp", "2026-01-01T00:00:00Z")
        meta.setdefault("generation", 1)
        fresh.setdefault("apiVersion", resource.api_version)
        fresh.setdefault("kind", resource.kind)
        return self._write(key, None, fresh)

    def update(self, key: Key, obj: Json) -> Stored:
        """Replace an object. Raises StatusError 404, or 409 when it was changed meanwhile."""
        old = self.get(key)
        fresh = copy.deepcopy(obj)
        meta, known = fresh.setdefault("metadata", {}), old.obj["metadata"]
        asked = meta.get("resourceVersion")
        if asked and asked != known["resourceVersion"]:
            message = f'Operation cannot be fulfilled on {key[0].qualified} "{key[2]}": the object has been modified'
            raise StatusError(409, "Conflict", message)
        for name in ("name", "namespace", "uid", "creationTimestamp", "generation"):
            if name in known:
                meta[name] = known[name]
        meta["resourceVersion"] = known["resourceVersion"]
        if fresh.get("spec") != old.obj.get("spec"):
            meta["generation"] = known["generation"] + 1
        return old if fresh == old.obj else self._write(key, old, fresh)

    def delete(self, key: Key) -> Stored:
        """Remove an object. Raises StatusError 404."""
        old = self.get(key)
        self.version += 1
        last = copy.deepcopy(old.obj)
        last["metadata"]["resourceVersion"] = str(self.version)
        gone = Stored(last, orjson.dumps(last))
        del self._objects[key]
        self._record(Change(self.version, key, old, gone, is_delete=True))
        return gone

    def since(self, version: int) -> Sequence[Change]:
        """Writes after a version. Raises StatusError 410 when they are forgotten."""
        if version < self.oldest:
            message = f"too old resource version: {version} ({self.oldest})"
            raise StatusError(410, "Expired", message)
        start = len(self._history)
        while start and self._history[start - 1].version > version:
            start -= 1
        return self._history[start:]

    def compact(self) -> None:
        """Forget every write up to now: every version but the current one is gone."""
        self._history.clear()
        self.oldest = self.version

    def advance(self) -> None:
        """Let the version grow as if something else had been written."""
        self.version += 1

    def _write(self, key: Key, old: Stored | None, obj: Json) -> Stored:
        self.version += 1
        obj["metadata"]["resourceVersion"] = str(self.version)
        new = Stored(obj, orjson.dumps(obj))
        self._objects[key] = new
        self._record(Change(self.version, key, old, new, is_delete=False))
        return new

    def _record(self, change: Change) -> None:
        self._history.append(change)
        self._on_change()


def merge_patch(target: Any, patch: Any) -> Any:
    """Apply a JSON merge patch (RFC 7396) to a copy."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    merged = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge_patch(merged.get(name), value)
    return merged
