"""Options of ``epp serve``: flags and environment in, one frozen object out.

The only place that reads the environment. ``add_serve_arguments`` and ``options_from`` are the
two halves of parsing for a program with sub-commands; ``parse`` is both. Nothing is logged here,
because logging is set up from the result: call ``log_notices`` after that.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from epp.errors import ConfigError
from epp.logs import Logger, Verbosity
from epp.metrics.families import SELECTABLE_NAME_SETS, NameSet
from epp.metrics.label_cap import DEFAULT_MAX_LABEL_VALUES
from epp.server.env_settings import read_env_settings
from epp.server.flag_table import DEFAULT_MAX_REQUEST_BODY_BYTES, SERVE_FLAGS
from epp.server.flags import Notice, add_flags, read_flags, unknown_flag
from epp.server.quantities import HostPort

MIN_REFRESH_SECONDS = 0.05
"""Reference: llm-d-router raises shorter intervals to 50 ms."""

GRPC_MARGIN_BYTES = 2**20
"""Room for headers and framing above the longest body (design: 3)."""

GATEWAY_BUFFER_BYTES = 32 * 2**20
"""Buffer limit of the generated Envoy configuration: bodies up to it may arrive here."""

EPILOG = """\
examples:
  epp serve --endpoint 10.0.0.5:8000 --endpoint 10.0.0.6:8000 --secure-serving=false
  epp serve --manifests ./pool --pool-name my-pool -v=3
  epp serve -poolName my-pool -manifests ./pool -grpcPort 9002     the spelling of v0 works, too
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What ``epp serve`` was asked to do."""

    manifests: Path | None = None
    """Directory of manifests; None with ``endpoints``. Exactly one of the two is given."""

    endpoints: tuple[HostPort, ...] = ()
    """Model servers named on the command line."""

    pool_name: str = ""
    """Pool to serve; empty takes the only one there is, and several are an error then."""

    pool_namespace: str | None = None
    """Namespace of the pool; None takes the one where a pool of this name is, else `default`."""

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

    grpc_max_receive_bytes: int = GATEWAY_BUFFER_BYTES + GRPC_MARGIN_BYTES
    """Longest message taken. A body that we cannot receive would be served without us."""

    grpc_max_send_bytes: int | None = None
    """Longest message sent; None is no limit, the library's default."""

    transport: Literal["grpcio"] = "grpcio"
    """gRPC implementation."""

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

    def log_notices(self, log: Logger) -> None:
        """Log, at info, what was changed or ignored while parsing."""
        for notice in self.notices:
            log.info(notice.event, **notice.fields)


def add_serve_arguments(parser: argparse.ArgumentParser) -> None:
    """Add every flag and the examples to a parser. Create it with ``allow_abbrev=False``."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.usage = "%(prog)s [flags]"
    parser.epilog = EPILOG
    add_flags(parser, SERVE_FLAGS)


def parse(argv: Sequence[str], env: Mapping[str, str]) -> Options:
    """Parse the arguments of ``epp serve``.

    Raises:
        ConfigError: Names flag and value.
    """
    parser = argparse.ArgumentParser(prog="epp serve", allow_abbrev=False)
    add_serve_arguments(parser)
    namespace, rest = parser.parse_known_args(list(argv))
    reject_unknown(rest)
    return options_from(namespace, env)


def reject_unknown(rest: Sequence[str]) -> None:
    """Raise ConfigError, with the nearest flag, when the parser left arguments over."""
    if rest:
        raise unknown_flag(rest[0], SERVE_FLAGS)


def options_from(namespace: argparse.Namespace, env: Mapping[str, str]) -> Options:
    """Turn parsed arguments and the environment into options.

    Raises:
        ConfigError: Names flag and value.
    """
    values, notices = read_flags(SERVE_FLAGS, namespace, env)
    settings, more_notices = read_env_settings(env)
    _merge_log_flags(values)
    if values["grpc_max_receive_bytes"] is None:
        values["grpc_max_receive_bytes"] = _default_receive_bytes(values["max_request_body_bytes"])
    options = _build({**values, **settings, "notices": (*notices, *more_notices)})
    options = _with_refresh_floor(options)
    _check(options)
    return options


def _build(values: dict[str, Any]) -> Options:
    return Options(**values)


def _merge_log_flags(values: dict[str, Any]) -> None:
    level, encoder = values.pop("zap_log_level"), values.pop("zap_encoder")
    verbosity = values["verbosity"] if level is None else level
    values["verbosity"] = min(max(verbosity, Verbosity.DEFAULT), Verbosity.TRACE)
    log_format = values["log_format"]
    if log_format is not None and encoder is not None and log_format != encoder:
        raise ConfigError("contradicts --log-format", source="--zap-encoder", value=encoder)
    values["log_format"] = log_format or encoder or "console"


def _default_receive_bytes(max_request_body_bytes: Any) -> int:
    return max(GATEWAY_BUFFER_BYTES, int(max_request_body_bytes)) + GRPC_MARGIN_BYTES


def _with_refresh_floor(options: Options) -> Options:
    interval = options.refresh_metrics_interval_seconds
    if interval >= MIN_REFRESH_SECONDS:
        return options
    notice = Notice(
        "refresh interval raised to its minimum",
        {"flag": "--refresh-metrics-interval", "seconds": interval, "using": MIN_REFRESH_SECONDS},
    )
    return replace(
        options,
        refresh_metrics_interval_seconds=MIN_REFRESH_SECONDS,
        notices=(*options.notices, notice),
    )


def _check(options: Options) -> None:
    _check_source(options)
    _check_ports(options)
    lowest = options.max_request_body_bytes + GRPC_MARGIN_BYTES
    for flag, limit in (
        ("--grpc-max-recv-msg-size", options.grpc_max_receive_bytes),
        ("--grpc-max-send-msg-size", options.grpc_max_send_bytes),
    ):
        if limit is not None and limit < lowest:
            text = f"must be at least --max-request-body and 1MiB, {lowest} bytes"
            raise ConfigError(text, source=flag, value=limit)


def _check_source(options: Options) -> None:
    if options.manifests is not None and options.endpoints:
        raise ConfigError(
            "choose --manifests or --endpoint, not both",
            source="command line",
            value=f"--manifests {options.manifests} --endpoint {options.endpoints[0]}",
        )
    if options.manifests is None and not options.endpoints:
        raise ConfigError(
            "no source of endpoints: reading them from Kubernetes is not in this version yet, "
            "use --manifests DIR or --endpoint IP:PORT",
            source="command line",
        )
    twice = {str(e) for e in options.endpoints if options.endpoints.count(e) > 1}
    if twice:
        raise ConfigError("given twice", source="--endpoint", value=min(twice))


def _check_ports(options: Options) -> None:
    seen: dict[int, str] = {}
    for flag, port in (
        ("--grpc-port", options.grpc_port),
        ("--grpc-health-port", options.grpc_health_port),
        ("--metrics-port", options.metrics_port),
    ):
        if port != 0 and port in seen:
            raise ConfigError(f"is the port of {seen[port]} already", source=flag, value=port)
        seen[port] = flag
