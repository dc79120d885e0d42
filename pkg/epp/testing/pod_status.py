"""Status of a pod from the states of its containers, as a kubelet writes it. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from epp.testing.pod_container import Container

NODE_ADDRESS = "127.0.0.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class PodFacts:
    """What is known of a pod.

    Attributes:
        address: Its own.
        began: When it was seen first.
        initialized: Init containers are done.
        containers: That run in it.
        init_containers: That ran before.
        problem: Why it cannot start; empty when nothing is wrong.
    """

    address: str
    began: str
    initialized: bool
    containers: Sequence[Container]
    init_containers: Sequence[Container]
    problem: str = ""


def pod_status(facts: PodFacts, before: Mapping[str, Any], *, now: str) -> dict[str, Any]:
    """Status to write.

    Args:
        facts: Of the pod.
        before: Status written last; times of conditions that did not change are kept.
        now: Time of those that did.
    """
    all_ready = facts.initialized and all(c.ready for c in facts.containers)
    ready = bool(facts.containers) and all_ready
    conditions = [
        ("PodScheduled", True),
        ("Initialized", facts.initialized),
        ("ContainersReady", ready),
        ("Ready", ready),
    ]
    known = {c["type"]: c for c in before.get("conditions") or ()}
    return {
        "phase": _phase(facts),
        "message": facts.problem,
        "hostIP": NODE_ADDRESS,
        "podIP": facts.address,
        "podIPs": [{"ip": facts.address}],
        "startTime": facts.began,
        "conditions": [_condition(kind, holds, known.get(kind), now) for kind, holds in conditions],
        "initContainerStatuses": [_container(c) for c in facts.init_containers],
        "containerStatuses": [_container(c) for c in facts.containers],
    }


def _phase(facts: PodFacts) -> str:
    """``Running`` from the first container on; only a pod that is stopped for good is finished."""
    states = [container.state for container in facts.containers]
    if not facts.initialized or not states:
        return "Pending"
    if all("terminated" in state for state in states):
        codes = [state["terminated"]["exitCode"] for state in states]
        return "Failed" if any(codes) else "Succeeded"
    return "Running"


def _condition(
    kind: str, holds: bool, before: Mapping[str, Any] | None, now: str
) -> dict[str, Any]:
    status = "True" if holds else "False"
    unchanged = before is not None and before["status"] == status
    since = before["lastTransitionTime"] if before is not None and unchanged else now
    return {"type": kind, "status": status, "lastTransitionTime": since}


def _container(container: Container) -> dict[str, Any]:
    return {
        "name": container.spec.name,
        "image": container.spec.image,
        "imageID": "",
        "ready": container.ready,
        "started": container.started,
        "restartCount": container.restarts,
        "state": container.state,
        "lastState": container.last_state,
    }
