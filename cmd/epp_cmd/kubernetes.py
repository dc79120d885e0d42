"""What ``epp serve`` has only with the Kubernetes source: client, Lease, Events, status, reviews."""

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, field

from epp.controller.model_status_setup import build_status_controller
from epp.errors import ConfigError
from epp.kube.client import KubeClient
from epp.kube.config import load_settings
from epp.kube.controller import Controller
from epp.kube.events import EventRecorder
from epp.kube.leaderelection import LeaderElector, new_identity
from epp.kube.lease import LeaseSettings
from epp.logs import get_logger
from epp.metrics.kube_metrics import KubeMetrics
from epp.metrics.metrics import Metrics
from epp.server.metrics_auth import MetricsAuth
from epp.server.options import Options
from epp.sources.kinds import KINDS
from epp.sources.kubernetes import KubernetesSource
from epp_api.meta import NamespacedName

log = get_logger(__name__)

CONTROLLER_NAME = "llm-d.ai/endpoint-picker"
"""``reportingController`` of our Events."""


def lease_name(pool: NamespacedName) -> str:
    """Name of the Lease of a pool's replicas. Reference: llm-d-router cmd/epp/runner."""
    return f"epp-{pool.namespace}-{pool.name}.llm-d.ai"


@dataclass(slots=True, kw_only=True)
class Kubernetes:
    """The parts, not started yet.

    Attributes:
        client: The one client of the API server.
        source: Fills the caches.
        events: Records Events.
        status: Writes the status of InferenceModels.
        elector: Decides who leads; None when every replica does.
        guard: Asks the API server who may read metrics; None lets everyone.
    """

    client: KubeClient
    source: KubernetesSource
    events: EventRecorder
    status: Controller = field(init=False)
    elector: LeaderElector | None = None
    guard: MetricsAuth | None = None

    def is_leader(self) -> bool:
        """This replica acts for all of them."""
        return self.elector is None or self.elector.is_leader

    def is_in_charge(self) -> bool:
        """This replica is the one to serve; the last leader while the API server is away."""
        return self.elector is None or self.elector.is_in_charge

    async def resign(self) -> None:
        """Let another replica lead, as soon as this one begins to drain."""
        if self.elector is not None:
            await self.elector.stop()


def build_kubernetes(options: Options, metrics: Metrics) -> Kubernetes:
    """Construct everything that talks to the API server.

    Raises:
        ConfigError: No API server is configured; names file and field.
    """
    if options.pool_namespace is None:
        raise ConfigError("is not known", source="--pool-namespace")
    pool = NamespacedName(options.pool_namespace, options.pool_name)
    client = KubeClient(load_settings(options.kubeconfig, options.kube_context, os.environ))
    counters = KubeMetrics(
        metrics.registry, metrics.name_sets, kinds=sorted({kind.resource.kind for kind in KINDS})
    )
    selector = options.endpoint_selector
    if selector is not None:
        log.info(
            "serving pods by selector, without an InferencePool",
            selector=str(selector),
            namespace=pool.namespace,
            target_ports=list(options.endpoint_target_ports),
        )
    source = KubernetesSource(
        client,
        pool,
        pool_group=options.pool_group,
        pod_selector=None if selector is None else str(selector),
        target_ports=options.endpoint_target_ports,
        observer=counters,
    )
    events = EventRecorder(
        client,
        controller=CONTROLLER_NAME,
        instance=options.pod_name or socket.gethostname(),
        observer=counters,
    )
    parts = Kubernetes(client=client, source=source, events=events)
    status = build_status_controller(
        source.caches,
        pool,
        client=client,
        events=events,
        may_write=parts.is_leader,
        on_outcome=metrics.reconcile_done,
    )
    parts.status = status.controller
    if options.leader_election:
        parts.elector = _elector(options, client, pool, status.requeue_all)
        counters.observe_leader(parts.is_leader)
    if options.metrics_endpoint_auth:
        parts.guard = MetricsAuth(client)
    return parts


def _elector(
    options: Options, client: KubeClient, pool: NamespacedName, on_leading: Callable[[], None]
) -> LeaderElector:
    def changed(leading: bool) -> None:
        if leading:
            on_leading()

    return LeaderElector(
        client,
        namespace=pool.namespace,
        name=lease_name(pool),
        identity=new_identity(options.pod_name),
        settings=LeaseSettings(
            lease_seconds=int(options.lease_duration_seconds),
            renew_deadline_seconds=options.lease_renew_seconds,
            retry_seconds=options.lease_retry_seconds,
        ),
        on_change=changed,
    )
