"""Manifests as they come: read without a crash whatever their shape, and found by what refers to them.

``Field`` is a value with its place, so that what is missing or of another type than Kubernetes takes
is a ``MalformedError`` naming object and field. ``Objects`` owns the objects of one output and answers
what there is: by kind, by name, and the pods that a selector picks. Nothing here judges.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Manifest = dict[str, Any]
Labels = Mapping[str, str]

ALWAYS_THERE = frozenset(
    {("Namespace", name) for name in ("default", "kube-system", "kube-public", "kube-node-lease")}
    | {("ServiceAccount", "default"), ("ConfigMap", "kube-root-ca.crt")}
    | {("ClusterRole", name) for name in ("admin", "cluster-admin", "edit", "view")}
)
"""What every cluster or namespace has by itself; ClusterRoles ``system:*`` besides."""

_TEMPLATES: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "Pod": ((),),
    "CronJob": (("spec", "jobTemplate", "spec", "template"),),
    "LeaderWorkerSet": (
        ("spec", "leaderWorkerTemplate", "leaderTemplate"),
        ("spec", "leaderWorkerTemplate", "workerTemplate"),
    ),
} | dict.fromkeys(
    ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "ReplicationController", "Job"),
    (("spec", "template"),),
)

WORKLOAD_KINDS = tuple(_TEMPLATES)
"""Kinds whose pods are known from the manifest."""


class MalformedError(Exception):
    """A field that Kubernetes would not take; the text names object and field."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """A value of a manifest, which may be absent.

    Attributes:
        owner: ``Service inference/epp``.
        path: ``spec.ports[0].port``; empty for the whole object.
        value: What YAML gives; None when absent.
    """

    owner: str
    path: str
    value: object

    def get(self, *keys: str) -> "Field":
        """The field below, however deep; absent when one on the way is."""
        found = self
        for key in keys:
            inner = found.mapping().get(key)
            path = f"{found.path}.{key}" if found.path else key
            found = Field(owner=self.owner, path=path, value=inner)
        return found

    @property
    def present(self) -> bool:
        """There is such a field, and it is not null."""
        return self.value is not None

    def mapping(self) -> Mapping[str, Any]:
        """Its fields; none when it is absent.

        Raises:
            MalformedError: It is no mapping.
        """
        if self.value is None:
            return {}
        if not isinstance(self.value, dict):
            raise self.malformed("a mapping")
        return self.value

    def entries(self) -> list["Field"]:
        """Its entries; none when it is absent.

        Raises:
            MalformedError: It is no list.
        """
        if self.value is None:
            return []
        if not isinstance(self.value, list):
            raise self.malformed("a list")
        return [
            Field(owner=self.owner, path=f"{self.path}[{number}]", value=entry)
            for number, entry in enumerate(self.value)
        ]

    def text(self, default: str | None = None) -> str:
        """A string; the default, if there is one, when it is absent.

        Raises:
            MalformedError: It is missing, or no string.
        """
        if self.value is None and default is not None:
            return default
        if not isinstance(self.value, str):
            raise self.malformed("a string")
        return self.value

    def texts(self) -> list[str]:
        """The entries of a list of strings."""
        return [entry.text() for entry in self.entries()]

    def number(self, default: int | None = None) -> int:
        """A whole number; the default, if there is one, when it is absent.

        Raises:
            MalformedError: It is missing, or no whole number.
        """
        if self.value is None and default is not None:
            return default
        if not isinstance(self.value, int) or isinstance(self.value, bool):
            raise self.malformed("a whole number")
        return self.value

    def port(self) -> int | str:
        """A port by number or by name."""
        return self.value if isinstance(self.value, str) else self.number()

    def labels(self) -> dict[str, str]:
        """A mapping of strings."""
        return {key: self.get(key).text() for key in self.mapping()}

    def malformed(self, wanted: str) -> MalformedError:
        """The error of a field that should be something else."""
        what = "is missing" if self.value is None else f"is not {wanted}"
        return MalformedError(f"{self.owner}: {self.path} {what}")


@dataclass(frozen=True, slots=True, kw_only=True)
class KubeObject:
    """One object; the namespace is empty when it names none."""

    kind: str
    group: str
    name: str
    namespace: str
    root: Field

    @property
    def label(self) -> str:
        """``Service inference/epp``."""
        return self.root.owner

    @property
    def spec(self) -> Field:
        """Its ``spec``."""
        return self.root.get("spec")


@dataclass(frozen=True, slots=True, kw_only=True)
class PodTemplate:
    """The pods of a workload, or a pod."""

    workload: KubeObject
    labels: Labels
    spec: Field

    def containers(self) -> list[Field]:
        """Containers, with those that run before or beside them."""
        return [*self.spec.get("initContainers").entries(), *self.serving_containers()]

    def serving_containers(self) -> list[Field]:
        """Containers that may be asked something: those that stay."""
        sidecars = [
            container
            for container in self.spec.get("initContainers").entries()
            if container.get("restartPolicy").value == "Always"
        ]
        return [*sidecars, *self.spec.get("containers").entries()]

    def port_number(self, target: int | str) -> int | None:
        """The container port that a Service's target means; None when no container declares it."""
        for container in self.serving_containers():
            for port in container.get("ports").entries():
                number = port.get("containerPort").number()
                if target in {number, port.get("name").text("")}:
                    return number
        return None

    def lacks_port(self, target: int | str) -> bool:
        """No container declares that port, though some are declared or it is asked by name."""
        if self.port_number(target) is not None:
            return False
        declared = [c for c in self.serving_containers() if c.get("ports").entries()]
        return bool(declared) or isinstance(target, str)


