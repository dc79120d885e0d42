"""Builders of the parts of ``epp serve`` that have choices of their own."""

import asyncio
from collections.abc import Callable, Sequence

from epp.backend.collector import Collector
from epp.backend.endpoint import Endpoint
from epp.backend.endpoint_rows import EndpointRows
from epp.backend.metrics_client import ClientSettings, MetricsClient
from epp.backend.providers.engines import EngineMappings, MetricOverrides
from epp.backend.refresh_schedule import RefreshSettings
from epp.controller.setup import build_controllers
from epp.datastore.datastore import Datastore
from epp.kube.controller import Controller
from epp.logs import get_logger
from epp.metrics.metrics import Metrics
from epp.server.options import Options
from epp.sources.endpoints import StaticSource
from epp.sources.files import FileSource
from epp.sources.kubernetes import KubernetesSource
from epp.sources.pool_choice import choose_pool

log = get_logger(__name__)

Source = FileSource | StaticSource | KubernetesSource

OUTCOMES = ("success", "error", "requeue", "requeue_after")


def build_collector(
    options: Options, rows: EndpointRows, metrics: Metrics, datastore: Datastore
) -> Collector:
    """The scraper, with the engine mappings and the metric flags."""
    client = MetricsClient(
        ClientSettings(
            scheme=options.model_server_metrics_scheme,
            path=options.model_server_metrics_path,
            insecure_skip_verify=options.model_server_metrics_insecure_skip_verify,
        )
    )
    mappings = EngineMappings(
        overrides=MetricOverrides(
            queued=options.queued_requests_metric,
            running=options.running_requests_metric,
            kv_usage=options.kv_usage_metric,
            lora=options.lora_info_metric,
            cache_info=options.cache_info_metric,
        )
    )
    return Collector(
        rows,
        client,
        mappings,
        metrics=metrics,
        settings=RefreshSettings(refresh_seconds=options.refresh_metrics_interval_seconds),
        port_of=_metrics_port(options.model_server_metrics_port, datastore),
    )


def _metrics_port(override: int, datastore: Datastore) -> Callable[[Endpoint], int] | None:
    """Port of the metrics; the override counts for pools with one port only, else ranks clash."""
    if override == 0:
        return None

    def port_of(endpoint: Endpoint) -> int:
        pool = datastore.pool_get()
        several = pool is not None and len(pool.target_ports) > 1
        return endpoint.port if several else override

    return port_of


def build_source(options: Options, metrics: Metrics) -> FileSource | StaticSource:
    """The source that the options choose."""
    namespace = options.pool_namespace or "default"
    if options.manifests is not None:
        return FileSource(
            options.manifests,
            default_namespace=namespace,
            on_problems=metrics.manifest_problems,
        )
    return StaticSource(options.endpoints, pool_name=options.pool_name, namespace=namespace)


class Controllers:
    """The pool's controllers; built at the start, when the source knows which pools there are.

    Args:
        options: Names the pool.
        source: Filled before.
        datastore: Written to.
        metrics: Counts reconciles; declared model names keep their metric label.
    """

    def __init__(
        self,
        options: Options,
        source: Source,
        datastore: Datastore,
        metrics: Metrics,
    ) -> None:
        self._options = options
        self._source = source
        self._datastore = datastore
        self._metrics = metrics
        self._running: Sequence[Controller] = ()

    async def start(self) -> None:
        """Choose the pool and reconcile everything once. Raises ConfigError: which pool?"""
        source, options = self._source, self._options
        caches = source.caches
        pool = choose_pool(
            caches,
            name=options.pool_name,
            namespace=options.pool_namespace,
            broken=source.broken_pools if isinstance(source, FileSource) else (),
        )
        log.info("pool chosen", pool=str(pool))
        self._running = build_controllers(
            caches, self._datastore, pool, on_outcome=self._reconciled
        )
        for controller in self._running:
            await controller.start()

    async def stop(self) -> None:
        """Stop them, the last first."""
        for controller in reversed(self._running):
            await controller.stop()

    async def wait_ended(self) -> None:
        """Wait until a controller has ended by itself, which none should."""
        waits = [asyncio.ensure_future(c.wait_ended()) for c in self._running]
        try:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for ended in done:
                ended.result()
        finally:
            for wait in waits:
                wait.cancel()

    def _reconciled(self, controller: str, outcome: str) -> None:
        self._metrics.reconcile_done(controller, outcome)
        if controller != "pod":
            self._metrics.pin_models(self._datastore.declared_model_names)
