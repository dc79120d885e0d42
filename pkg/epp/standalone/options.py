"""What ``epp standalone`` is asked to do. Everything else on its command line is for ``serve``."""

import argparse
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Literal

from epp.errors import ConfigError

DataPath = Literal["lean", "gateway"]

DEFAULT_GATEWAY_PORT = 8080
DEFAULT_ADMIN_PORT = 9901
DEFAULT_POD_PORT = 8000
DEMO_PODS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class StandaloneOptions:
    """The supervisor's own flags.

    Attributes:
        demo: Start simulated pods and send sample requests.
        once: Exit after the demo's table.
        manifests: Directory of the user's manifests; None in the demo and with endpoints.
        endpoints: ``IP:PORT`` of the user's model servers, without manifests.
        path: Data path that Envoy is configured for.
        envoy: Start Envoy; without it only the EPP (and the demo's pods) run.
        envoy_binary: Envoy to run; None looks for the packaged one.
        host: Address that Envoy listens on.
        port: Envoy's port; None: the default, or a free one.
        admin_port: Envoy's admin port; None: the default, or a free one.
        state_dir: Generated files and logs; None: a temporary directory, removed at the end.
        drain_seconds: How long running requests may take after Ctrl-C.
        serve_args: Remaining arguments, for ``epp serve``.
    """

    demo: bool = False
    once: bool = False
    manifests: Path | None = None
    endpoints: tuple[str, ...] = ()
    path: DataPath = "lean"
    envoy: bool = True
    envoy_binary: str | None = None
    host: str = "127.0.0.1"
    port: int | None = None
    admin_port: int | None = None
    state_dir: Path | None = None
    drain_seconds: float = 30.0
    serve_args: tuple[str, ...] = ()


EXAMPLES = """\
examples:
  epp standalone --demo                        four simulated pods, sample requests, live view
  epp standalone --demo --once --path gateway  the same on the gateway path, exit after the table
  epp standalone --endpoint 10.0.0.5:8000 --endpoint 10.0.0.6:8000
  epp standalone --manifests ./pool --port 9000 --unknown-model=reject
  epp standalone --manifests ./pool --secure-serving      TLS between Envoy and the EPP, too

Every flag of `epp serve` is accepted as well and handed to the EPP (`epp serve --help`), except
--eds-file, --metrics-cert-dir and --grpc-client-ca-file. Unlike `epp serve` alone, the EPP listens on loopback and without TLS unless
--bind-address and --secure-serving say otherwise.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the supervisor's flags to a parser."""
    _add_what(parser.add_argument_group("what to run"))
    _add_gateway(parser.add_argument_group("gateway"))
    _add_running(parser.add_argument_group("running"))


def flag_names() -> list[str]:
    """Every flag that ``add_arguments`` adds, for those who look for the nearest one."""
    parser = argparse.ArgumentParser(allow_abbrev=False, add_help=False)
    add_arguments(parser)
    return re.findall(r"--[a-z][a-z-]*", parser.format_usage())


def _add_what(what: argparse._ArgumentGroup) -> None:
    what.add_argument("--demo", action="store_true", help="four simulated pods and sample requests")
    what.add_argument("--once", action="store_true", help="with --demo: exit after the table")
    what.add_argument(
        "--manifests",
        type=Path,
        metavar="DIR",
        help="your InferencePool, InferenceModel and Pod manifests; edits take effect at once",
    )
    what.add_argument(
        "--endpoint",
        action="append",
        default=[],
        metavar="IP:PORT",
        help="a model server, without manifests; repeat for more",
    )


def _add_gateway(envoy: argparse._ArgumentGroup) -> None:
    envoy.add_argument(
        "--path",
        choices=["lean", "gateway"],
        default="lean",
        help="data path (default: lean: reply chunks never visit the EPP, and Envoy fails open by itself)",
    )
    envoy.add_argument(
        "--envoy",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="run Envoy in front (default: yes)",
    )
    envoy.add_argument(
        "--envoy-binary",
        metavar="FILE",
        help="Envoy 1.37 or newer (default: the packaged one, else `envoy` on the PATH)",
    )
    envoy.add_argument(
        "--host",
        default="127.0.0.1",
        metavar="IP",
        help="address that Envoy listens on (default: 127.0.0.1)",
    )
    envoy.add_argument(
        "--port",
        type=_port,
        metavar="N",
        help=f"port of the OpenAI-compatible endpoint (default: {DEFAULT_GATEWAY_PORT}, or a free one; 0: a free one)",
    )
    envoy.add_argument(
        "--admin-port",
        type=_port,
        metavar="N",
        help=f"Envoy's admin port, loopback only (default: {DEFAULT_ADMIN_PORT}, or a free one)",
    )


def _add_running(run: argparse._ArgumentGroup) -> None:
    run.add_argument(
        "--state-dir",
        type=Path,
        metavar="DIR",
        help="keep generated files and logs here (default: a temporary directory)",
    )
    run.add_argument(
        "--drain-seconds",
        type=float,
        default=30.0,
        metavar="S",
        help="how long running requests may take after Ctrl-C (default: 30; a second Ctrl-C stops at once)",
    )


def options_from(namespace: argparse.Namespace, rest: Sequence[str]) -> StandaloneOptions:
    """Check the flags against each other.

    Raises:
        ConfigError: They contradict each other, or say nothing to run.
    """
    chosen = [
        flag
        for flag, given in (
            ("--demo", namespace.demo),
            ("--manifests", namespace.manifests is not None),
            ("--endpoint", bool(namespace.endpoint)),
        )
        if given
    ]
    if not chosen:
        raise ConfigError("say what to run: --demo, --manifests DIR or --endpoint IP:PORT")
    if len(chosen) > 1:
        raise ConfigError("choose one of these", source="command line", value=" ".join(chosen))
    _check_values(namespace)
    return StandaloneOptions(
        demo=namespace.demo,
        once=namespace.once,
        manifests=namespace.manifests,
        endpoints=tuple(namespace.endpoint),
        path=namespace.path,
        envoy=namespace.envoy,
        envoy_binary=namespace.envoy_binary,
        host=namespace.host,
        port=namespace.port,
        admin_port=namespace.admin_port,
        state_dir=namespace.state_dir,
        drain_seconds=namespace.drain_seconds,
        serve_args=tuple(rest),
    )


def _check_values(namespace: argparse.Namespace) -> None:
    if namespace.once and not namespace.demo:
        raise ConfigError(
            "needs --demo: without it there is no table to end after", source="--once"
        )
    if namespace.once and not namespace.envoy:
        raise ConfigError(
            "needs Envoy, which answers the sample requests", source="--once", value="--no-envoy"
        )
    if not 0 <= namespace.drain_seconds < float("inf"):
        raise ConfigError(
            "must be a number of seconds, 0 or more",
            source="--drain-seconds",
            value=namespace.drain_seconds,
        )
    try:
        ip_address(namespace.host)
    except ValueError as exc:
        raise ConfigError(
            "must be an IP address, e.g. 127.0.0.1 or ::1", source="--host", value=namespace.host
        ) from exc
    if namespace.manifests is not None:
        _check_directory(namespace.manifests)


def _check_directory(directory: Path) -> None:
    """Say now what the EPP would say after its start."""
    if not directory.is_dir():
        why = "is no directory" if directory.exists() else "no such directory"
        raise ConfigError(why, source="--manifests", value=str(directory))
    if not os.access(directory, os.R_OK | os.X_OK):
        raise ConfigError("cannot be read", source="--manifests", value=str(directory))


def _port(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = -1
    if not 0 <= number <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port (0 to 65535)")
    return number
