"""Manifests of a pool and what hangs on it, for tests against an API server.

Everything is defaulted that a test does not mean: ``pod("a")`` is a ready pod of ``pool()``.
``builders`` makes the same objects as the reconcilers see them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from epp.testing.api_admin import identity

POOL_NAME = "pool"
SELECTOR: Mapping[str, str] = {"app": "x"}

POOLS = "inference.networking.k8s.io/v1"
LEGACY = "inference.networking.x-k8s.io/v1alpha2"
"""Of the older pool, of InferenceModel, and of the older kinds of objective and rewrite."""

CURRENT = "llm-d.ai/v1alpha2"

NODE = "node"
"""A pod on a node is deleted gracefully; no node of this name exists, and nobody minds."""

HOLD = "example.com/hold"
"""A finalizer: its object stays, marked as being deleted, until somebody takes it off."""

Manifest = dict[str, Any]


def pool(
    name: str = POOL_NAME,
    *,
    selector: Mapping[str, str] = SELECTOR,
    ports: Sequence[int] = (8000,),
    finalizers: Sequence[str] = (),
) -> Manifest:
    """An InferencePool of v1."""
    spec = {
        "selector": {"matchLabels": dict(selector)},
        "targetPorts": [{"number": number} for number in ports],
        "endpointPickerRef": {"name": "epp", "port": {"number": 9002}},
    }
    return _object(POOLS, "InferencePool", name, spec, finalizers=finalizers)


def old_pool(
    name: str = POOL_NAME,
    *,
    selector: Mapping[str, str] = SELECTOR,
    port: int = 8000,
    finalizers: Sequence[str] = (),
) -> Manifest:
    """An InferencePool of v1alpha2."""
    spec = {
        "selector": dict(selector),
        "targetPortNumber": port,
        "extensionRef": {"name": "epp"},
    }
    return _object(LEGACY, "InferencePool", name, spec, finalizers=finalizers)


def model(
    name: str,
    model_name: str = "food",
    *,
    pool: str = POOL_NAME,
    criticality: str | None = None,
    targets: Mapping[str, int | None] | None = None,
    finalizers: Sequence[str] = (),
) -> Manifest:
    """An InferenceModel; ``targets`` is the weight by target, None without one."""
    spec: Manifest = {"modelName": model_name, "poolRef": {"name": pool}}
    if criticality is not None:
        spec["criticality"] = criticality
    if targets:
        spec["targetModels"] = [_target("name", *target) for target in targets.items()]
    return _object(LEGACY, "InferenceModel", name, spec, finalizers=finalizers)


def objective(
    name: str,
    priority: int | None = None,
    *,
    api_version: str = CURRENT,
    pool: str = POOL_NAME,
    pool_group: str = "",
    finalizers: Sequence[str] = (),
) -> Manifest:
    """An InferenceObjective."""
    spec: Manifest = {"poolRef": _pool_ref(pool, pool_group)}
    if priority is not None:
        spec["priority"] = priority
    return _object(api_version, "InferenceObjective", name, spec, finalizers=finalizers)


def rewrite(
    name: str,
    *rules: Mapping[str, Any],
    api_version: str = CURRENT,
    pool: str = POOL_NAME,
    pool_group: str = "",
    finalizers: Sequence[str] = (),
) -> Manifest:
    """An InferenceModelRewrite; its rules from ``rule``."""
    spec = {"poolRef": _pool_ref(pool, pool_group), "rules": [dict(rule) for rule in rules]}
    return _object(api_version, "InferenceModelRewrite", name, spec, finalizers=finalizers)


def rule(
    targets: Mapping[str, int | None] | str, *, match: Sequence[str] = (), field: str = "targets"
) -> Manifest:
    """A rule of a rewrite: for the models of ``match``, or for every one without any.

    Args:
        targets: Weight by target, or the only target.
        match: Model names.
        field: What the targets are called; ``split`` in older manifests.
    """
    weighted = {targets: None} if isinstance(targets, str) else targets
    made: Manifest = {field: [_target("modelRewrite", *target) for target in weighted.items()]}
    if match:
        made["matches"] = [{"model": {"value": value}} for value in match]
    return made


@dataclass(frozen=True, slots=True, kw_only=True)
class PodState:
    """A pod as a kubelet reports it; make it with ``pod``.

    Attributes:
        name: Its name.
        ip: Its address; empty before it has one.
        labels: Its labels.
        annotations: Its annotations.
        ready: Status of the condition Ready; None for a pod without that condition.
        finalizers: Keep it from going when it is deleted.
    """

    name: str
    ip: str = "10.0.0.1"
    labels: Mapping[str, str] = field(default_factory=lambda: dict(SELECTOR))
    annotations: Mapping[str, str] = field(default_factory=dict)
    ready: bool | None = True
    finalizers: Sequence[str] = ()

    @property
    def manifest(self) -> Manifest:
        """What a person or a Deployment creates."""
        spec = {"nodeName": NODE, "containers": [{"name": "server", "image": "example/server"}]}
        made = _object("v1", "Pod", self.name, spec, finalizers=self.finalizers)
        made["metadata"]["labels"] = dict(self.labels)
        if self.annotations:
            made["metadata"]["annotations"] = dict(self.annotations)
        return made

    @property
    def status(self) -> Manifest:
        """What a kubelet reports."""
        reported: Manifest = {"phase": "Running", "conditions": []}
        if self.ip:
            reported |= {"podIP": self.ip, "podIPs": [{"ip": self.ip}]}
        if self.ready is not None:
            status = "True" if self.ready else "False"
            reported["conditions"] = [{"type": "Ready", "status": status}]
        return reported


def pod(name: str = "pod-0", ip: str = "10.0.0.1", **more: Any) -> PodState:
    """A pod, ready and selected by ``pool()`` unless ``more`` says otherwise."""
    return PodState(name=name, ip=ip, **more)


def _target(key: str, name: str, weight: int | None) -> Manifest:
    return {key: name} if weight is None else {key: name, "weight": weight}


def _pool_ref(name: str, group: str) -> Manifest:
    return {"name": name, "group": group} if group else {"name": name}


def _object(
    api_version: str, kind: str, name: str, spec: Manifest, *, finalizers: Sequence[str]
) -> Manifest:
    made = {**identity(api_version, kind, name), "spec": spec}
    if finalizers:
        made["metadata"]["finalizers"] = list(finalizers)
    return made
