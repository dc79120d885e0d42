"""``Options``: everything that ``epp serve`` was told, as one frozen object with its defaults.

Values only; ``options.py`` makes it from flags and environment, and refuses what does not fit
together.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from epp.logs import Logger, Verbosity
from epp.metrics.families import SELECTABLE_NAME_SETS, NameSet
from epp.metrics.label_cap import DEFAULT_MAX_LABEL_VALUES
from epp.server.flag_table import DEFAULT_MAX_REQUEST_BODY_BYTES
from epp.server.flags import Notice
from epp.server.label_selector import LabelSelector
from epp.server.quantities import HostPort
from epp.server.tls_settings import DEFAULT_TLS_VERSION, CipherSuites
from epp.transport.limits import DEFAULT_LIMITS

MIN_REFRESH_SECONDS = 0.05
"""Reference: llm-d-router raises shorter intervals to 50 ms."""

GRPC_MARGIN_BYTES = 2**20
"""Room for headers and framing above the longest body (design: 3)."""

GATEWAY_BUFFER_BYTES = 32 * 2**20
"""Buffer limit of the generated Envoy configuration: bodies up to it may arrive here."""

TransportName = Literal["native", "grpcio"]
SourceKind = Literal["kubernetes", "files", "endpoints"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What ``epp serve`` was asked to do."""

    manifests: Path | None = None
    """Directory of manifests. Without it and without ``endpoints`` Kubernetes is the source."""

    endpoints: tuple[HostPort, ...] = ()
    """Model servers named on the command line."""

    pool_name: str = ""
    """Pool to serve; never empty with Kubernetes. In manifests empty takes the only one."""

    pool_namespace: str | None = None
    """Namespace of the pool; never None with Kubernetes. In manifests None takes the one where a
    pool of this name is, else `default`."""

    kubeconfig: Path | None = None
    """How to reach the API server; None leaves the choice to the client: $KUBECONFIG, pod, home."""

    kube_context: str = ""
    """Context of the kubeconfig; empty is its current one."""

    pool_group: str = ""
    """API group of the InferencePool; empty is whichever the cluster serves, v1 first."""

    endpoint_selector: LabelSelector | None = None
    """Pods to serve without an InferencePool; ``pool_name`` is the pod's Deployment then."""

    endpoint_target_ports: tuple[int, ...] = ()
    """Ports of those pods: 1 to 8, no repeats."""

    leader_election: bool = False
    """Only the holder of the Lease is ready; off, as in the reference: replicas share the work."""

    lease_duration_seconds: float = 15.0
    """Silence after which a leader counts as gone: whole seconds. The timings are client-go's."""

    lease_renew_seconds: float = 10.0
    """How long a leader goes on without a renewal; below the lease duration."""

    lease_retry_seconds: float = 2.0
    """Time between tries to get or renew the Lease; below the renew deadline."""

    pod_name: str = ""
    """Our own pod, from POD_NAME: who we are in the Lease and in Events. Empty outside of pods."""

    eds_file: Path | None = None
    """File of endpoints to keep for Envoy; None keeps none, for gateways that know the pods."""

    unknown_model: Literal["auto", "reject", "serve"] = "auto"
    """Model that nobody declares; auto follows the use of InferenceModels, so both worlds work."""

    compatibility: Literal["none", "v0.3"] = "none"
    """Decision rules; none are ours, with the reference's defects left out."""

    disable_endpoint_subset_filter: bool = False
    """Ignore the gateway's subset hint; off, because the hint is the gateway's contract."""

    max_request_body_bytes: int = DEFAULT_MAX_REQUEST_BODY_BYTES
    """Longer bodies are answered 413. 16 MiB holds a prompt of some million tokens."""

    grpc_port: int = 9002
    """ext_proc and access log; 0 takes a free port. The reference's number."""

    grpc_health_port: int = 9003
    """gRPC health service, plain text; 0 takes a free port. The reference's number."""

    metrics_port: int = 9090
    """HTTP; 0 takes a free port. The reference's number."""

    bind_address: str = ""
    """Address of every port; empty is every IPv4 and IPv6 address, as in the reference."""

    secure_serving: bool = True
    """TLS on the gRPC port, as in the reference."""

    cert_path: Path | None = None
    """Directory of tls.crt and tls.key; None makes a self-signed certificate."""

    cert_reload: bool = False
    """Follow changes of ``cert_path``; on with it, unlike the reference: rotated Secrets expire."""

    tls_min_version: str = DEFAULT_TLS_VERSION
    """Lowest TLS version of the gRPC port, by its name in Go."""

    tls_cipher_suites: CipherSuites = field(default_factory=CipherSuites)
    """Suites of the gRPC port up to TLS 1.2; empty is the library's choice."""

    health_checking: bool = False
    """A health service on the gRPC port too, static; off, as in the reference."""

    metrics_endpoint_auth: bool = False
    """Readers of the metrics port need a token of the cluster; on with Kubernetes only."""

    metrics_cert_dir: Path | None = None
    """Directory of tls.crt and tls.key of the metrics port; None serves plain HTTP."""

    metrics_client_ca_file: Path | None = None
    """Clients of the metrics port need a certificate of this CA."""

    grpc_max_receive_bytes: int = GATEWAY_BUFFER_BYTES + GRPC_MARGIN_BYTES
    """Longest message taken. A body that we cannot receive would be served without us."""

    grpc_max_send_bytes: int | None = None
    """Longest message sent; None is no limit, the library's default."""

    grpc_client_ca_file: Path | None = None
    """Peers of the gRPC port need a certificate of this CA; None takes every peer."""

    grpc_max_connection_bytes: int = DEFAULT_LIMITS.max_connection_bytes
    """What one connection of the gRPC port may make us keep, one message at least; native
    transport only."""

    transport: TransportName = "native"
    """gRPC implementation; the native one costs a fraction, where its HTTP/2 engine exists."""

    grpc_stream_metrics: bool = False
    """Expose connections, streams, messages and errors of the gRPC port; off, as in the
    reference."""

    drain_seconds: float = 30.0
    """How long running requests may take after SIGTERM; 0 stops at once."""

    refresh_metrics_interval_seconds: float = MIN_REFRESH_SECONDS
    """Time between scrapes of a busy endpoint; never below 50 ms."""

    queued_requests_metric: str | None = None
    """Metric spec of waiting requests; None by engine, empty disables. So the four below."""

    running_requests_metric: str | None = None
    """Metric spec of running requests."""

    kv_usage_metric: str | None = None
    """Metric spec of the used share of the KV cache."""

    lora_info_metric: str | None = None
    """Metric spec of LoRA adapters."""

    cache_info_metric: str | None = None
    """Metric spec of KV block size and number."""

    model_server_metrics_port: int = 0
    """Port of the model servers' metrics; 0 is the serving port."""

    model_server_metrics_path: str = "/metrics"
    """Path of the model servers' metrics; every engine's default."""

    model_server_metrics_scheme: Literal["http", "https"] = "http"
    """Scheme of the model servers' metrics; no engine serves them with TLS by default."""

    model_server_metrics_insecure_skip_verify: bool = True
    """Do not verify https metrics: pods rarely have certificates for their addresses."""

    metrics_staleness_seconds: float = 2.0
    """Endpoints with older metrics are left out of the pool gauges. Nothing else uses it."""

    max_label_values: int = DEFAULT_MAX_LABEL_VALUES
    """Undeclared model names with a label of their own; the reference's number."""

    metric_names: tuple[NameSet, ...] = SELECTABLE_NAME_SETS
    """Generations of metric names; all, so that published dashboards work."""

    verbosity: int = Verbosity.DEFAULT
    """2 to 5."""

    log_format: Literal["console", "json"] = "console"
    """Console is the reference's default."""

    kv_cache_threshold: float = 0.8
    """Sheddable requests need an endpoint with at most this KV-cache use (v0.3 tree)."""

    queue_threshold_critical: int = 5
    """Sheddable requests need an endpoint with at most this many waiting (v0.3 tree)."""

    queuing_threshold_lora: int = 128
    """Below this many waiting requests, LoRA affinity comes first (v0.3 tree)."""

    lora_affinity_threshold: float = 0.999
    """Probability to prefer endpoints that have the adapter (v0.3 tree)."""

    saturation_queue_depth: int = 5
    """An endpoint with at most this many waiting requests has capacity."""

    saturation_kv_cache_threshold: float = 0.8
    """An endpoint with at most this KV-cache use has capacity."""

    saturation_staleness_seconds: float = 0.2
    """Endpoints with older metrics have no known capacity."""

    notices: tuple[Notice, ...] = field(default=(), compare=False)
    """What was changed or ignored; for ``log_notices``."""

    @property
    def source_kind(self) -> SourceKind:
        """Where objects come from."""
        if self.manifests is not None:
            return "files"
        return "endpoints" if self.endpoints else "kubernetes"

    def log_notices(self, log: Logger) -> None:
        """Log, at info, what was changed or ignored while parsing."""
        for notice in self.notices:
            log.info(notice.event, **notice.fields)
