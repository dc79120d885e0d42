"""``epp standalone``: plan, start, demo, watch, drain."""

import asyncio
import contextlib
import json
import signal
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from epp.errors import ConfigError, TransportError
from epp.standalone import demo, live
from epp.standalone.child import ChildSpec
from epp.standalone.options import StandaloneOptions
from epp.standalone.plan import Plan, ServePorts, make_plan
from epp.standalone.ports import start_in_turn
from epp.standalone.supervisor import Supervisor

REPORT_COLUMNS = 150
"""Width of the table where no terminal says otherwise."""

_NOISE = frozenset({"time", "level", "event", "logger_name"})


async def run_standalone(
    options: StandaloneOptions, *, named: ServePorts, max_request_body_bytes: int
) -> int:
    """Run until Ctrl-C, or until the demo's table with ``--once``.

    Returns:
        Exit status: 0 for a clean end, 1 when a child did not come up or a sample failed.

    Raises:
        ConfigError: The options cannot work on this machine.
    """
    console = _console()
    errors = Console(stderr=True)
    with _state_dir(options) as state_dir:
        async with contextlib.AsyncExitStack() as turn:
            await turn.enter_async_context(start_in_turn(lambda: _tell_wait(errors)))
            plan = make_plan(
                options, state_dir, named=named, max_request_body_bytes=max_request_body_bytes
            )
            plan = replace(plan, epp=_echoing(plan.epp, errors, everything=not console.is_terminal))
            for note in plan.notes:
                console.print(note, highlight=False)
            supervisor = Supervisor(plan=plan, drain_seconds=options.drain_seconds)
            stop = _stop_on_signals(supervisor, errors)
            try:
                await supervisor.start()
                await turn.aclose()
                return await _serve(supervisor, console, stop)
            except TransportError as exc:
                errors.print(f"epp: {exc}", highlight=False, markup=False)
                return 1
            finally:
                await supervisor.stop()
                if not options.once:
                    console.print("stopped", highlight=False)


def _tell_wait(errors: Console) -> None:
    errors.print("another run is starting, waiting for my turn ...", highlight=False)


def _console() -> Console:
    """Standard output; where no terminal says how wide it is, wide enough for a line a request."""
    console = Console()
    return console if console.is_terminal else Console(width=REPORT_COLUMNS)


async def _serve(supervisor: Supervisor, console: Console, stop: asyncio.Event) -> int:
    plan = supervisor.plan
    if plan.options.demo and plan.with_envoy:
        outcomes = await demo.run_samples(plan)
        console.print(demo.table_of(outcomes))
        if plan.options.once:
            return 0 if all(outcome.status for outcome in outcomes) else 1
        demo.print_snippets(console, plan)
    elif plan.with_envoy:
        console.print(f"OpenAI-compatible endpoint: {plan.url}", highlight=False)
    else:
        console.print(
            f"no Envoy: ext_proc on 127.0.0.1:{plan.grpc_port} (plaintext HTTP/2), health on"
            f" {plan.health_port}, metrics on {plan.metrics_port}",
            highlight=False,
        )
    await live.watch(supervisor, console, stop)
    return 0


@contextlib.contextmanager
def _state_dir(options: StandaloneOptions) -> Iterator[Path]:
    if options.state_dir is None:
        with tempfile.TemporaryDirectory(prefix="epp-standalone-") as name:
            yield Path(name)
        return
    try:
        options.state_dir.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise ConfigError(
            f"cannot create it: {exc.strerror}", source="--state-dir", value=str(options.state_dir)
        ) from exc
    yield options.state_dir.resolve()


def _stop_on_signals(supervisor: Supervisor, errors: Console) -> asyncio.Event:
    """The first signal stops and drains, the second gives up draining."""
    stop = asyncio.Event()
    starting = asyncio.current_task()

    def on_signal() -> None:
        if stop.is_set():
            supervisor.hurry()
            return
        stop.set()
        if supervisor.envoy is None and starting is not None and supervisor.plan.with_envoy:
            starting.cancel()  # still starting: nothing to drain
            return
        errors.print("stopping: finishing what runs ...", highlight=False)

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal)
    return stop


def _echoing(spec: ChildSpec, errors: Console, *, everything: bool) -> ChildSpec:
    """Let the EPP's warnings and errors through to the user's screen, above the live view."""

    def on_line(line: str) -> None:
        text = readable(line, everything=everything)
        if text:
            errors.print(text, highlight=False, markup=False, soft_wrap=True)

    argv = [*spec.argv, "--log-format=json"]
    return replace(spec, argv=argv, on_line=on_line)


def readable(line: str, *, everything: bool) -> str:
    """One JSON log line as text; empty when it need not be shown."""
    try:
        record = json.loads(line)
        level = str(record.get("level", "info"))
    except (ValueError, AttributeError):
        return f"epp: {line}"
    if level == "info" and not everything:
        return ""
    fields = " ".join(f"{key}={value}" for key, value in record.items() if key not in _NOISE)
    prefix = "" if level == "info" else f"{level}: "
    return f"epp: {prefix}{record.get('event', '')} {fields}".rstrip()


__all__ = ["Plan", "readable", "run_standalone"]
