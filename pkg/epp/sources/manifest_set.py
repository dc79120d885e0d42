"""ManifestSet: what a directory's files declare, with the last good state of every object.

Pure: file contents in, objects and problems out; the clock is an argument. A file that cannot be
read as documents keeps everything it declared before; a document that is not valid keeps its
object's last good version; a document that is gone takes its object along. Of two files that
declare one object the first by path wins.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from epp.logs import get_logger
from epp.sources.documents import DocumentError, load_documents
from epp.sources.kinds import TYPES, TypeId
from epp.sources.problems import ManifestProblem
from epp.sources.validation import Manifest, ManifestValidator
from epp_api.meta import NamespacedName

log = get_logger(__name__)

ObjectId = tuple[TypeId, NamespacedName]


@dataclass(slots=True)
class _File:
    objects: dict[ObjectId, Manifest] = field(default_factory=dict)
    problems: list[ManifestProblem] = field(default_factory=list)
    ignored: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Change:
    """The outcome of a pass.

    Attributes:
        objects: Every object there is, typed, by id.
        replaced: Ids whose immutable fields changed: delete and create.
        problems: Everything that is wrong now.
    """

    objects: Mapping[ObjectId, Any]
    replaced: frozenset[ObjectId]
    problems: tuple[ManifestProblem, ...]


class ManifestSet:
    """State of a directory.

    Args:
        checker: Validates documents.
    """

    def __init__(self, checker: ManifestValidator) -> None:
        self._checker = checker
        self._files: dict[str, _File] = {}
        self._current: dict[ObjectId, Manifest] = {}
        self._first_seen: dict[ObjectId, str] = {}

    def put_file(self, name: str, data: bytes) -> None:
        """Take over a file's contents."""
        previous = self._files.get(name, _File())
        try:
            documents = load_documents(data, is_json=name.endswith(".json"))
        except DocumentError as exc:
            self._files[name] = _File(
                previous.objects, [ManifestProblem(message=str(exc), file=name)], previous.ignored
            )
            return
        fresh = _File()
        kept: dict[ObjectId, Manifest] = {}
        ignored = set()
        for position, document in enumerate(documents, 1):
            if not self._checker.is_ours(document):
                ignored.add(str(document.get("kind")))
                continue
            if not self._take(fresh, document, name, position):
                kept |= self._last_good(previous, document)
        fresh.objects = {**kept, **fresh.objects}
        fresh.ignored = frozenset(ignored)
        if fresh.ignored - previous.ignored:
            log.info("other kinds are ignored", file=name, kinds=sorted(fresh.ignored))
        self._files[name] = fresh

    def unreadable(self, name: str, reason: str) -> None:
        """A file that cannot be read keeps what it declared."""
        previous = self._files.get(name, _File())
        problem = ManifestProblem(message=reason, file=name)
        self._files[name] = _File(previous.objects, [problem], previous.ignored)

    def drop_file(self, name: str) -> None:
        """A file that is gone takes its objects along."""
        self._files.pop(name, None)

    def resolve(self, now: str) -> Change:
        """Merge the files.

        Args:
            now: RFC 3339 time, the first-seen time of objects that are new and name none.
        """
        merged: dict[ObjectId, Manifest] = {}
        owner: dict[ObjectId, str] = {}
        problems = []
        for name in sorted(self._files):
            problems += self._files[name].problems
            for object_id, manifest in self._files[name].objects.items():
                if object_id in merged:
                    problems.append(_declared_twice(object_id, name, owner[object_id]))
                else:
                    merged[object_id], owner[object_id] = manifest, name
        replaced = self._replaced(merged)
        for gone in set(self._first_seen) - set(merged) | replaced:
            self._first_seen.pop(gone, None)
        self._current = merged
        objects = {object_id: self._dated(object_id, m, now) for object_id, m in merged.items()}
        return Change(objects, replaced, tuple(problems))

    def _take(self, fresh: _File, document: Any, name: str, position: int) -> bool:
        """Take over a document; False when it is not valid."""
        outcome = self._checker.validate(document)
        if isinstance(outcome, Manifest):
            object_id = (outcome.type_id, outcome.key)
            if object_id in fresh.objects:
                fresh.problems.append(_declared_twice(object_id, name, name))
            else:
                fresh.objects[object_id] = outcome
            return True
        placed = [replace(problem, file=name, document=position) for problem in outcome]
        fresh.problems.extend(placed)
        return False

    def _last_good(self, previous: _File, document: Any) -> dict[ObjectId, Manifest]:
        """What an invalid document may have been before: its object, or as little as can be told."""
        identity = self._checker.identity(document)
        if identity is None:  # without a name it may have been any object of the file
            return previous.objects
        type_id, key = identity
        exact = type_id in TYPES  # a mistyped kind leaves the name to go by
        return {
            object_id: manifest
            for object_id, manifest in previous.objects.items()
            if object_id[1] == key and (not exact or object_id[0] == type_id)
        }

    def _replaced(self, merged: Mapping[ObjectId, Manifest]) -> frozenset[ObjectId]:
        found = set()
        for object_id, manifest in merged.items():
            old = self._current.get(object_id)
            if old is not None and old is not manifest:
                fields = self._checker.refused_changes(manifest, old)
                if fields:
                    log.info(
                        "immutable field changed, object replaced",
                        object=str(object_id[1]),
                        field=fields[0],
                    )
                    found.add(object_id)
        return frozenset(found)

    def _dated(self, object_id: ObjectId, manifest: Manifest, now: str) -> Any:
        obj = manifest.obj
        if obj.metadata.creation_timestamp is not None:
            return obj
        seen = self._first_seen.setdefault(object_id, now)
        metadata = msgspec.structs.replace(obj.metadata, creation_timestamp=seen)
        return msgspec.structs.replace(obj, metadata=metadata)


def _declared_twice(object_id: ObjectId, name: str, first: str) -> ManifestProblem:
    (_, kind), key = object_id
    where = "earlier in this file" if name == first else f"in {first}"
    return ManifestProblem(
        message=f"also declared {where}, which counts", file=name, object=f"{kind} {key}"
    )