class Objects:
    """The objects of one output.

    Args:
        manifests: Every document; an empty one counts for nothing, a List as its items.
        external: Kind and name of what may be referred to without being there: in the namespace of
            whoever refers to it, or, as ``namespace/name``, in that one.
    """

    def __init__(
        self, manifests: Collection[object], external: Collection[tuple[str, str]] = ()
    ) -> None:
        self.all: list[KubeObject] = []
        self.malformed: list[str] = []
        self._external = frozenset(external)
        for number, manifest in enumerate(manifests, start=1):
            if manifest is not None:
                self._add(f"document {number}", manifest)

    def _add(self, where: str, manifest: object) -> None:
        try:
            if isinstance(manifest, dict) and _is_list(manifest):
                for item in Field(owner=where, path="items", value=manifest["items"]).entries():
                    self._add(f"{where}, {item.path}", item.value)
            else:
                self.all.append(_identified(where, manifest))
        except MalformedError as error:
            self.malformed.append(str(error))

    def of_kind(self, *kinds: str) -> list[KubeObject]:
        """Every object of these kinds."""
        return [found for found in self.all if found.kind in kinds]

    def find(self, kind: str, name: str, namespace: str) -> KubeObject | None:
        """The object of that name, if there is one."""
        for found in self.of_kind(kind):
            if (found.name, found.namespace) == (name, namespace):
                return found
        return None

    def missing(self, referrer: KubeObject, kind: str, name: str, namespace: str) -> Iterator[str]:
        """A problem when there is neither such an object nor an external one."""
        if self.find(kind, name, namespace) is None and not self.is_external(
            referrer, kind, name, namespace
        ):
            where = f"{namespace}/{name}" if namespace else name
            yield f"{referrer.label}: there is no {kind} {where}"

    def is_external(self, referrer: KubeObject, kind: str, name: str, namespace: str) -> bool:
        """It is known to be there without being in the output."""
        near = namespace in {"", referrer.namespace} and (kind, name) in self._external
        return (
            near
            or (kind, f"{namespace}/{name}") in self._external
            or (kind, name) in ALWAYS_THERE
            or (kind == "ClusterRole" and name.startswith("system:"))
        )

    def templates(self, *workloads: KubeObject) -> list[PodTemplate]:
        """Pods of these workloads; of all of them when none is given."""
        return [
            PodTemplate(
                workload=workload,
                labels=workload.root.get(*path, "metadata", "labels").labels(),
                spec=workload.root.get(*path, "spec"),
            )
            for workload in workloads or self.of_kind(*WORKLOAD_KINDS)
            for path in _TEMPLATES[workload.kind]
            if workload.root.get(*path).present
        ]

    def pods(self, namespace: str, is_picked: Callable[[Labels], bool]) -> list[PodTemplate]:
        """Pods of a namespace whose labels are picked."""
        return [
            template
            for template in self.templates()
            if template.workload.namespace == namespace and is_picked(template.labels)
        ]


def _is_list(manifest: Mapping[str, Any]) -> bool:
    """``kind: List``, or the list of one kind that an API server gives."""
    return str(manifest.get("kind")).endswith("List") and "items" in manifest


def _identified(where: str, manifest: object) -> KubeObject:
    document = Field(owner=where, path="", value=manifest)
    if not isinstance(manifest, dict):
        raise MalformedError(f"{where}: is no Kubernetes object")
    kind = document.get("kind").text()
    api_version = document.get("apiVersion").text()
    metadata = document.get("metadata")
    name = metadata.get("name").text(metadata.get("generateName").text(""))
    if not name:
        raise metadata.get("name").malformed("a name")
    namespace = metadata.get("namespace").text("")
    label = f"{kind} {namespace}/{name}" if namespace else f"{kind} {name}"
    return KubeObject(
        kind=kind,
        group=api_version.rpartition("/")[0],
        name=name,
        namespace=namespace,
        root=Field(owner=label, path="", value=manifest),
    )


def by_labels(wanted: Labels) -> Callable[[Labels], bool]:
    """A selector of a Service, or of an InferencePool v1alpha2."""
    return lambda labels: wanted.items() <= labels.items()


def by_selector(selector: Field) -> Callable[[Labels], bool]:
    """A label selector: every one of ``matchLabels`` and of ``matchExpressions``; an empty one picks all."""
    wanted = selector.get("matchLabels").labels()
    expressions: Sequence[tuple[str, str, list[str]]] = [
        (
            expression.get("key").text(),
            expression.get("operator").text(),
            expression.get("values").texts(),
        )
        for expression in selector.get("matchExpressions").entries()
    ]
    return lambda labels: (
        wanted.items() <= labels.items()
        and all(_holds(expression, labels) for expression in expressions)
    )


def _holds(expression: tuple[str, str, list[str]], labels: Labels) -> bool:
    key, operator, values = expression
    match operator:
        case "In":
            return labels.get(key) in values
        case "NotIn":
            return labels.get(key) not in values
        case "Exists":
            return key in labels
        case _:
            return key not in labels
