"""The part of Pod that the EPP reads, and when a pod is ready."""

import msgspec

from epp_api.meta import ApiStruct, Condition, ObjectMeta


class PodStatus(ApiStruct, frozen=True, kw_only=True):
    """``status`` of a pod."""

    pod_ip: str = msgspec.field(default="", name="podIP")  # camel() would say podIp
    conditions: list[Condition] = []


class Pod(ApiStruct, frozen=True, kw_only=True):
    """A pod, as far as an endpoint picker needs it."""

    api_version: str = "v1"
    kind: str = "Pod"
    metadata: ObjectMeta = ObjectMeta()
    status: PodStatus = PodStatus()


def pod_is_ready(pod: Pod) -> bool:
    """Tell whether a pod may receive traffic.

    Ready means: not being deleted, and the first condition of type ``Ready`` is ``True``. Phase,
    container states and readiness gates do not count.
    Reference: GAIE v0.4.0 pkg/epp/util/pod/pod.go.
    """
    if pod.metadata.deletion_timestamp is not None:
        return False
    for condition in pod.status.conditions:
        if condition.type == "Ready":
            return condition.status == "True"
    return False
