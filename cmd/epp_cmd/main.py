"""``epp``: parse the command line, set up logging, run.

Exit status: 0 for a clean end, 1 when something failed while running, 2 for input that cannot be
used. A user's mistake is one line on standard error, never a traceback.
"""

import argparse
import asyncio
import difflib
import os
import sys
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, NoReturn

from epp import logs
from epp.errors import ConfigError, TransportError
from epp.server.flags import take_negative_values
from epp.transport.listening import ListenError
from epp.version import __version__

DESCRIPTION = """\
Endpoint Picker: for every LLM request an Envoy-based gateway asks it over ext_proc which
model-server endpoint shall serve it.
"""

EPILOG = """\
examples:
  epp standalone --demo                    see it work: simulated pods, Envoy, sample requests
  epp standalone --endpoint 10.0.0.5:8000  an OpenAI-compatible gateway for your model servers
  epp serve --manifests ./pool             the EPP alone, for a gateway of your own
  epp envoy-config --path lean             the Envoy configuration to adapt
  epp COMMAND --help                       flags and examples of a command
"""

ENVOY_CONFIG_EPILOG = """\
these go together; start the EPP first, it makes the file of endpoints:
  epp serve --manifests DIR --eds-file ./endpoints.yaml --secure-serving=false
  epp envoy-config > envoy.yaml                       without TLS
or
  epp serve --manifests DIR --eds-file ./endpoints.yaml
  epp envoy-config --epp-tls > envoy.yaml             with TLS, which is serve's default
then
  envoy -c envoy.yaml

Ports that are not the defaults have to be named to both.
"""


