"""What every object carries: names, labels, timestamps, conditions."""

from collections.abc import Mapping
from typing import NamedTuple

import msgspec


class NamespacedName(NamedTuple):
    """Key of an object within its kind."""

    namespace: str
    name: str

    def __str__(self) -> str:
        """Return ``namespace/name``, the form of logs and error texts."""
        return f"{self.namespace}/{self.name}"


class ApiStruct(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Base of all API types: immutable, camel-case on the wire, unknown fields ignored."""


class ObjectMeta(ApiStruct, frozen=True, kw_only=True):
    """The part of ``metadata`` that the EPP reads. Timestamps stay RFC 3339 strings."""

    name: str = ""
    namespace: str = "default"
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None

    @property
    def key(self) -> NamespacedName:
        """The object's key within its kind."""
        return NamespacedName(self.namespace, self.name)


class Condition(ApiStruct, frozen=True, kw_only=True):
    """One ``status.conditions`` entry."""

    type: str
    status: str
    reason: str = ""
    message: str = ""
    last_transition_time: str | None = None
    observed_generation: int | None = None


def labels_match(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """Tell whether labels satisfy an equality selector; an empty selector matches everything."""
    return all(labels.get(key) == value for key, value in selector.items())
