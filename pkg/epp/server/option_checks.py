"""What does not fit together: refused before anything starts, naming flag and value.

Reference: llm-d-router ebab687 pkg/epp/server/options.go, Complete and Validate.
"""

from pathlib import Path

from epp.errors import ConfigError
from epp.server.option_values import GRPC_MARGIN_BYTES, Options
from epp.server.port_flags import port_flags
from epp.server.tls_settings import grpcio_refuses

MAX_TARGET_PORTS = 8
MAX_LEASE_SECONDS = 2**31 - 1
"""A Lease holds whole seconds, in 32 bits."""

_V1_GROUP = "inference.networking.k8s.io"

_KUBERNETES_ONLY: tuple[tuple[str, str, tuple[object, ...]], ...] = (
    ("--kubeconfig", "kubeconfig", (None,)),
    ("--kube-context", "kube_context", ("",)),
    ("--pool-group", "pool_group", ("", _V1_GROUP)),
    ("--endpoint-selector", "endpoint_selector", (None,)),
    ("--endpoint-target-ports", "endpoint_target_ports", ((),)),
    ("--ha-enable-leader-election", "leader_election", (False,)),
)
"""Flag, field, and the values that mean nothing without Kubernetes."""


def check(options: Options) -> None:
    """Check every rule. Raises ConfigError."""
    _check_sources(options)
    if options.source_kind == "kubernetes":
        _check_pool(options)
    else:
        _check_kubernetes_only(options)
    _check_lease(options)
    _check_ports(options)
    _check_message_sizes(options)
    _check_transport(options)
    _check_metrics_access(options)


def _check_sources(options: Options) -> None:
    if options.manifests is not None and options.endpoints:
        raise ConfigError(
            "choose --manifests or --endpoint, not both",
            source="command line",
            value=f"--manifests {options.manifests} --endpoint {options.endpoints[0]}",
        )
    twice = {str(e) for e in options.endpoints if options.endpoints.count(e) > 1}
    if twice:
        raise ConfigError("given twice", source="--endpoint", value=min(twice))


def _check_pool(options: Options) -> None:
    selector, ports = options.endpoint_selector, options.endpoint_target_ports
    if options.pool_name and selector is not None:
        text = "either pool-name or endpoint-selector must be set, not both"
        raise ConfigError(text, source="--endpoint-selector", value=str(selector))
    if not options.pool_name and selector is None:
        raise ConfigError(
            "either pool-name or endpoint-selector must be set to read from Kubernetes; "
            "without a cluster use --manifests DIR or --endpoint IP:PORT",
            source="command line",
        )
    listed = ",".join(map(str, ports))
    if selector is None and ports:
        text = "only with --endpoint-selector: an InferencePool names its own ports"
        raise ConfigError(text, source="--endpoint-target-ports", value=listed)
    if selector is not None and not 1 <= len(ports) <= MAX_TARGET_PORTS:
        text = "must be 1 to 8 ports with --endpoint-selector"
        raise ConfigError(text, source="--endpoint-target-ports", value=listed)


def _check_kubernetes_only(options: Options) -> None:
    source = "--manifests" if options.source_kind == "files" else "--endpoint"
    for flag, field, harmless in _KUBERNETES_ONLY:
        value = getattr(options, field)
        if value not in harmless:
            text = f"works with Kubernetes as the source, not with {source}"
            raise ConfigError(text, source=flag, value=_as_written(value))


def _as_written(value: object) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _check_lease(options: Options) -> None:
    lease = options.lease_duration_seconds
    renew, retry = options.lease_renew_seconds, options.lease_retry_seconds
    if not lease.is_integer() or not 1 <= lease <= MAX_LEASE_SECONDS:
        source = "--leader-elect-lease-duration"
        raise ConfigError("must be whole seconds, at least 1s", source=source, value=f"{lease:g}s")
    if renew >= lease:
        text = f"must be below --leader-elect-lease-duration, {lease:g}s"
        raise ConfigError(text, source="--leader-elect-renew-deadline", value=f"{renew:g}s")
    if retry >= renew:
        text = f"must be below --leader-elect-renew-deadline, {renew:g}s"
        raise ConfigError(text, source="--leader-elect-retry-period", value=f"{retry:g}s")


def _check_ports(options: Options) -> None:
    seen: dict[int, str] = {}
    for flag, port in port_flags(options):
        if port != 0 and port in seen:
            raise ConfigError(f"is the port of {seen[port]} already", source=flag, value=port)
        seen[port] = flag


def _check_message_sizes(options: Options) -> None:
    lowest = options.max_request_body_bytes + GRPC_MARGIN_BYTES
    for flag, limit in (
        ("--grpc-max-recv-msg-size", options.grpc_max_receive_bytes),
        ("--grpc-max-send-msg-size", options.grpc_max_send_bytes),
    ):
        if limit is not None and limit < lowest:
            text = f"must be at least --max-request-body and 1MiB, {lowest} bytes"
            raise ConfigError(text, source=flag, value=limit)
    if options.grpc_max_connection_bytes < options.grpc_max_receive_bytes:
        text = (
            "must be at least --grpc-max-recv-msg-size, "
            f"{options.grpc_max_receive_bytes} bytes, or such a message could never arrive"
        )
        source, value = "--grpc-max-connection-memory", options.grpc_max_connection_bytes
        raise ConfigError(text, source=source, value=value)


def _check_transport(options: Options) -> None:
    if options.grpc_client_ca_file is not None:
        _check_client_ca(options, options.grpc_client_ca_file)
    if options.transport == "native":
        return
    refused = grpcio_refuses(options.tls_min_version, options.tls_cipher_suites.names)
    if refused is not None:
        value, why = refused
        flag = "--tls-min-version" if value == options.tls_min_version else "--tls-cipher-suites"
        raise ConfigError(why, source=flag, value=value)


def _check_client_ca(options: Options, path: Path) -> None:
    flag = "--grpc-client-ca-file"
    if not options.secure_serving:
        raise ConfigError("requires --secure-serving", source=flag, value=str(path))
    if options.transport != "native":
        raise ConfigError("requires --transport=native", source=flag, value=str(path))
    _check_readable(flag, path)


def _check_metrics_access(options: Options) -> None:
    directory, client_ca = options.metrics_cert_dir, options.metrics_client_ca_file
    if client_ca is not None and directory is None:
        text = "requires --metrics-cert-dir"
        raise ConfigError(text, source="--metrics-client-ca-file", value=str(client_ca))
    if directory is not None and client_ca is None and not options.metrics_endpoint_auth:
        other = " or --metrics-endpoint-auth" if options.source_kind == "kubernetes" else ""
        text = f"enables metrics TLS without authentication; set --metrics-client-ca-file{other}"
        raise ConfigError(text, source="--metrics-cert-dir", value=str(directory))
    if directory is not None:
        _check_readable("--metrics-cert-dir", directory / "tls.crt")
        _check_readable("--metrics-cert-dir", directory / "tls.key")
    if client_ca is not None:
        _check_readable("--metrics-client-ca-file", client_ca)


def _check_readable(flag: str, path: Path) -> None:
    try:
        with path.open("rb"):
            return
    except OSError as exc:
        raise ConfigError(f"cannot be read: {exc.strerror}", source=flag, value=str(path)) from exc
