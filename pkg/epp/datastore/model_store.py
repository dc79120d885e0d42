"""InferenceModels by model name: the oldest object owns the name.

The owner of a name is computed from all the objects that claim it, never from the order of
events: the oldest creation instant, then namespace/name.
Reference: GAIE v0.5.1 pkg/epp/datastore/datastore.go (ModelSetIfOlder, ModelResync), which
decides from one event at a time.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from epp_api.meta import NamespacedName, ObjectMeta
from epp_api.v1alpha2.inferencemodel_types import InferenceModel

_NO_TIME = datetime.max.replace(tzinfo=UTC)


class ModelStore:
    """Active models by model name."""

    def __init__(self) -> None:
        self._by_name: dict[str, InferenceModel] = {}

    def __len__(self) -> int:
        return len(self._by_name)

    def get(self, model_name: str) -> InferenceModel | None:
        """The object that owns a name; exact, case-sensitive."""
        return self._by_name.get(model_name)

    def list(self) -> Sequence[InferenceModel]:
        """Active objects, by model name."""
        return [self._by_name[name] for name in sorted(self._by_name)]

    def names_owned_by(self, key: NamespacedName) -> frozenset[str]:
        """Model names that an object owns: one, or none."""
        return frozenset(n for n, model in self._by_name.items() if model.metadata.key == key)

    def assign(self, model_name: str, owner: InferenceModel | None) -> bool:
        """Make an object the owner of a name, or nobody; True when that changed something."""
        if self._by_name.get(model_name) == owner:
            return False
        if owner is None:
            del self._by_name[model_name]
        else:
            self._by_name[model_name] = owner
        return True

    def clear(self) -> None:
        """Forget everything."""
        self._by_name.clear()


def oldest(models: Iterable[InferenceModel]) -> InferenceModel | None:
    """The object that should own a name among these; None among none."""
    return min(models, key=lambda model: age_key(model.metadata), default=None)


def age_key(metadata: ObjectMeta) -> tuple[datetime, NamespacedName]:
    """Sort key: creation instant, then namespace/name. No timestamp sorts last."""
    return _instant(metadata.creation_timestamp), metadata.key


def _instant(timestamp: str | None) -> datetime:
    if timestamp is None:
        return _NO_TIME
    try:
        parsed = datetime.fromisoformat(timestamp)
    except ValueError:
        return _NO_TIME
    return parsed if parsed.tzinfo is not None else parsed.replace(tzinfo=UTC)
