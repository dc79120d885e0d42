"""Builders: objects and tables for tests, with everything defaulted that a test does not mean.

A scheduling test reads as the pool it is about::

    table = make_table([P(3, 0.2), P(0, 0.9, active={"sql-lora"}), P(5, 0.1, fresh=False)])

Rows keep the order of the list as long as the pods are not named.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from epp.backend.endpoint import Endpoint
from epp.backend.endpoint_rows import EndpointRows
from epp.backend.endpoint_table import EndpointTable
from epp.backend.metrics_state import MetricsState
from epp_api.core_v1 import Pod, PodStatus
from epp_api.meta import Condition, ObjectMeta
from epp_api.v1 import inferencepool_types as pool_v1
from epp_api.v1alpha2 import inferencemodel_types as model_v1alpha2
from epp_api.v1alpha2 import inferencemodelrewrite_types as rewrite_v1alpha2
from epp_api.v1alpha2 import inferenceobjective_types as objective_v1alpha2
from epp_api.v1alpha2 import inferencepool_types as pool_v1alpha2
from epp_api.v1alpha2.inferencemodel_types import Criticality, InferenceModel
from epp_api.v1alpha2.inferencemodelrewrite_types import (
    InferenceModelRewrite,
    InferenceModelRewriteRule,
)
from epp_api.v1alpha2.inferenceobjective_types import InferenceObjective
from epp_api.v1alpha2.shared_types import API_VERSION, PoolObjectReference

NAMESPACE = "default"
POOL_NAME = "pool"
SELECTOR: Mapping[str, str] = {"app": "x"}
"""Selector of a built pool, and labels of a built pod."""

TABLE_NOW = 1000.0
"""Monotonic seconds at which a built table was taken."""

DELETED_AT = "2025-03-01T12:00:00Z"


def make_pod(
    name: str = "pod-0",
    *,
    namespace: str = NAMESPACE,
    labels: Mapping[str, str] = SELECTOR,
    ip: str = "10.0.0.1",
    ready: bool | None = True,
    deleting: bool = False,
    annotations: Mapping[str, str] | None = None,
) -> Pod:
    """A pod, by default ready and selected by ``make_pool``.

    Args:
        name: Its name.
        namespace: Its namespace.
        labels: Its labels.
        ip: Its address; empty for a pod that has none yet.
        ready: Status of the condition Ready; None for a pod without that condition.
        deleting: It has a deletion timestamp.
        annotations: Its annotations.
    """
    status = "True" if ready else "False"
    conditions = [] if ready is None else [Condition(type="Ready", status=status)]
    return Pod(
        metadata=ObjectMeta(
            name=name,
            namespace=namespace,
            labels=dict(labels),
            annotations=dict(annotations or {}),
            deletion_timestamp=DELETED_AT if deleting else None,
        ),
        status=PodStatus(pod_ip=ip, conditions=conditions),
    )


def make_pool(
    name: str = POOL_NAME,
    *,
    namespace: str = NAMESPACE,
    selector: Mapping[str, str] = SELECTOR,
    ports: Sequence[int] = (8000,),
    app_protocol: str = "http",
    failure_mode: str | None = None,
    deleting: bool = False,
) -> pool_v1.InferencePool:
    """A v1 pool; it names an endpoint picker if a failure mode is given."""
    picker = None
    if failure_mode is not None:
        port = pool_v1.Port(number=9002)
        picker = pool_v1.EndpointPickerRef(name="epp", port=port, failure_mode=failure_mode)
    return pool_v1.InferencePool(
        metadata=_pool_meta(name, namespace, deleting=deleting),
        spec=pool_v1.InferencePoolSpec(
            selector=pool_v1.LabelSelector(match_labels=dict(selector)),
            target_ports=[pool_v1.Port(number=port) for port in ports],
            app_protocol=app_protocol,
            endpoint_picker_ref=picker,
        ),
    )


def make_old_pool(
    name: str = POOL_NAME,
    *,
    namespace: str = NAMESPACE,
    selector: Mapping[str, str] = SELECTOR,
    port: int = 8000,
    failure_mode: str | None = None,
    deleting: bool = False,
) -> pool_v1alpha2.InferencePool:
    """A v1alpha2 pool; it names an endpoint picker if a failure mode is given."""
    extension = None
    if failure_mode is not None:
        extension = pool_v1alpha2.Extension(name="epp", failure_mode=failure_mode)
    return pool_v1alpha2.InferencePool(
        metadata=_pool_meta(name, namespace, deleting=deleting),
        spec=pool_v1alpha2.InferencePoolSpec(
            selector=dict(selector), target_port_number=port, extension_ref=extension
        ),
    )


def make_model(
    name: str = "model",
    *,
    namespace: str = NAMESPACE,
    model_name: str = "food",
    pool: str = POOL_NAME,
    created: str | int | None = 1000,
    criticality: Criticality | None = None,
    targets: Mapping[str, int | None] | None = None,
    deleting: bool = False,
) -> InferenceModel:
    """An InferenceModel.

    Args:
        name: Name of the object.
        namespace: Its namespace.
        model_name: Name that clients use.
        pool: Name of the pool it refers to.
        created: RFC 3339 text, or seconds after midnight of some day (below 86,400).
        criticality: As declared.
        targets: Weight by target model.
        deleting: It has a deletion timestamp.
    """
    return InferenceModel(
        metadata=ObjectMeta(
            name=name,
            namespace=namespace,
            creation_timestamp=_timestamp(created),
            deletion_timestamp=DELETED_AT if deleting else None,
        ),
        spec=model_v1alpha2.InferenceModelSpec(
            model_name=model_name,
            criticality=criticality,
            target_models=[
                model_v1alpha2.TargetModel(name=target, weight=weight)
                for target, weight in (targets or {}).items()
            ],
            pool_ref=model_v1alpha2.PoolObjectReference(name=pool),
        ),
    )


def make_objective(
    name: str = "objective",
    *,
    namespace: str = NAMESPACE,
    priority: int | None = 1,
    pool: str | None = POOL_NAME,
    pool_group: str = pool_v1.GROUP,
    api_version: str = API_VERSION,
    deleting: bool = False,
) -> InferenceObjective:
    """An InferenceObjective.

    Args:
        name: Its name, as requests name it.
        namespace: Its namespace.
        priority: As declared.
        pool: Name of the pool it refers to; None without a reference.
        pool_group: API group of that pool.
        api_version: Its own API group and version.
        deleting: It has a deletion timestamp.
    """
    return InferenceObjective(
        api_version=api_version,
        metadata=ObjectMeta(
            name=name,
            namespace=namespace,
            deletion_timestamp=DELETED_AT if deleting else None,
        ),
        spec=objective_v1alpha2.InferenceObjectiveSpec(
            priority=priority, pool_ref=_pool_reference(pool, pool_group)
        ),
    )


def make_rule(
    targets: Mapping[str, int | None] | str = "target", *, match: Collection[str] = ()
) -> InferenceModelRewriteRule:
    """A rule of an InferenceModelRewrite, by default for every request.

    Args:
        targets: Weight by target model, or the only target.
        match: Model names, any of which it matches exactly.
    """
    weighted = {targets: None} if isinstance(targets, str) else targets
    return InferenceModelRewriteRule(
        matches=[
            rewrite_v1alpha2.Match(model=rewrite_v1alpha2.ModelMatch(value=name)) for name in match
        ],
        targets=[
            rewrite_v1alpha2.TargetModel(model_rewrite=target, weight=weight)
            for target, weight in weighted.items()
        ],
    )


def make_rewrite(
    name: str = "rewrite",
    *rules: InferenceModelRewriteRule,
    namespace: str = NAMESPACE,
    pool: str | None = POOL_NAME,
    pool_group: str = pool_v1.GROUP,
    api_version: str = API_VERSION,
    created: str | int | None = 1000,
    deleting: bool = False,
) -> InferenceModelRewrite:
    """An InferenceModelRewrite.

    Args:
        name: Name of the object.
        *rules: Its rules in order.
        namespace: Its namespace.
        pool: Name of the pool it refers to; None without a reference.
        pool_group: API group of that pool.
        api_version: Its own API group and version.
        created: RFC 3339 text, or seconds after midnight of some day (below 86,400).
        deleting: It has a deletion timestamp.
    """
    return InferenceModelRewrite(
        api_version=api_version,
        metadata=ObjectMeta(
            name=name,
            namespace=namespace,
            creation_timestamp=_timestamp(created),
            deletion_timestamp=DELETED_AT if deleting else None,
        ),
        spec=rewrite_v1alpha2.InferenceModelRewriteSpec(
            pool_ref=_pool_reference(pool, pool_group), rules=list(rules)
        ),
    )


def make_endpoint(
    pod_name: str = "pod-0",
    *,
    namespace: str = NAMESPACE,
    rank: int = 0,
    address: str = "10.0.0.1",
    port: int = 8000,
    labels: Mapping[str, str] = SELECTOR,
) -> Endpoint:
    """One port of one pod."""
    return Endpoint(
        namespace=namespace,
        pod_name=pod_name,
        rank=rank,
        address=address,
        port=port,
        labels=dict(labels),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PodLoad:
    """One row of ``make_table``; build it with ``P``."""

    state: MetricsState
    name: str | None
    fresh: bool
    known: bool
    failing: bool
    in_flight: int
    labels: Mapping[str, str]


def P(  # noqa: N802 - a word of a small language: P(3, 0.2) is a pod
    waiting: int = 0,
    kv: float = 0.0,
    *,
    running: int = 0,
    active: Collection[str] = (),
    waiting_adapters: Collection[str] = (),
    max_adapters: int = 0,
    in_flight: int = 0,
    name: str | None = None,
    fresh: bool = True,
    known: bool = True,
    failing: bool = False,
    labels: Mapping[str, str] = SELECTOR,
) -> PodLoad:
    """A pod by its load.

    Args:
        waiting: Queued requests.
        kv: Used share of the KV cache, 0 to 1.
        running: Running requests.
        active: LoRA adapters with running requests.
        waiting_adapters: LoRA adapters that only waiting requests need.
        max_adapters: Adapter slots.
        in_flight: Our own unfinished requests.
        name: Name of the pod; by default its position in the list.
        fresh: False for a row that has missed its scrapes.
        known: False for a row that was never scraped: its load is ignored.
        failing: The last scrape failed.
        labels: Labels of the pod.
    """
    state = MetricsState(
        waiting_requests=waiting,
        running_requests=running,
        kv_usage=kv,
        active_adapters=frozenset(active),
        waiting_adapters=frozenset(waiting_adapters),
        max_adapters=max_adapters,
    )
    return PodLoad(
        state=state,
        name=name,
        fresh=fresh,
        known=known,
        failing=failing,
        in_flight=in_flight,
        labels=labels,
    )


def make_table(pods: Iterable[PodLoad], *, now: float = TABLE_NOW) -> EndpointTable:
    """The table of these pods, taken at ``now``. Pods that are named are sorted by name."""
    rows = EndpointRows()
    listed = list(pods)
    width = len(str(len(listed)))
    for position, pod in enumerate(listed):
        endpoint = make_endpoint(
            pod.name if pod.name is not None else f"pod-{position:0{width}}",
            address=f"10.0.{position // 250}.{position % 250 + 1}",
            labels=pod.labels,
        )
        rows.put(endpoint)
        scraped_at = now - 0.01 if pod.fresh else now - 10.0
        due_at = scraped_at + 0.05
        if pod.known:
            rows.publish(endpoint.key, pod.state, now=scraped_at, due_at=due_at)
        if pod.failing:
            rows.fail(endpoint.key, due_at=due_at)
        rows.add_in_flight(endpoint.key, pod.in_flight)
    return rows.snapshot(now)


def _pool_meta(name: str, namespace: str, *, deleting: bool) -> ObjectMeta:
    deleted_at = DELETED_AT if deleting else None
    return ObjectMeta(name=name, namespace=namespace, deletion_timestamp=deleted_at)


def _pool_reference(name: str | None, group: str) -> PoolObjectReference | None:
    return None if name is None else PoolObjectReference(group=group, name=name)


def _timestamp(created: str | int | None) -> str | None:
    if not isinstance(created, int):
        return created
    minutes, seconds = divmod(created, 60)
    hours, minutes = divmod(minutes, 60)
    return f"2025-03-01T{hours:02}:{minutes:02}:{seconds:02}Z"
