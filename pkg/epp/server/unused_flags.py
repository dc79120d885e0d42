"""Flags that were given and change nothing beside the others: one notice each, never silence.

What contradicts is an error (``option_checks``). What is only of no use is not: manifests are
shared, and one that turns TLS off keeps its other flags.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from epp.server.flags import Notice
from epp.server.tls_settings import DEFAULT_TLS_VERSION

EVENT = "flag has no effect"

_TLS = {
    "cert_path": ("--cert-path", None),
    "tls_min_version": ("--tls-min-version", DEFAULT_TLS_VERSION),
    "tls_cipher_suites": ("--tls-cipher-suites", ()),
    "cert_reload": ("--enable-cert-reload", None),
}
_LEASE = {
    "lease_duration_seconds": ("--leader-elect-lease-duration", 15.0),
    "lease_renew_seconds": ("--leader-elect-renew-deadline", 10.0),
    "lease_retry_seconds": ("--leader-elect-retry-period", 2.0),
}
_NATIVE = {
    "grpc_max_connection_bytes": ("--grpc-max-connection-memory", None),
    "grpc_stream_metrics": ("--enable-grpc-stream-metrics", False),
}


def unused_flags(values: Mapping[str, Any]) -> Iterator[Notice]:
    """Notices about flags without effect.

    Args:
        values: By field, as given; defaults that follow from other flags are not filled in yet.
    """
    if not values["secure_serving"]:
        yield from _given(values, _TLS, "--secure-serving=false: the gRPC port has no TLS")
    elif (
        values["cert_reload"]
        and values["cert_path"] is None
        and values["grpc_client_ca_file"] is None
    ):
        why = "nothing to reload without --cert-path or --grpc-client-ca-file"
        yield _notice("--enable-cert-reload", why)
    if not values["leader_election"]:
        yield from _given(values, _LEASE, "there is no --ha-enable-leader-election")
    if values["transport"] == "grpcio":
        yield from _given(values, _NATIVE, "--transport=grpcio has no such thing")


def _given(
    values: Mapping[str, Any], flags: Mapping[str, tuple[str, object]], why: str
) -> Iterator[Notice]:
    for field, (flag, default) in flags.items():
        if values[field] not in (default, False):
            yield _notice(flag, why)


def _notice(flag: str, why: str) -> Notice:
    return Notice(EVENT, {"flag": flag, "reason": why})
