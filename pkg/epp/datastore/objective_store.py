"""InferenceObjectives of the pool by object name, as requests name them."""

from collections.abc import Sequence

from epp_api.meta import NamespacedName
from epp_api.v1alpha2.inferenceobjective_types import InferenceObjective


class ObjectiveStore:
    """Objectives by name. All are of one namespace, the pool's, so the name alone is the key."""

    def __init__(self) -> None:
        self._by_name: dict[str, InferenceObjective] = {}

    def __len__(self) -> int:
        return len(self._by_name)

    def get(self, name: str) -> InferenceObjective | None:
        """The objective of a name; exact, case-sensitive."""
        return self._by_name.get(name)

    def list(self) -> Sequence[InferenceObjective]:
        """Every objective, by name."""
        return [self._by_name[name] for name in sorted(self._by_name)]

    def set(self, objective: InferenceObjective) -> bool:
        """Store an objective; True when that changed something."""
        name = objective.metadata.name
        if self._by_name.get(name) == objective:
            return False
        self._by_name[name] = objective
        return True

    def delete(self, key: NamespacedName) -> bool:
        """Forget an objective; False when there was none of this key."""
        stored = self._by_name.get(key.name)
        if stored is None or stored.metadata.key != key:
            return False
        del self._by_name[key.name]
        return True

    def clear(self) -> None:
        """Forget everything."""
        self._by_name.clear()
