"""InferenceModels by model name: the oldest object owns the name.

The owner of a name is computed from all the objects that claim it, never from the order of
events: the oldest creation instant, then namespace/name.
Reference: GAIE v0.5.1 pkg/epp/datastore/datastore.go (ModelSetIfOlder, ModelResync), which
decides from one event at a time.
"""

from collections.abc import Iterable, Sequence

from epp.datastore.age import age_key
from epp_api.meta import NamespacedName
from epp_api.v1alpha2.inferencemodel_types import InferenceModel, InferenceModelSpec


class ModelStore:
    """Active models by model name."""

    def __init__(self) -> None:
        self._by_name: dict[str, InferenceModel] = {}
        self._names: dict[NamespacedName, set[str]] = {}

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
        return frozenset(self._names.get(key, ()))

    def assign(self, model_name: str, owner: InferenceModel | None) -> bool:
        """Make an object the owner of a name, or nobody.

        Returns:
            Whether requests can notice: status and labels of an owner may change without.
        """
        before = self._by_name.get(model_name)
        if before is not None:
            self._vacate(model_name, before.metadata.key)
        if owner is not None:
            self._by_name[model_name] = owner
            self._names.setdefault(owner.metadata.key, set()).add(model_name)
        return _what_requests_notice(before) != _what_requests_notice(owner)

    def clear(self) -> None:
        """Forget everything."""
        self._by_name.clear()
        self._names.clear()

    def _vacate(self, model_name: str, key: NamespacedName) -> None:
        del self._by_name[model_name]
        names = self._names[key]
        names.remove(model_name)
        if not names:
            del self._names[key]


def oldest(models: Iterable[InferenceModel]) -> InferenceModel | None:
    """The object that should own a name among these; None among none."""
    return min(models, key=lambda model: age_key(model.metadata), default=None)


def _what_requests_notice(
    model: InferenceModel | None,
) -> tuple[NamespacedName, str, InferenceModelSpec] | None:
    return None if model is None else (model.metadata.key, model.metadata.uid, model.spec)
