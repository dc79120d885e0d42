"""One supervised child process: started in a session of its own, restarted when it dies.

A terminal's Ctrl-C reaches the foreground process group only, so a child in a session of its own
never sees it: the supervisor alone decides when which child stops. On Linux the kernel ends a
child whose supervisor was killed. Only a child that was ready once is restarted: one that ends
before has something to say, and ``start`` says it.
"""

import asyncio
import contextlib
import ctypes
import signal
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from epp.errors import TransportError
from epp.logs import get_logger

log = get_logger(__name__)

FIRST_BACKOFF_SECONDS = 0.1
MAX_BACKOFF_SECONDS = 5.0
STABLE_AFTER_SECONDS = 10.0
"""A child that lived this long starts over with the first back-off."""

READY_POLL_SECONDS = 0.02
KEPT_LINES = 20
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildSpec:
    """What to run.

    Attributes:
        name: For humans: ``epp``, ``envoy``, ``pod sim-1``.
        argv: Program and arguments.
        log_path: Everything the child prints goes here, appended.
        env: Environment of the child.
        on_line: Called with every line the child prints; must not raise.
        is_ready: Polled after a start, with the process id, until it returns True; None means
            ready at once. Whatever else listens on the child's port must not be taken for it.
        ready_seconds: How long a start may take.
        stop_seconds: How long after SIGTERM before SIGKILL.
    """

    name: str
    argv: Sequence[str]
    log_path: Path
    env: Mapping[str, str] | None = None
    on_line: Callable[[str], None] | None = None
    is_ready: Callable[[int], Awaitable[bool]] | None = None
    ready_seconds: float = 20.0
    stop_seconds: float = 10.0


class ChildFailedError(TransportError):
    """A child did not come up.

    Attributes:
        what: Half a sentence.
        name: Of the child.
        status: Its exit status, negative for a signal; None when it still runs.
        lines: The last that it printed.
    """

    def __init__(self, what: str, *, name: str, status: int | None, lines: Sequence[str]) -> None:
        tail = "\n".join(f"    {line}" for line in lines) or "    (it printed nothing)"
        super().__init__(f"{name} {what}; the last it said:\n{tail}")
        self.what = what
        self.name = name
        self.status = status
        self.lines = tuple(lines)


@dataclass(slots=True)
class Child:
    """A child and the task that keeps it alive."""

    spec: ChildSpec
    restarts: int = 0
    process: asyncio.subprocess.Process | None = None
    last_lines: deque[str] = field(default_factory=lambda: deque(maxlen=KEPT_LINES))
    _task: asyncio.Task[None] | None = None
    _was_ready: bool = False
    _stopping: asyncio.Event = field(default_factory=asyncio.Event)
    _spawning: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        process = self.process
        return process.pid if process is not None and process.returncode is None else None

    async def start(self) -> None:
        """Start and wait until ready.

        Raises:
            ChildFailedError: It ended or did not become ready in time; the text has all its last lines.
        """
        await self._spawn()
        self._was_ready = self.spec.is_ready is None
        self._task = asyncio.create_task(self._keep_alive(), name=f"child {self.spec.name}")
        if self.spec.is_ready is None:
            return
        ready = asyncio.create_task(
            self._until(self.spec.is_ready), name=f"child {self.spec.name} ready"
        )
        try:
            await asyncio.wait(
                (self._task, ready),
                timeout=self.spec.ready_seconds,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if self._task.done():  # only then is everything that it printed read
                raise self._failed("ended while starting")
            if not ready.done():
                raise self._failed(f"was not ready within {self.spec.ready_seconds:g} s")
            ready.result()
        finally:
            ready.cancel()
            await asyncio.gather(ready, return_exceptions=True)

    async def _until(self, is_ready: Callable[[int], Awaitable[bool]]) -> None:
        while True:
            pid = self.pid
            if pid is not None and await is_ready(pid):
                self._was_ready = True
                return
            await asyncio.sleep(READY_POLL_SECONDS)

    def hurry(self) -> None:
        """Ask a child that is stopping once more: servers give up their draining then."""
        if self._stopping.is_set() and self.pid is not None and self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.process.terminate()

    async def stop(self) -> None:
        """Ask the child to end, insist after its grace time, and wait. Idempotent."""
        async with self._spawning:  # never between a fork and our knowing of it
            self._stopping.set()
        if self.pid is not None and self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.process.terminate()
            try:
                await asyncio.wait_for(self.process.wait(), self.spec.stop_seconds)
            except TimeoutError:
                log.warning("child did not stop in time, killing it", child=self.spec.name)
                with contextlib.suppress(ProcessLookupError):
                    self.process.kill()
        if self._task is not None:
            await self._reap(self._task)
            self._task = None

    async def _reap(self, task: asyncio.Task[None]) -> None:
        if self.pid is None:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    async def _spawn(self) -> None:
        self.process = await asyncio.create_subprocess_exec(
            *self.spec.argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=None if self.spec.env is None else dict(self.spec.env),
            start_new_session=True,
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            limit=1 << 20,
        )

    async def _keep_alive(self) -> None:
        backoff = FIRST_BACKOFF_SECONDS
        while True:
            started = time.monotonic()
            await self._drain_output()
            if self._stopping.is_set() or not self._was_ready:
                return
            if time.monotonic() - started > STABLE_AFTER_SECONDS:
                backoff = FIRST_BACKOFF_SECONDS
            log.warning(
                "child died, restarting it",
                child=self.spec.name,
                exit=_exit_text(self.process),
                restart_in_seconds=backoff,
            )
            await asyncio.sleep(backoff)
            backoff = min(backoff * 2, MAX_BACKOFF_SECONDS)
            async with self._spawning:
                if self._stopping.is_set():
                    return
                self.restarts += 1
                await self._spawn()

    async def _drain_output(self) -> None:
        process = self.process
        if process is None or process.stdout is None:
            return
        with self.spec.log_path.open("ab") as sink:
            while line := await _next_line(process.stdout):
                self._take_line(sink, line)
        await process.wait()

    def _take_line(self, sink: IO[bytes], line: bytes) -> None:
        sink.write(line)
        sink.flush()
        text = line.decode(errors="replace").rstrip()
        self.last_lines.append(text)
        if self.spec.on_line is not None:
            self.spec.on_line(text)

    def _failed(self, what: str) -> ChildFailedError:
        status = None if self.process is None else self.process.returncode
        return ChildFailedError(what, name=self.spec.name, status=status, lines=self.last_lines)


async def _next_line(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readline()
    except ValueError:  # longer than the buffer: take it in pieces
        return await reader.read(1 << 16)


def _exit_text(process: asyncio.subprocess.Process | None) -> str:
    code = None if process is None else process.returncode
    if code is None or code >= 0:
        return f"status {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:
        return f"signal {-code}"


def _die_with_parent() -> None:
    """Runs in the child before exec: ask the kernel for SIGTERM when the supervisor is gone."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
