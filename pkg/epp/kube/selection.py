"""Selection: which objects of one kind somebody wants to know about."""

from collections.abc import Mapping
from dataclasses import dataclass

from epp.kube.resource import Resource


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """A kind, a namespace and two selectors; what a list or a watch asks for.

    Attributes:
        resource: The kind.
        namespace: Empty means all of them.
        label_selector: As in the API, e.g. ``app=vllm,tier in (a,b)``; empty selects everything.
        field_selector: As in the API, e.g. ``metadata.name=pool``.
    """

    resource: Resource
    namespace: str = ""
    label_selector: str = ""
    field_selector: str = ""

    @property
    def path(self) -> str:
        """Path of the collection."""
        return self.resource.path(namespace=self.namespace)

    def query(self, **more: str) -> Mapping[str, str]:
        """Query parameters: the selectors, and more."""
        selectors = {"labelSelector": self.label_selector, "fieldSelector": self.field_selector}
        return {**{name: value for name, value in selectors.items() if value}, **more}

    def what(self, verb: str) -> str:
        """Verb, resource and namespace, for error texts."""
        where = f"in namespace {self.namespace}" if self.namespace else "in all namespaces"
        return f"{verb} {self.resource.qualified} {where}"
