"""What the flags for ``epp serve`` mean to the programs around it: ports, address, TLS, sizes.

Standalone hands these flags to the EPP as they are. Here they are read first, by serve's own
parser, so that Envoy's configuration fits them, and so that a mistake is said before anything runs.
"""

import argparse
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from epp.errors import ConfigError
from epp.server.flag_table import SERVE_FLAGS
from epp.server.options import add_serve_arguments, options_from
from epp.standalone.options import StandaloneOptions, flag_names

LOOPBACK = "127.0.0.1"
_MARGIN_BYTES = 1 << 20
_EVERY_ADDRESS = {"": LOOPBACK, "0.0.0.0": LOOPBACK, "::": "::1"}

_REFUSED = {
    "eds_file": ("--eds-file", "standalone mode has a file of its own, between EPP and Envoy"),
    "metrics_cert_dir": (
        "--metrics-cert-dir",
        "standalone mode reads the metrics port itself, in plain text",
    ),
    "grpc_client_ca_file": (
        "--grpc-client-ca-file",
        "the Envoy of standalone mode has no client certificate to show",
    ),
    "manifests": ("-manifests", "in standalone mode write it --manifests"),
    "endpoint": ("-endpoint", "in standalone mode write it --endpoint"),
}
"""Flags of serve that would part the EPP from the programs around it, and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeFlags:
    """What standalone needs to know of them.

    Attributes:
        grpc_port: Named port of ext_proc; None when the user named none.
        health_port: Named port of the health service, or None.
        metrics_port: Named port of metrics and debug views, or None.
        bind_address: Address that all of them listen on; empty is every one. Loopback by default:
            nobody else needs to reach them, and there is no TLS.
        secure: TLS on the ext_proc port.
        max_request_body_bytes: Largest request body that the EPP accepts.
        max_receive_bytes: Largest gRPC message that it takes.
        drain_seconds: How long it may take to stop.
        json_log: Log lines shall be JSON objects.
        verbose: The user wants to see more than warnings.
    """

    grpc_port: int | None = None
    health_port: int | None = None
    metrics_port: int | None = None
    bind_address: str = LOOPBACK
    secure: bool = False
    max_request_body_bytes: int = 16 << 20
    max_receive_bytes: int = 33 << 20
    drain_seconds: float = 30.0
    json_log: bool = False
    verbose: bool = False

    @property
    def contact_address(self) -> str:
        """Where the EPP is reached from this machine."""
        return _EVERY_ADDRESS.get(self.bind_address, self.bind_address)

    @property
    def buffer_limit_bytes(self) -> int:
        """Envoy's buffer for request bodies: as much as the EPP can receive, and no more.

        Between this and the body limit the EPP answers 413 itself, with a reason; above, Envoy
        does. A body that the EPP cannot receive would be served without it.
        """
        return min(self.max_receive_bytes - _MARGIN_BYTES, (1 << 32) - 1)


def default_arguments(options: StandaloneOptions) -> list[str]:
    """Flags of serve that standalone sets and the user may set otherwise."""
    return [
        *("--bind-address", LOOPBACK, "--secure-serving=false"),
        *("--drain-timeout", f"{options.drain_seconds:g}s"),
    ]


def read_serve_flags(options: StandaloneOptions, env: Mapping[str, str]) -> ServeFlags:
    """Read the flags that are for ``epp serve``.

    Args:
        options: Of standalone; ``serve_args`` are read.
        env: Environment variables, which the EPP will see, too.

    Raises:
        ConfigError: Unknown, unusable, or not possible in standalone mode; names flag and value.
    """
    parser = argparse.ArgumentParser(prog="epp standalone", allow_abbrev=False)
    add_serve_arguments(parser)
    named, rest = parser.parse_known_args(list(options.serve_args))
    if rest:
        raise _unknown(rest[0])
    for dest, (flag, why) in _REFUSED.items():
        if getattr(named, dest, None):
            raise ConfigError(why, source=flag, value=_as_written(getattr(named, dest)))
    whole = [*default_arguments(options), *_source(options), *options.serve_args]
    serve = options_from(parser.parse_args(whole), env)
    return ServeFlags(
        grpc_port=getattr(named, "grpc_port", None),
        health_port=getattr(named, "grpc_health_port", None),
        metrics_port=getattr(named, "metrics_port", None),
        bind_address=serve.bind_address,
        secure=serve.secure_serving,
        max_request_body_bytes=serve.max_request_body_bytes,
        max_receive_bytes=serve.grpc_max_receive_bytes,
        drain_seconds=serve.drain_seconds,
        json_log=serve.log_format == "json",
        verbose=serve.verbosity > 2,
    )


def _source(options: StandaloneOptions) -> list[str]:
    if options.endpoints:
        return [part for endpoint in options.endpoints for part in ("--endpoint", endpoint)]
    return ["--manifests", str(options.manifests or ".")]


def _as_written(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, Sequence) else str(value)


def _unknown(argument: str) -> ConfigError:
    """Name the nearest flag of standalone or serve."""
    word = argument.partition("=")[0]
    if not word.startswith("-"):
        return ConfigError("unexpected argument", source="command line", value=argument)
    spellings = {name.lstrip("-"): name for name in flag_names()}
    for flag in SERVE_FLAGS:
        spellings |= {alias.lstrip("-"): flag.spelling for alias in (flag.spelling, *flag.aliases)}
    near = difflib.get_close_matches(word.lstrip("-"), spellings, n=1, cutoff=0.6)
    hint = f"; did you mean {spellings[near[0]]}?" if near else " (see epp standalone --help)"
    return ConfigError(f"unknown flag{hint}", source=word)
