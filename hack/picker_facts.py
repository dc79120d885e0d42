"""What an endpoint picker does, from the command line of its container.

Only what others in a cluster must agree with: which pool it serves, what its ports speak, whom they
let in. The defaults are those of ``epp serve`` in a pod.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from manifest_objects import Field, KubeObject, Objects, PodTemplate, by_labels, by_selector

LIVENESS = "liveness"
"""The health service that does not fail while an endpoint picker only waits."""

METRICS_PATHS = ("/metrics",)
_FALSE = frozenset({"0", "f", "false", "n", "no", "off"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Picker:
    """A container that picks endpoints.

    Attributes:
        pods: The pods it runs in.
        container: Its manifest.
        flags: Values by name, without dashes and in lower case; ``true`` where none is given.
    """

    pods: PodTemplate
    container: Field
    flags: Mapping[str, str]

    @property
    def pool_name(self) -> str:
        """The pool that it serves."""
        return self.flags["poolname"]

    @property
    def serves_tls(self) -> bool:
        """Its gRPC port speaks TLS."""
        return self._is_on("secureserving")

    @property
    def is_self_signed(self) -> bool:
        """Nobody can verify the certificate of the gRPC port."""
        return not self.flags.get("certpath")

    @property
    def serves_metrics_with_tls(self) -> bool:
        """The metrics port speaks HTTPS."""
        return bool(self.flags.get("metricscertdir"))

    @property
    def asks_who_reads_metrics(self) -> bool:
        """The metrics port wants a token or a certificate."""
        return self._is_on("metricsendpointauth") or bool(self.flags.get("metricsclientcafile"))

    @property
    def metrics_port(self) -> int | str:
        """Port of its metrics."""
        text = self.flags.get("metricsport", "9090")
        return int(text) if text.isdecimal() else text

    @property
    def asks_kubernetes(self) -> bool:
        """It needs a ServiceAccount that may list and watch."""
        return not self.flags.keys() & {"manifests", "kubeconfig", "endpoint"}

    @property
    def elects_a_leader(self) -> bool:
        """One replica of several is ready."""
        return "haenableleaderelection" in self.flags and self._is_on("haenableleaderelection")

    def _is_on(self, flag: str) -> bool:
        return self.flags.get(flag, "true").lower() not in _FALSE


def pickers_of(pods: PodTemplate) -> list[Picker]:
    """The endpoint pickers among the containers of a pod."""
    found = []
    for container in pods.serving_containers():
        flags = dict(_flags([*container.get("command").texts(), *container.get("args").texts()]))
        if "poolname" in flags:
            found.append(Picker(pods=pods, container=container, flags=flags))
    return found


def _flags(words: list[str]) -> Iterator[tuple[str, str]]:
    for number, word in enumerate(words):
        name, equals, value = word.partition("=")
        if not name.startswith("-"):
            continue
        if not equals:
            following = words[number + 1 : number + 2]
            value = following[0] if following and not following[0].startswith("-") else "true"
        yield name.replace("-", "").lower(), value


@dataclass(frozen=True, slots=True, kw_only=True)
class PickerReference:
    """The Service that an InferencePool sends its gateway to, and its port."""

    name: str
    port: int


def picker_reference(pool: KubeObject) -> PickerReference | None:
    """Where the endpoint picker of a pool is asked; None when the pool does not say or it is no Service.

    Raises:
        MalformedError: The reference has no name or no port.
    """
    current, old = pool.spec.get("endpointPickerRef"), pool.spec.get("extensionRef")
    reference = current if current.present else old
    if not reference.present or reference.get("kind").text("Service") != "Service":
        return None
    if reference is current:
        port = reference.get("port", "number").number()
    else:
        port = reference.get("portNumber").number(9002)
    return PickerReference(name=reference.get("name").text(), port=port)


def pods_of_pool(objects: Objects, pool: KubeObject) -> list[PodTemplate]:
    """Model servers of a pool of either generation; an empty selector picks nothing."""
    selector = pool.spec.get("selector")
    if not selector.mapping():
        return []
    if selector.mapping().keys() <= {"matchLabels", "matchExpressions"}:
        return objects.pods(pool.namespace, by_selector(selector))
    return objects.pods(pool.namespace, by_labels(selector.labels()))


def pods_of_service(objects: Objects, service: KubeObject) -> list[PodTemplate]:
    """Pods of a Service; none for one that has no selector."""
    selector = service.spec.get("selector").labels()
    return objects.pods(service.namespace, by_labels(selector)) if selector else []


def pickers_of_pool(objects: Objects, pool: KubeObject) -> list[Picker]:
    """The endpoint pickers that the gateway of a pool reaches."""
    reference = picker_reference(pool)
    service = reference and objects.find("Service", reference.name, pool.namespace)
    if not service:
        return []
    return [
        picker
        for pods in pods_of_service(objects, service)
        for picker in pickers_of(pods)
        if picker.pool_name == pool.name
    ]
