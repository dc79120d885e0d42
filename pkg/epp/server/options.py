"""Options of ``epp serve``: flags and environment in, one frozen object out.

The only place that reads the environment. ``add_serve_arguments`` and ``options_from`` are the
two halves of parsing for a program with sub-commands; ``parse`` is both. Nothing is logged here,
because logging is set up from the result: call ``log_notices`` after that. Nothing here imports
``grpc``, which must find its environment set (``tls_settings.grpc_environment``).
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from epp.errors import ConfigError
from epp.logs import Verbosity
from epp.server.env_settings import read_env_settings
from epp.server.flag_table import SERVE_FLAGS
from epp.server.flags import Notice, add_flags, read_flags, unknown_flag
from epp.server.option_checks import check
from epp.server.option_values import (
    GATEWAY_BUFFER_BYTES,
    GRPC_MARGIN_BYTES,
    MIN_REFRESH_SECONDS,
    Options,
)
from epp.server.pod_environment import SERVICE_ACCOUNT, deployment_of, own_namespace
from epp.server.tls_settings import join_cipher_suites
from epp.server.unused_flags import unused_flags
from epp.transport.limits import DEFAULT_LIMITS

__all__ = ["Options", "add_serve_arguments", "options_from", "parse", "reject_unknown"]

EPILOG = """\
examples:
  epp serve --pool-name my-pool                          in a pod, or with a kubeconfig
  epp serve --pool-name my-pool --pool-namespace prod --kubeconfig ~/.kube/config
  epp serve --endpoint-selector app=vllm --endpoint-target-ports 8000     without an InferencePool
  epp serve --endpoint 10.0.0.5:8000 --endpoint 10.0.0.6:8000 --secure-serving=false
  epp serve --manifests ./pool --pool-name my-pool -v=3
  epp serve -poolName my-pool -manifests ./pool -grpcPort 9002     the spelling of v0 works, too
"""


def add_serve_arguments(parser: argparse.ArgumentParser) -> None:
    """Add every flag and the examples to a parser. Create it with ``allow_abbrev=False``."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.usage = "%(prog)s [flags]"
    parser.epilog = EPILOG
    add_flags(parser, SERVE_FLAGS)


def parse(
    argv: Sequence[str], env: Mapping[str, str], *, service_account: Path = SERVICE_ACCOUNT
) -> Options:
    """Parse the arguments of ``epp serve``.

    Raises:
        ConfigError: Names flag and value.
    """
    parser = argparse.ArgumentParser(prog="epp serve", allow_abbrev=False)
    add_serve_arguments(parser)
    namespace, rest = parser.parse_known_args(list(argv))
    reject_unknown(rest)
    return options_from(namespace, env, service_account=service_account)


def reject_unknown(rest: Sequence[str]) -> None:
    """Raise ConfigError, with the nearest flag, when the parser left arguments over."""
    if rest:
        raise unknown_flag(rest[0], SERVE_FLAGS)


def options_from(
    namespace: argparse.Namespace,
    env: Mapping[str, str],
    *,
    service_account: Path = SERVICE_ACCOUNT,
) -> Options:
    """Turn parsed arguments and the environment into options.

    Args:
        namespace: What the parser returned.
        env: Environment variables.
        service_account: Where a pod finds its namespace.

    Raises:
        ConfigError: Names flag and value.
    """
    values, notices = read_flags(SERVE_FLAGS, namespace, env)
    settings, more_notices = read_env_settings(env)
    notices += more_notices
    _merge_log_flags(values)
    _default_transport(values, notices)
    notices += unused_flags(values)
    _join_lists(values, notices)
    _default_certificate_reload(values)
    _default_metrics_auth(values, notices)
    _default_message_sizes(values)
    _raise_refresh_interval(values, notices)
    options = _build({**values, **settings, "notices": tuple(notices)})
    check(options)
    if options.source_kind == "kubernetes":
        return _with_pod_environment(options, env, service_account)
    return replace(options, pool_group="")


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


def _join_lists(values: dict[str, Any], notices: list[Notice]) -> None:
    ports = values["endpoint_target_ports"]
    values["endpoint_target_ports"] = tuple(dict.fromkeys(port for part in ports for port in part))
    suites = join_cipher_suites(values["tls_cipher_suites"])
    values["tls_cipher_suites"] = suites
    if suites.tls13:
        fields = {"flag": "--tls-cipher-suites", "value": ",".join(suites.tls13)}
        notices.append(Notice("cipher suites of TLS 1.3 cannot be chosen, all are offered", fields))


def _default_certificate_reload(values: dict[str, Any]) -> None:
    has_files = values["cert_path"] is not None or values["grpc_client_ca_file"] is not None
    values["cert_reload"] = has_files and values["cert_reload"] is not False


def _default_metrics_auth(values: dict[str, Any], notices: list[Notice]) -> None:
    """True by default with a cluster to ask. A drop-in's explicit true is its default: no error."""
    wanted = values["metrics_endpoint_auth"]
    from_kubernetes = values["manifests"] is None and not values["endpoints"]
    if wanted and not from_kubernetes:
        fields = {"flag": "--metrics-endpoint-auth"}
        notices.append(Notice("no Kubernetes to ask, the metrics port takes no tokens", fields))
    values["metrics_endpoint_auth"] = from_kubernetes and wanted is not False


def _default_transport(values: dict[str, Any], notices: list[Notice]) -> None:
    """Native where its engine is installed; there are no wheels of it for every platform."""
    exists = find_spec("ngh2") is not None
    if values["transport"] == "native" and not exists:
        raise ConfigError(
            "needs the package ngh2, which is not installed", source="--transport", value="native"
        )
    if values["transport"] is None and not exists:
        notices.append(Notice("no HTTP/2 engine installed, using grpcio", {"transport": "grpcio"}))
    values["transport"] = values["transport"] or ("native" if exists else "grpcio")


def _default_message_sizes(values: dict[str, Any]) -> None:
    """What follows from the longest body: the longest message, and a connection that holds one."""
    if values["grpc_max_receive_bytes"] is None:
        values["grpc_max_receive_bytes"] = _default_receive_bytes(values["max_request_body_bytes"])
    if values["grpc_max_connection_bytes"] is None:
        longest = int(values["grpc_max_receive_bytes"])
        values["grpc_max_connection_bytes"] = max(DEFAULT_LIMITS.max_connection_bytes, longest)


def _default_receive_bytes(max_request_body_bytes: Any) -> int:
    return max(GATEWAY_BUFFER_BYTES, int(max_request_body_bytes)) + GRPC_MARGIN_BYTES


def _raise_refresh_interval(values: dict[str, Any], notices: list[Notice]) -> None:
    interval = values["refresh_metrics_interval_seconds"]
    if interval >= MIN_REFRESH_SECONDS:
        return
    fields = {
        "flag": "--refresh-metrics-interval",
        "seconds": interval,
        "using": MIN_REFRESH_SECONDS,
    }
    notices.append(Notice("refresh interval raised to its minimum", fields))
    values["refresh_metrics_interval_seconds"] = MIN_REFRESH_SECONDS


def _with_pod_environment(
    options: Options, env: Mapping[str, str], service_account: Path
) -> Options:
    namespace = options.pool_namespace
    if namespace is None:
        outside = options.kubeconfig is not None
        namespace = "default" if outside else own_namespace(env, service_account)
    name = options.pool_name or deployment_of(options.pod_name)
    return replace(options, pool_name=name, pool_namespace=namespace)
