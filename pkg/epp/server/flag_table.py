"""Every flag of ``epp serve``: the Go EPP's, under all its names, and ours.

Kubernetes, TLS and access have ``access_flags``, metrics and logs ``observability_flags``; those
without effect here are in ``fixed_flags``. ``docs/flags.md`` is generated from these tables.
Reference: llm-d-router ebab687 pkg/epp/server/options.go, GAIE v0.3.0 cmd/epp/main.go.
"""

from epp.server.access_flags import ACCESS_FLAGS, KUBERNETES_FLAGS, parse_path
from epp.server.fixed_flags import FIXED_FLAGS
from epp.server.flags import Flag, one_of
from epp.server.object_names import parse_namespace, parse_object_name
from epp.server.observability_flags import LOG_FLAGS, METRICS_FLAGS
from epp.server.quantities import (
    parse_bool,
    parse_bytes,
    parse_duration_or_zero,
    parse_host_port,
    parse_ip,
    parse_port,
    parse_positive_duration,
)

DEFAULT_MAX_REQUEST_BODY_BYTES = 16 * 2**20


def _http_path(text: str) -> str:
    if not text.startswith("/") or any(character.isspace() for character in text):
        raise ValueError("must start with / and contain no spaces")
    return text


_POOL = "pool"
_SERVER = "servers"
_REQUESTS = "requests"
_SCRAPE = "model server metrics"

POOL_FLAGS = (
    Flag(
        name="manifests",
        field="manifests",
        group=_POOL,
        parse=parse_path,
        default=None,
        metavar="DIR",
        help="read InferencePool, InferenceModel and Pod objects from the YAML files in DIR, and "
        "follow their changes",
    ),
    Flag(
        name="endpoint",
        field="endpoints",
        group=_POOL,
        parse=parse_host_port,
        default=(),
        metavar="IP:PORT",
        repeatable=True,
        help="a model server, without any manifests; may be repeated",
    ),
    Flag(
        name="pool-name",
        field="pool_name",
        group=_POOL,
        parse=lambda text: parse_object_name(text) if text else "",
        default="",
        default_text="the only pool there is, in manifests",
        metavar="NAME",
        help="name of the InferencePool to serve; without --manifests and --endpoint it and its "
        "pods are read from Kubernetes",
    ),
    Flag(
        name="pool-namespace",
        field="pool_namespace",
        group=_POOL,
        parse=lambda text: parse_namespace(text) if text else None,
        default=None,
        default_text="that of the only pool of this name in manifests; in a cluster that of our own "
        "pod, else default",
        env="NAMESPACE",
        env_lenient=False,
        metavar="NAME",
        help="namespace of the InferencePool",
    ),
    Flag(
        name="eds-file",
        field="eds_file",
        group=_POOL,
        parse=parse_path,
        default=None,
        metavar="PATH",
        help="keep a file with the pool's endpoints for Envoy's EDS (standalone mode uses it)",
    ),
)

REQUEST_FLAGS = (
    Flag(
        name="unknown-model",
        field="unknown_model",
        group=_REQUESTS,
        parse=one_of("auto", "reject", "serve"),
        default="auto",
        default_text="auto",
        metavar="POLICY",
        help="model that no InferenceModel or rewrite rule declares: reject (404), serve, or "
        "auto: reject as soon as the pool has an InferenceModel",
    ),
    Flag(
        name="compatibility",
        field="compatibility",
        group=_REQUESTS,
        parse=one_of("none", "v0.3"),
        default="none",
        default_text="none",
        metavar="VERSION",
        help="v0.3: decide exactly as that release of the reference does",
    ),
    Flag(
        name="disable-endpoint-subset-filter",
        field="disable_endpoint_subset_filter",
        group=_REQUESTS,
        parse=parse_bool,
        default=False,
        default_text="false",
        switch=True,
        help="ignore the gateway's subset hint: every ready endpoint is a candidate",
    ),
    Flag(
        name="max-request-body",
        field="max_request_body_bytes",
        group=_REQUESTS,
        parse=parse_bytes,
        default=DEFAULT_MAX_REQUEST_BODY_BYTES,
        default_text="16MiB",
        metavar="SIZE",
        help="answer 413 to longer request bodies",
    ),
)

