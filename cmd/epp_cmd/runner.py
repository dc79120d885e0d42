"""The composition root of ``epp serve``: the only place that constructs concrete classes.

Order of starting (``kube/manager.py``): health and metrics servers (alive, not ready), the scraper,
the source, its first complete lists, the choice of the pool and the controllers, certificates, the
gRPC port, and with Kubernetes the status of models and the election. Stopping drains first:
readiness and the Lease go, running requests finish, then everything stops in reverse.
"""

import asyncio
import contextlib
import gc
import random
import signal
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

from prometheus_client import CollectorRegistry

from epp.backend.collector import Collector
from epp.backend.endpoint_rows import EndpointRows
from epp.controller.model_status_setup import STATUS_CONTROLLER
from epp.controller.setup import CONTROLLERS
from epp.datastore.datastore import Datastore
from epp.handlers.access_log import AccessLog
from epp.handlers.server import ExtProcService
from epp.kube.cache_barrier import CacheBarrier
from epp.kube.manager import Hook, Manager, Runnable
from epp.logs import get_logger
from epp.metrics.collectors import PoolCollector
from epp.metrics.endpoint_series import EndpointSeries
from epp.metrics.metrics import Metrics
from epp.metrics.stream_metrics import expose_streams
from epp.requestcontrol.candidates import Candidates
from epp.requestcontrol.director import Director
from epp.requestcontrol.model_resolution import UnknownModelPolicy
from epp.server.cert_reload import CertReloader
from epp.server.debug_routes import decisions_route, pool_route
from epp.server.descriptors import raise_descriptor_limit
from epp.server.health import Readiness, health_services, static_health_services
from epp.server.metrics_server import MetricsServer
from epp.server.metrics_tls import MetricsTls
from epp.server.options import Options
from epp.server.pool_view import TablePoolView
from epp.standalone.eds import EdsWriter
from epp.transport.grpcio_server import GrpcioServer
from epp.transport.stream import Transport
from epp.version import __version__
from epp_cmd.builders import (
    OUTCOMES,
    Controllers,
    Source,
    build_collector,
    build_source,
)
from epp_cmd.kubernetes import Kubernetes, build_kubernetes
from epp_cmd.plugins import build_admission, build_scheduler, is_strict
from epp_cmd.transports import GrpcPort, build_grpc_port

log = get_logger(__name__)

QUIET_SECONDS = 2.0
"""While draining: no request for this long means that the gateway has noticed."""

GC_THRESHOLDS = (50_000, 20, 20)
"""Allocations until a collection of the youngest generation, and such collections until one of the
next; Python's own are 700, 10 and 10."""

ANNOUNCE_SECONDS = 5.0
"""While draining: how often gateways that have connected since are asked to go elsewhere."""

STOP_GRACE_SECONDS = 1.0
"""After the drain: what is still open then is the gateway's access log, which never ends."""


async def run(options: Options) -> int:
    """Serve until SIGTERM, SIGINT or SIGHUP; a second signal ends the drain.

    Raises:
        ConfigError: The input cannot be used. TransportError: a port cannot be bound.
    """
    stop, hurry = _signals()
    program = Program(options)
    options.log_notices(log)
    failed = False
    try:
        if await _unless_stopped(program.start(), stop):
            _settle_memory()
            log.info("serving", version=__version__, transport=options.transport, **program.ports)
            failed = await program.run_until(stop)
            if not failed:
                await program.drain(hurry)
    finally:
        await program.stop()
    log.info("stopped")
    return 1 if failed else 0


