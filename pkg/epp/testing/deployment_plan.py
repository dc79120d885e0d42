"""What the Deployment controller of the harness does next. Pure: objects in, a plan out.

Pods belong to their Deployment directly, there is no ReplicaSet between them; names, labels and
the numbers of a rolling update are Kubernetes' own.
Reference: kubernetes 1.34 pkg/controller/deployment (rolling.go, recreate.go, util).
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

HASH_LABEL = "pod-template-hash"

Object = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The next step.

    Attributes:
        create: How many pods of the current template to make.
        delete: Pods to delete.
    """

    create: int = 0
    delete: tuple[Object, ...] = ()


def template_hash(deployment: Object) -> str:
    """Ten letters and digits that change with the pod template."""
    text = json.dumps(deployment["spec"]["template"], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def new_pod(deployment: Object, suffix: str, *, node: str) -> dict[str, Any]:
    """A pod of the template, bound to a node.

    Args:
        deployment: As stored.
        suffix: End of its name.
        node: Its node.
    """
    template, metadata = deployment["spec"]["template"], deployment["metadata"]
    digest = template_hash(deployment)
    about = template.get("metadata") or {}
    owner = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "name": metadata["name"],
        "uid": metadata["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"{metadata['name']}-{digest}-{suffix}",
            "namespace": metadata["namespace"],
            "labels": {**(about.get("labels") or {}), HASH_LABEL: digest},
            "annotations": dict(about.get("annotations") or {}),
            "ownerReferences": [owner],
        },
        "spec": {**template["spec"], "nodeName": node},
    }


def owner_uid(pod: Object) -> str:
    """Uid of the Deployment that made a pod; empty when none did."""
    for owner in pod["metadata"].get("ownerReferences") or ():
        if owner.get("controller") and owner["kind"] == "Deployment":
            return str(owner["uid"])
    return ""


def is_ready(pod: Object) -> bool:
    """The pod's condition Ready is True."""
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def is_terminating(pod: Object) -> bool:
    """The pod is being deleted."""
    return bool(pod["metadata"].get("deletionTimestamp"))


def plan(deployment: Object, pods: Sequence[Object]) -> Plan:
    """Decide.

    Args:
        deployment: As stored.
        pods: All that it made and that are still there.
    """
    wanted = int(deployment["spec"]["replicas"])
    alive = [pod for pod in pods if not is_terminating(pod)]
    digest = template_hash(deployment)
    new = [pod for pod in alive if pod["metadata"]["labels"].get(HASH_LABEL) == digest]
    old = [pod for pod in alive if pod not in new]
    if len(new) > wanted:
        return Plan(delete=_first_to_go(new)[: len(new) - wanted])
    if deployment["spec"]["strategy"]["type"] == "Recreate":
        if old or (len(pods) > len(alive) and not new):
            return Plan(delete=tuple(old))
        return Plan(create=wanted - len(new))
    surge, unavailable = _limits(deployment, wanted)
    create = min(wanted - len(new), wanted + surge - len(alive))
    if create > 0:
        return Plan(create=create)
    return Plan(delete=_superseded(old, new, wanted - unavailable))


def status(deployment: Object, pods: Sequence[Object]) -> dict[str, Any]:
    """Status of a Deployment, its conditions without times."""
    wanted = int(deployment["spec"]["replicas"])
    alive = [pod for pod in pods if not is_terminating(pod)]
    digest = template_hash(deployment)
    updated = sum(pod["metadata"]["labels"].get(HASH_LABEL) == digest for pod in alive)
    ready = sum(map(is_ready, alive))
    _, unavailable = _limits(deployment, wanted)
    complete = updated == wanted == ready == len(alive)
    return {
        "observedGeneration": deployment["metadata"]["generation"],
        "replicas": len(alive),
        "updatedReplicas": updated,
        "readyReplicas": ready,
        "availableReplicas": ready,
        "unavailableReplicas": max(0, wanted - ready),
        "conditions": [
            _condition("Available", ready >= wanted - unavailable, "MinimumReplicas"),
            {
                "type": "Progressing",
                "status": "True",
                "reason": "NewReplicaSetAvailable" if complete else "ReplicaSetUpdated",
            },
        ],
    }


def _condition(kind: str, holds: bool, reason: str) -> dict[str, Any]:
    suffix = "Available" if holds else "Unavailable"
    return {"type": kind, "status": str(holds), "reason": f"{reason}{suffix}"}


def _limits(deployment: Object, wanted: int) -> tuple[int, int]:
    """How many pods above, and how many below the wanted number an update may go."""
    rolling = deployment["spec"]["strategy"].get("rollingUpdate") or {}
    surge = _number(rolling.get("maxSurge", "25%"), wanted, up=True)
    unavailable = _number(rolling.get("maxUnavailable", "25%"), wanted, up=False)
    return surge, unavailable if surge or unavailable else 1


def _number(value: int | str, wanted: int, *, up: bool) -> int:
    if isinstance(value, int):
        return value
    exact = int(value.removesuffix("%")) * wanted / 100
    return math.ceil(exact) if up else math.floor(exact)


def _first_to_go(pods: Sequence[Object]) -> tuple[Object, ...]:
    """Those that are not ready first, then the youngest."""
    youngest = sorted(pods, key=lambda pod: pod["metadata"]["creationTimestamp"], reverse=True)
    return tuple(sorted(youngest, key=is_ready))


def _superseded(old: Sequence[Object], new: Sequence[Object], least: int) -> tuple[Object, ...]:
    """Pods of old templates that may go while ``least`` stay ready: idle ones before serving ones."""
    idle = [pod for pod in old if not is_ready(pod)]
    serving = [pod for pod in old if is_ready(pod)]
    ready = sum(map(is_ready, new))
    gone = idle[: max(0, len(old) + ready - least)]
    spare = max(0, ready + len(serving) - least)
    return (*gone, *_first_to_go(serving)[:spare])