class ArgumentParser(argparse.ArgumentParser):
    """A parser whose mistakes are ConfigErrors, with the nearest flag that exists."""

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing a usage that fills the screen."""
        raise ConfigError(message + self._suggestion(message), source=self.prog)

    def _suggestion(self, message: str) -> str:
        prefix = "unrecognized arguments: "
        if message.endswith(": expected one argument"):
            return "; a value that begins with a dash is written FLAG=VALUE"
        if not message.startswith(prefix):
            return f" (see {self.prog} --help)"
        words = message.removeprefix(prefix).split()
        unknown = next((word for word in words if word.startswith("-")), words[0])
        name = unknown.split("=", 1)[0]
        near = difflib.get_close_matches(name, self._option_string_actions, n=1, cutoff=0.6)
        return f"; did you mean {near[0]}?" if near else f" (see {self.prog} --help)"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        return _dispatch(arguments)
    except ConfigError as exc:
        print(f"epp: {exc}", file=sys.stderr)
        return 2
    except TransportError as exc:
        print(f"epp: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output is gone, e.g. `epp envoy-config | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _dispatch(arguments: Sequence[str]) -> int:
    parser = ArgumentParser(
        prog="epp",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"epp {__version__}")
    parser.add_argument(
        "command", choices=sorted(_COMMANDS), metavar="COMMAND", help=_command_help()
    )
    if not arguments:
        parser.print_help()
        return 2
    if arguments[0] in _COMMANDS:
        return _COMMANDS[arguments[0]](list(arguments[1:]))
    parser.parse_args(list(arguments[:1]))
    raise AssertionError("argparse returns only for a known command")


def _serve(arguments: list[str]) -> int:
    """The EPP alone: ext_proc, health and metrics servers."""
    from epp.server.options import add_serve_arguments, options_from
    from epp.server.port_flags import flag_to_blame
    from epp.server.tls_settings import grpc_environment

    parser = _parser("serve", _serve.__doc__)
    add_serve_arguments(parser)
    options = options_from(parser.parse_args(arguments), os.environ)
    logs.configure(verbosity=options.verbosity, json=options.log_format == "json")
    os.environ.update(grpc_environment(options.tls_cipher_suites))
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its own lines are neither JSON nor ours
    from epp_cmd.runner import run  # imports grpc, which reads its environment then and only then

    try:
        return _run(run(options))
    except ListenError as exc:
        raise TransportError(f"{flag_to_blame(options, exc)}: {exc}") from exc


def _standalone(arguments: list[str]) -> int:
    """EPP and Envoy (and simulated pods) on this machine, supervised."""
    from epp.standalone import options as standalone_options
    from epp.standalone.command import run_standalone
    from epp.standalone.serve_flags import read_serve_flags

    parser = _parser("standalone", _standalone.__doc__, epilog=standalone_options.EXAMPLES)
    standalone_options.add_arguments(parser)
    namespace, rest = parser.parse_known_args(arguments)
    options = standalone_options.options_from(namespace, rest)
    return _run(run_standalone(options, read_serve_flags(options, os.environ)), fast=False)


def _envoy_config(arguments: list[str]) -> int:
    """Print the Envoy bootstrap that standalone mode uses, commented."""
    from epp.standalone.envoy_bootstrap import BootstrapSettings, render_bootstrap

    parser = _parser("envoy-config", _envoy_config.__doc__, epilog=ENVOY_CONFIG_EPILOG)
    parser.add_argument(
        "--path", choices=["lean", "gateway"], default="lean", help="data path (default: lean)"
    )
    parser.add_argument("--port", type=int, default=8080, help="listener (default: 8080)")
    parser.add_argument(
        "--grpc-port", type=int, default=9002, help="ext_proc of the EPP (default: 9002)"
    )
    parser.add_argument(
        "--grpc-health-port",
        type=int,
        default=9003,
        help="health service of the EPP (default: 9003)",
    )
    parser.add_argument(
        "--admin-port", type=int, default=9901, help="Envoy's admin port (default: 9901)"
    )
    parser.add_argument(
        "--eds-file",
        default="./endpoints.yaml",
        help="file that `epp serve --eds-file` writes (default: ./endpoints.yaml)",
    )
    parser.add_argument(
        "--epp-address", default="127.0.0.1", metavar="HOST", help="the EPP (default: 127.0.0.1)"
    )
    parser.add_argument(
        "--epp-tls",
        action="store_true",
        help="TLS to the EPP, as `epp serve` has it unless --secure-serving=false"
        " (default: plain text, as standalone has it)",
    )
    parser.add_argument(
        "--fail-close",
        action="store_true",
        help="refuse requests while the EPP cannot be asked (default: serve without it)",
    )
    chosen = parser.parse_args(arguments)
    settings = BootstrapSettings(
        path=chosen.path,
        epp_address=chosen.epp_address,
        epp_tls=chosen.epp_tls,
        fail_open=not chosen.fail_close,
        listen_port=chosen.port,
        epp_port=chosen.grpc_port,
        epp_health_port=chosen.grpc_health_port,
        admin_port=chosen.admin_port,
        eds_file=chosen.eds_file,
    )
    sys.stdout.write(render_bootstrap(settings))
    sys.stdout.flush()
    return 0


def _modelsim(arguments: list[str]) -> int:
    """A small vLLM-like model server for demos and tests."""
    from epp.modelsim import cli

    parser = _parser("modelsim", _modelsim.__doc__, epilog=cli.EXAMPLES)
    cli.add_arguments(parser)
    options = cli.options_from(parser.parse_args(arguments))
    logs.configure()
    return _run(cli.run(options))


_COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "serve": _serve,
    "standalone": _standalone,
    "envoy-config": _envoy_config,
    "modelsim": _modelsim,
}


def _command_help() -> str:
    return "; ".join(f"{name}: {call.__doc__}" for name, call in _COMMANDS.items())


def _parser(command: str, description: str | None, epilog: str | None = None) -> ArgumentParser:
    parser = ArgumentParser(
        prog=f"epp {command}",
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    take_negative_values(parser)
    return parser


def _run(job: Coroutine[Any, Any, int], *, fast: bool = True) -> int:
    """Run a coroutine to its end; cancelled means that a signal stopped it while starting.

    Args:
        job: What to run.
        fast: On uvloop where it exists: a third less CPU for servers.
    """
    try:
        with asyncio.Runner(loop_factory=_fast_loop() if fast else None) as runner:
            return runner.run(job)
    except asyncio.CancelledError:
        return 130


def _fast_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