def _settle_memory() -> None:
    """Take what was built at start out of garbage collection, and collect the rest less often.

    A full collection walks every object, code and caches included: up to 29 ms in which no request
    is answered. What requests leave behind is freed by its reference counts.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


async def _unless_stopped(work: Coroutine[Any, Any, None], stop: asyncio.Event) -> bool:
    """Do the work, which may wait for an API server for ever; False when told to stop before."""
    working = asyncio.create_task(work, name="start")
    stopping = asyncio.create_task(stop.wait(), name="stop signal while starting")
    try:
        await asyncio.wait((working, stopping), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            return False
        await working
        return True
    finally:
        working.cancel()
        stopping.cancel()
        await asyncio.gather(working, stopping, return_exceptions=True)


def _signals() -> tuple[asyncio.Event, asyncio.Event]:
    stop, hurry = asyncio.Event(), asyncio.Event()

    def on_signal() -> None:
        (hurry if stop.is_set() else stop).set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, on_signal)
    return stop, hurry


@dataclass(slots=True)
class Program:
    """Everything that runs, wired.

    Attributes:
        options: What was asked.
        ports: Bound ports by flag name, once started.
    """

    options: Options
    ports: dict[str, int] = field(default_factory=dict)
    _manager: Manager = field(default_factory=Manager)
    _last_request: float = 0.0
    metrics: Metrics = field(init=False)
    rows: EndpointRows = field(init=False)
    datastore: Datastore = field(init=False)
    director: Director = field(init=False)
    ext_proc: ExtProcService = field(init=False)
    readiness: Readiness = field(init=False)
    collector: Collector = field(init=False)
    kubernetes: Kubernetes | None = field(init=False)
    source: Source = field(init=False)
    grpc: GrpcPort = field(init=False)
    _caches_complete: bool = False

    def __post_init__(self) -> None:
        """Construct, bottom up; nothing runs yet."""
        options = self.options
        self.metrics = Metrics(
            CollectorRegistry(),
            name_sets=options.metric_names,
            max_label_values=options.max_label_values,
        )
        self.rows = EndpointRows()
        self.datastore = Datastore(self.rows)
        self.collector = build_collector(options, self.rows, self.metrics, self.datastore)
        self._listen()
        self.kubernetes = None
        if options.source_kind == "kubernetes":
            self.kubernetes = build_kubernetes(options, self.metrics)
            self.source = self.kubernetes.source
        else:
            self.source = build_source(options, self.metrics)
        self.director = self._build_director()
        self.ext_proc = ExtProcService(
            self.director,
            metrics=self.metrics,
            access_log=AccessLog(self.director),
            max_request_body=options.max_request_body_bytes,
        )
        self.readiness = self._build_readiness()
        self.grpc = self._build_grpc_port()
        self._register_metrics()
        self._arrange()

    async def start(self) -> None:
        """Start everything in order."""
        await self._manager.start()

    async def run_until(self, stop: asyncio.Event) -> bool:
        """Wait for the stop; True when a part that must run for ever ended before."""
        stopping = asyncio.create_task(stop.wait(), name="stop signal")
        ended = asyncio.create_task(self._manager.wait_ended(), name="parts that must not end")
        await asyncio.wait((stopping, ended), return_when=asyncio.FIRST_COMPLETED)
        failed = not stopping.done()
        if failed:
            log.error("a part has ended by itself, stopping", error=ended.exception())
        for task in (stopping, ended):
            task.cancel()
        await asyncio.gather(stopping, ended, return_exceptions=True)
        return failed

    async def drain(self, hurry: asyncio.Event) -> None:
        """Turn unready, send gateways elsewhere, and let what runs finish, within the drain time.

        Whoever comes nevertheless is served: other replicas may not be known yet.
        """
        began = time.monotonic()
        deadline, announce_at = began + self.options.drain_seconds, began + ANNOUNCE_SECONDS
        log.info("draining", requests=self.ext_proc.open_streams)
        self.readiness.drain()
        self.grpc.transport.announce_shutdown()
        if self.kubernetes is not None:  # takes seconds when the API server does not answer
            await self.kubernetes.resign()
        while (now := time.monotonic()) < deadline and not hurry.is_set() and not self._quiet():
            if now >= announce_at:
                self.grpc.transport.announce_shutdown()
                announce_at += ANNOUNCE_SECONDS
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(hurry.wait(), 0.05)

    async def stop(self) -> None:
        """Stop everything in reverse."""
        await self._manager.stop()
        if self.kubernetes is not None:
            await self.kubernetes.client.close()

    def _quiet(self) -> bool:
        idle = time.monotonic() - self._last_request > QUIET_SECONDS
        return idle and not self.ext_proc.open_streams

    def _listen(self) -> None:
        """Who learns of endpoints; the EDS file first, so that Envoy knows what we may pick."""
        if self.options.eds_file is not None:
            eds = EdsWriter(self.options.eds_file)
            self.datastore.add_endpoint_listener(eds)
        self.datastore.add_endpoint_listener(self.collector)
        self.datastore.add_endpoint_listener(EndpointSeries(self.metrics))

    def _build_director(self) -> Director:
        options = self.options
        return Director(
            datastore=self.datastore,
            scheduler=build_scheduler(options, self.metrics.plugin_timer),
            admission=build_admission(options),
            candidates=Candidates(honour_subset=not options.disable_endpoint_subset_filter),
            rows=self.rows,
            metrics=self.metrics,
            observe=self.metrics.plugin_timer,
            random=random.Random(),
            unknown_model=UnknownModelPolicy(options.unknown_model),
            strict_v03=is_strict(options),
            on_request=self._request_arrived,
        )

    def _request_arrived(self) -> None:
        self._last_request = time.monotonic()
        self.collector.request_arrived()

    def _build_grpc_port(self) -> GrpcPort:
        options = self.options
        services = self.ext_proc.services
        if options.health_checking:
            services = {**services, **static_health_services()}
        return build_grpc_port(options, services, descriptors=raise_descriptor_limit())

    def _register_metrics(self) -> None:
        collector = PoolCollector(
            TablePoolView(self.datastore),
            name_sets=self.metrics.name_sets,
            staleness_seconds=self.options.metrics_staleness_seconds,
        )
        self.metrics.registry.register(collector)
        if self.options.grpc_stream_metrics and self.grpc.stats is not None:
            expose_streams(self.metrics.registry, self.metrics.name_sets, self.grpc.stats)
        self.metrics.observe_streams(lambda: self.grpc.transport.open_streams)
        self.metrics.declare(
            reconciles=[(name, o) for name in self._controller_names() for o in OUTCOMES]
        )

    def _controller_names(self) -> Sequence[str]:
        return CONTROLLERS if self.kubernetes is None else (*CONTROLLERS, STATUS_CONTROLLER)

    def _build_readiness(self) -> Readiness:
        conditions: dict[str, Callable[[], bool]] = {
            "first lists": lambda: self._caches_complete,
            "pool": lambda: self.datastore.pool_has_synced,
            "gRPC port": lambda: "grpc_port" in self.ports,
        }
        if self.kubernetes is not None and self.kubernetes.elector is not None:
            conditions["leadership"] = self.kubernetes.is_in_charge
        return Readiness(conditions)

    def _arrange(self) -> None:
        """What starts after what. Health and metrics first: the lists may take their time."""
        options, manager = self.options, self._manager
        health = GrpcioServer(
            health_services(self.readiness, strict_names=options.leader_election),
            host=options.bind_address,
            port=options.grpc_health_port,
        )
        web, web_certificates = self._build_web()
        caches = CacheBarrier(list(self.source.caches.by_type.values()))
        manager.add_group("health", self._server("grpc_health_port", health))
        manager.add_group("metrics", Hook(self._bind("metrics_port", web.start), web.stop))
        manager.add_group("scraper", self.collector)
        if self.kubernetes is not None:
            manager.add_group("events", self.kubernetes.events)
        manager.add_group("source", self.source)
        manager.add_group("caches", caches, Hook(self._note_caches_complete))
        manager.add_group(
            "controllers", Controllers(options, self.source, self.datastore, self.metrics)
        )
        manager.add_group("certificates", *self._certificate_reloaders(), *web_certificates)
        manager.add_group("ext_proc", self._server("grpc_port", self.grpc.transport))
        if self.kubernetes is not None:
            elector = self.kubernetes.elector
            manager.add_group("status", self.kubernetes.status)
            manager.add_group("election", *(() if elector is None else (elector,)))

    def _build_web(self) -> tuple[MetricsServer, Sequence[Runnable]]:
        options = self.options
        tls = None
        if options.metrics_cert_dir is not None:
            tls = MetricsTls(options.metrics_cert_dir, options.metrics_client_ca_file)
        web = MetricsServer(
            self.metrics.registry,
            port=options.metrics_port,
            host=options.bind_address,
            not_ready_reasons=self._not_ready_reasons,
            guard=None if self.kubernetes is None else self.kubernetes.guard,
            tls=tls,
        )
        web.add_json_route(
            "/debug/pool",
            pool_route(self.datastore, self.director, lambda: self.grpc.transport.open_streams),
        )
        web.add_json_route("/debug/decisions", decisions_route(self.director.decisions))
        if tls is None or options.metrics_cert_dir is None:
            return web, ()
        return web, (CertReloader(options.metrics_cert_dir, tls.reload),)

    def _certificate_reloaders(self) -> Sequence[Runnable]:
        if not self.options.cert_reload:
            return ()
        return [CertReloader(directory, self.grpc.reload) for directory in self.grpc.watched]

    async def _note_caches_complete(self) -> None:
        self._caches_complete = True

    def _server(self, name: str, transport: Transport) -> Hook:
        async def end() -> None:
            await transport.stop(STOP_GRACE_SECONDS)

        return Hook(self._bind(name, transport.start), end)

    def _bind(
        self, name: str, start: Callable[[], Awaitable[int]]
    ) -> Callable[[], Awaitable[object]]:
        async def begin() -> None:
            self.ports[name] = await start()

        return begin

    def _not_ready_reasons(self) -> list[str]:
        if self.readiness.draining:
            return ["draining"]
        return [f"waiting for {name}" for name in self.readiness.missing]
