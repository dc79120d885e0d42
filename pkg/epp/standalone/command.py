"""``epp standalone``: plan, start, demo, watch, drain."""

import asyncio
import contextlib
import signal
import tempfile
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar, cast

from rich.console import Console

from epp import logs
from epp.errors import ConfigError
from epp.standalone import demo, live
from epp.standalone.log_lines import LineSink, readable
from epp.standalone.options import StandaloneOptions
from epp.standalone.plan import make_plan
from epp.standalone.ports import start_in_turn
from epp.standalone.serve_flags import ServeFlags
from epp.standalone.supervisor import Supervisor

T = TypeVar("T")

REPORT_COLUMNS = 150
"""Width of the table where no terminal says otherwise."""

INTERRUPTED = 130
"""Exit status after Ctrl-C before there was something to watch, as shells know it."""


async def run_standalone(options: StandaloneOptions, serve: ServeFlags) -> int:
    """Run until Ctrl-C, or until the demo's table with ``--once``.

    Returns:
        Exit status: 0 for a clean end, 1 when a child did not come up or, with ``--once``, when a
        sample did not get what it should.

    Raises:
        ConfigError: The options cannot work on this machine.
    """
    console = _console()
    say = _log_printer(console, serve)
    logs.configure(json=True, stream=cast("Any", LineSink(say("standalone"))))
    with _state_dir(options) as state_dir, _signals() as signals:
        async with contextlib.AsyncExitStack() as turn:
            await turn.enter_async_context(start_in_turn(lambda: _tell_wait(console)))
            plan = make_plan(options, serve, state_dir)
            for note in plan.notes:
                console.print(note, highlight=False)
            up = asyncio.Event()
            plan = replace(plan, epp=replace(plan.epp, on_line=_log_only_until(up, say("epp"))))
            supervisor = Supervisor(plan=plan, drain_seconds=options.drain_seconds)
            return await _Run(supervisor, console, signals, up).whole(turn)


@dataclass(slots=True)
class _Signals:
    """The first signal stops and drains, the second gives up draining."""

    stop: asyncio.Event = field(default_factory=asyncio.Event)
    on_first: Callable[[], None] = lambda: None
    on_second: Callable[[], None] = lambda: None

    def arrived(self) -> None:
        first = not self.stop.is_set()
        self.stop.set()
        (self.on_first if first else self.on_second)()


@contextlib.contextmanager
def _signals() -> Iterator[_Signals]:
    signals, loop = _Signals(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, signals.arrived)
    try:
        yield signals
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


@dataclass(frozen=True, slots=True)
class _Run:
    """One run of a plan, from start to stop."""

    supervisor: Supervisor
    console: Console
    signals: _Signals
    up: asyncio.Event

    async def whole(self, turn: contextlib.AsyncExitStack) -> int:
        """Start, give up the turn to start, serve, stop."""
        self.signals.on_second = self.supervisor.hurry
        try:
            if await self._unless_stopped(self.supervisor.start()) is None:
                return INTERRUPTED
            self.up.set()
            await turn.aclose()
            self.signals.on_first = self._tell_drain
            return await self._serve()
        finally:
            await self.supervisor.stop()
            if self.up.is_set() and not self.supervisor.plan.options.once:
                self.console.print("stopped", highlight=False)

    async def _unless_stopped(self, job: Coroutine[Any, Any, T]) -> "asyncio.Task[T] | None":
        """Do a job to its end; None when a signal came before, and the job is cancelled."""
        doing = asyncio.create_task(job, name="until a signal")
        stopping = asyncio.create_task(self.signals.stop.wait(), name="signal")
        try:
            await asyncio.wait((doing, stopping), return_when=asyncio.FIRST_COMPLETED)
            if not doing.done():
                return None
            doing.result()
            return doing
        finally:
            for task in (doing, stopping):
                task.cancel()
            await asyncio.gather(doing, stopping, return_exceptions=True)

    async def _serve(self) -> int:
        plan = self.supervisor.plan
        if plan.options.demo and plan.with_envoy:
            samples = await self._unless_stopped(demo.run_samples(plan))
            if samples is None:
                return INTERRUPTED
            outcomes = samples.result()
            self.console.print(demo.table_of(outcomes, self.console.width))
            if plan.options.once:
                return self._verdict(outcomes)
            demo.print_snippets(self.console, plan)
        else:
            self.console.print(live.where(plan), highlight=False)
        await live.watch(self.supervisor, self.console, self.signals.stop)
        return 0

    def _verdict(self, outcomes: list[demo.Outcome]) -> int:
        failures = demo.failures(outcomes)
        for failure in failures:
            self.console.print(failure, style="red", highlight=False, markup=False, soft_wrap=True)
        return 1 if failures else 0

    def _tell_drain(self) -> None:
        self.console.print("stopping: finishing what runs ...", highlight=False)


def _tell_wait(console: Console) -> None:
    console.print("another run is starting, waiting for my turn ...", highlight=False)


def _console() -> Console:
    """Standard output; where no terminal says how wide it is, wide enough for a line a request."""
    console = Console()
    return console if console.is_terminal else Console(width=REPORT_COLUMNS)


def _log_printer(console: Console, serve: ServeFlags) -> Callable[[str], Callable[[str], None]]:
    """Print log lines of a program: above the live view on a terminal, else on standard error.

    On a terminal only warnings and errors disturb, unless the user asked for more.
    """
    errors = Console(stderr=True)
    target = console if console.is_terminal and errors.is_terminal else errors
    everything = serve.verbose or not console.is_terminal

    def of(program: str) -> Callable[[str], None]:
        def on_line(line: str) -> None:
            text = line
            if not serve.json_log:
                text = readable(line, program=program, everything=everything)
            if text:
                target.print(text, highlight=False, markup=False, soft_wrap=True)

        return on_line

    return of


def _log_only_until(up: asyncio.Event, say: Callable[[str], None]) -> Callable[[str], None]:
    """Leave out lines that are no log while starting: the last words of a child are its error."""

    def on_line(line: str) -> None:
        if up.is_set() or line.startswith("{"):
            say(line)

    return on_line


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