SERVER_FLAGS = (
    Flag(
        name="grpc-port",
        field="grpc_port",
        group=_SERVER,
        parse=parse_port,
        default=9002,
        default_text="9002",
        metavar="N",
        help="port that the gateway calls; 0 takes a free one, as for every port",
    ),
    Flag(
        name="grpc-health-port",
        field="grpc_health_port",
        group=_SERVER,
        parse=parse_port,
        default=9003,
        default_text="9003",
        metavar="N",
        help="port of the gRPC health service, plain text",
    ),
    Flag(
        name="metrics-port",
        field="metrics_port",
        group=_SERVER,
        parse=parse_port,
        default=9090,
        default_text="9090",
        metavar="N",
        help="HTTP port of /metrics, /healthz, /readyz and /debug",
    ),
    Flag(
        name="bind-address",
        field="bind_address",
        group=_SERVER,
        parse=lambda text: parse_ip(text) if text else "",
        default="",
        default_text="every address",
        metavar="IP",
        help="address that all ports listen on",
    ),
    Flag(
        name="grpc-max-recv-msg-size",
        field="grpc_max_receive_bytes",
        group=_SERVER,
        parse=lambda text: parse_bytes(text) if text else None,
        default=None,
        default_text="33MiB, or --max-request-body and 1MiB if that is more",
        metavar="SIZE",
        help="longest gRPC message taken; must leave 1MiB above --max-request-body, because a "
        "gateway that fails open serves what we cannot receive",
    ),
    Flag(
        name="grpc-max-send-msg-size",
        field="grpc_max_send_bytes",
        group=_SERVER,
        parse=lambda text: parse_bytes(text) if text else None,
        default=None,
        default_text="no limit",
        metavar="SIZE",
        help="longest gRPC message sent; the same lower bound applies",
    ),
    Flag(
        name="transport",
        field="transport",
        group=_SERVER,
        parse=one_of("native", "grpcio"),
        default=None,
        default_text="native, where its HTTP/2 engine is installed",
        metavar="NAME",
        help="gRPC implementation of the gRPC port: native answers straight from the socket and "
        "costs least; grpcio is Google's, for comparison and as the way out",
    ),
    Flag(
        name="grpc-max-connection-memory",
        field="grpc_max_connection_bytes",
        group=_SERVER,
        parse=parse_bytes,
        default=None,
        default_text="256MiB, or --grpc-max-recv-msg-size if that is more",
        metavar="SIZE",
        help="bodies and answers that one connection of the gRPC port may make us keep; a peer "
        "that does not take its answers is not served until it does; at least "
        "--grpc-max-recv-msg-size; up to 64MiB that wait for their turn come on top; native "
        "transport only",
    ),
    Flag(
        name="drain-timeout",
        field="drain_seconds",
        group=_SERVER,
        parse=parse_duration_or_zero,
        default=30.0,
        default_text="30s",
        metavar="TIME",
        help="how long running requests may take after SIGTERM; 0 stops at once",
    ),
)


def _spec_flag(name: str, field: str, what: str) -> Flag:
    return Flag(
        name=name,
        field=field,
        group=_SCRAPE,
        parse=str.strip,
        default=None,
        default_text="by engine",
        metavar="SPEC",
        help=f"metric of {what}, as name or name{{label=value}}; empty: do not read it",
    )


SCRAPE_FLAGS = (
    Flag(
        name="refresh-metrics-interval",
        field="refresh_metrics_interval_seconds",
        group=_SCRAPE,
        parse=parse_positive_duration,
        default=0.05,
        default_text="50ms",
        env="REFRESH_METRICS_INTERVAL",
        metavar="TIME",
        help="how often a busy endpoint is scraped; at least 50ms",
    ),
    _spec_flag("total-queued-requests-metric", "queued_requests_metric", "waiting requests"),
    _spec_flag("total-running-requests-metric", "running_requests_metric", "running requests"),
    _spec_flag("kv-cache-usage-percentage-metric", "kv_usage_metric", "KV-cache use, 0 to 1"),
    _spec_flag("lora-info-metric", "lora_info_metric", "LoRA adapters"),
    _spec_flag("cache-info-metric", "cache_info_metric", "KV block size and number"),
    Flag(
        name="model-server-metrics-port",
        field="model_server_metrics_port",
        group=_SCRAPE,
        parse=parse_port,
        default=0,
        default_text="0, the serving port",
        env="MODEL_SERVER_METRICS_PORT",
        metavar="N",
        help="port of the model servers' metrics; only for pools with one target port",
    ),
    Flag(
        name="model-server-metrics-path",
        field="model_server_metrics_path",
        group=_SCRAPE,
        parse=_http_path,
        default="/metrics",
        default_text="/metrics",
        env="MODEL_SERVER_METRICS_PATH",
        metavar="PATH",
        help="path of the model servers' metrics",
    ),
    Flag(
        name="model-server-metrics-scheme",
        field="model_server_metrics_scheme",
        group=_SCRAPE,
        parse=one_of("http", "https"),
        default="http",
        default_text="http",
        env="MODEL_SERVER_METRICS_SCHEME",
        env_lenient=False,
        metavar="SCHEME",
        help="http or https",
    ),
    Flag(
        name="model-server-metrics-https-insecure-skip-verify",
        field="model_server_metrics_insecure_skip_verify",
        group=_SCRAPE,
        parse=parse_bool,
        default=True,
        default_text="true",
        env="MODEL_SERVER_METRICS_HTTPS_INSECURE_SKIP_VERIFY",
        switch=True,
        help="do not verify the certificates of https metrics",
    ),
)

SERVE_FLAGS = (
    *POOL_FLAGS,
    *KUBERNETES_FLAGS,
    *REQUEST_FLAGS,
    *SERVER_FLAGS,
    *ACCESS_FLAGS,
    *SCRAPE_FLAGS,
    *METRICS_FLAGS,
    *LOG_FLAGS,
    *FIXED_FLAGS,
)
"""Every flag, in the order of the help."""
