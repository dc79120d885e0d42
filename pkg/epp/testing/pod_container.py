"""One container of a pod as a process of this machine: started, probed, restarted, stopped.

Owner of the process and of what the pod's status says about it. Restarts follow the kubelet: the
first at once, further ones with a back-off that doubles.
"""

import asyncio
import contextlib
import errno
import os
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from epp.logs import get_logger
from epp.testing.bound_program import bound
from epp.testing.pod_probes import Probe

log = get_logger(__name__)

LEAST_STOP_SECONDS = 2.0
"""After SIGTERM, however long the preStop hook has taken (the kubelet's number)."""

MAX_BACKOFF_SECONDS = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerSpec:
    """What to run.

    Attributes:
        name: Of the container.
        image: As in the manifest.
        argv: Program and arguments, ready to run.
        env: The whole environment.
        directory: Where it starts.
        log: What it prints is appended here.
        address: Of the pod.
        ports: That it will listen on.
        pre_stop_seconds: Between the wish to stop it and SIGTERM, for a hook that sleeps.
        pre_stop_argv: Runs before SIGTERM, for a hook that is a program; empty for none.
        probes: By name: ``startupProbe``, ``readinessProbe``, ``livenessProbe``.
    """

    name: str
    image: str
    argv: Sequence[str]
    env: Mapping[str, str]
    directory: Path
    log: Path
    address: str
    ports: Sequence[int] = ()
    pre_stop_seconds: float = 0.0
    pre_stop_argv: Sequence[str] = ()
    probes: Mapping[str, Probe] = field(default_factory=dict)


class Container:
    """Runs a container.

    Args:
        spec: What.
        changed: Called when the status changed.
        backoff_seconds: Before the second restart.

    Attributes:
        state: ``waiting``, ``running`` or ``terminated``, as in a pod's status.
        last_state: How it ended the last time.
        restarts: How often it was restarted.
        started: Its start-up probe has succeeded, or it has none.
        ready: It takes traffic.
    """

    def __init__(
        self, spec: ContainerSpec, *, changed: Callable[[], None], backoff_seconds: float
    ) -> None:
        self.spec = spec
        self.state: dict[str, Any] = {"waiting": {"reason": "ContainerCreating"}}
        self.last_state: dict[str, Any] = {}
        self.restarts = 0
        self.started = False
        self.ready = False
        self._changed = changed
        self._backoff = backoff_seconds
        self._process: asyncio.subprocess.Process | None = None
        self._began = ""
        self._stopping = asyncio.Event()

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    async def run(self, *, until_success: bool = False) -> None:
        """Run until stopped, again whenever it ends.

        Args:
            until_success: An init container: status 0 is the end.
        """
        delay = 0.0
        while not self._stopping.is_set():
            status = await self._run_once()
            if self._stopping.is_set() or (until_success and status == 0):
                return
            log.info("container ended", container=self.spec.name, status=status)
            self.last_state = self.state
            if delay:
                self._wait_state(f"back-off {delay:g}s restarting container")
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), delay)
            delay = min(max(2 * delay, self._backoff), MAX_BACKOFF_SECONDS)
            self.restarts += 1

    async def stop(self, grace_seconds: float) -> None:
        """PreStop hook, SIGTERM, SIGKILL; ``run`` returns. Idempotent."""
        deadline = time.monotonic() + grace_seconds
        self._stopping.set()
        if self.pid is None:
            return
        if not await self._ends_within(min(self.spec.pre_stop_seconds, grace_seconds)):
            if self.spec.pre_stop_argv:
                await self._run_hook(grace_seconds)
            await self._end(max(deadline - time.monotonic(), LEAST_STOP_SECONDS))

    def kill(self) -> None:
        """SIGKILL, as a crash: it is restarted unless it is being stopped."""
        self._signal(signal.SIGKILL)

    def abandon(self) -> None:
        """SIGKILL, for good."""
        self._stopping.set()
        self.kill()

    async def _run_once(self) -> int:
        """One process from start to end; its exit status, as a shell tells it."""
        busy = _busy_ports(self.spec.address, self.spec.ports)
        if busy:
            text = f"port {busy[0]} of {self.spec.address} is taken by another program"
            self._ended(1, "StartError", text)
            return 1
        self._process = await self._spawn(self.spec.argv)
        self._began = now()
        self.state = {"running": {"startedAt": self._began}}
        self._changed()
        if self._stopping.is_set():
            self.kill()
        status = await self._supervise(self._process)
        code = status if status >= 0 else 128 - status
        self._ended(code, "Completed" if code == 0 else "Error", "")
        return code

    async def _spawn(self, argv: Sequence[str]) -> asyncio.subprocess.Process:
        with self.spec.log.open("ab") as sink:
            return await asyncio.create_subprocess_exec(
                *bound(argv),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                env=dict(self.spec.env),
                cwd=self.spec.directory,
                start_new_session=True,
            )

    async def _run_hook(self, seconds: float) -> None:
        """Run the preStop program; it is killed when the grace time is over."""
        hook = await self._spawn(self.spec.pre_stop_argv)
        try:
            async with asyncio.timeout(seconds):
                if await hook.wait() != 0:
                    log.warning("preStop hook failed", container=self.spec.name)
        except TimeoutError:
            pass
        finally:
            if hook.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    hook.kill()
                await hook.wait()

    async def _supervise(self, process: asyncio.subprocess.Process) -> int:
        probing = asyncio.create_task(self._probe(), name=f"probes of {self.spec.name}")
        exited = asyncio.create_task(process.wait(), name=f"end of {self.spec.name}")
        try:
            await asyncio.wait((probing, exited), return_when=asyncio.FIRST_COMPLETED)
            if not exited.done():
                probing.result()
                log.warning("probe failed, restarting container", container=self.spec.name)
                await self._end(LEAST_STOP_SECONDS)
            return await exited
        finally:
            probing.cancel()
            await asyncio.gather(probing, return_exceptions=True)

    async def _probe(self) -> None:
        """Return when the container has to be restarted."""
        startup, liveness = (
            self.spec.probes.get(f"{name}Probe") for name in ("startup", "liveness")
        )
        if startup is not None and not await startup.first_success():
            return
        self.started = True
        self._changed()
        following = asyncio.create_task(self._follow_readiness(), name="readiness")
        try:
            if liveness is not None:
                await liveness.first_failure()
            if liveness is None or self._stopping.is_set():
                await asyncio.Event().wait()
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)

    async def _follow_readiness(self) -> None:
        readiness = self.spec.probes.get("readinessProbe")
        if readiness is None:
            self._report(ready=True)
        else:
            await readiness.follow(lambda ready: self._report(ready=ready))

    def _report(self, *, ready: bool) -> None:
        self.ready = ready
        self._changed()

    def _ended(self, code: int, reason: str, message: str) -> None:
        self.ready = self.started = False
        ended = {"exitCode": code, "reason": reason, "finishedAt": now()}
        if message:
            ended["message"] = message
        if self._began:
            ended["startedAt"] = self._began
        self.state = {"terminated": ended}
        self._changed()

    def _wait_state(self, message: str) -> None:
        self.state = {"waiting": {"reason": "CrashLoopBackOff", "message": message}}
        self._changed()

    async def _end(self, seconds: float) -> None:
        """SIGTERM, and SIGKILL where that does not help."""
        self._signal(signal.SIGTERM)
        if not await self._ends_within(seconds):
            self.kill()

    def _signal(self, number: signal.Signals) -> None:
        if self.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    async def _ends_within(self, seconds: float) -> bool:
        if self._process is None:
            return True
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._process.wait(), seconds)
        return self.pid is None


def now() -> str:
    """The time, as Kubernetes writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _busy_ports(address: str, ports: Sequence[int]) -> list[int]:
    """Those that cannot be listened on: a program on all addresses has them on this one, too."""
    busy = []
    for port in ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, port))
                probe.listen(1)
            except OSError as exc:
                if exc.errno == errno.EADDRINUSE:
                    busy.append(port)
    return busy
