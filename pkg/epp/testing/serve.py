"""``epp serve`` as a child process for tests, seen through its ports, its log and its exit status.

Used where the EPP alone is under test: draining, certificates, an installed wheel, memory. The
whole gateway with Envoy is ``stack.Stack``.
"""

import asyncio
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2

from epp.errors import TransportError
from epp.testing.stack import eventually, free_port

START_SECONDS = 30.0
STOP_SECONDS = 20.0
HEALTH_SECONDS = 5.0

OUR_PROGRAM = (sys.executable, "-m", "epp")


class Serve:
    """One process; the ports are free ones.

    Args:
        directory: For its log.
        arguments: Of ``epp serve``, without ports.
        program: How to call ``epp``.
        env: Its whole environment; None is ours.
        wait_serving: Enter the block once it is SERVING; otherwise once it is alive.
    """

    def __init__(
        self,
        directory: Path,
        *arguments: str,
        program: Sequence[str] = OUR_PROGRAM,
        env: Mapping[str, str] | None = None,
        wait_serving: bool = True,
    ) -> None:
        self.grpc_port, self.health_port, self.metrics_port = free_port(), free_port(), free_port()
        self._argv = [
            *(*program, "serve", "--bind-address", "127.0.0.1"),
            *("--grpc-port", str(self.grpc_port), "--grpc-health-port", str(self.health_port)),
            *("--metrics-port", str(self.metrics_port), *arguments),
        ]
        self._env = env
        self._log = directory / f"serve-{self.grpc_port}.log"
        self._wanted = "SERVING" if wait_serving else "NOT_SERVING"
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        """Start, and wait for the health service."""
        with self._log.open("wb") as sink:
            self._process = await asyncio.create_subprocess_exec(
                *self._argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                env=self._env,
            )
        try:
            await eventually(self._is_up, seconds=START_SECONDS, what="epp serve")
        except BaseException as exc:
            await self._end()
            exc.add_note(self.log_text())
            raise
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        exc: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        """Stop it; a failing test gets the log as a note."""
        await self._end()
        if exc is not None:
            exc.add_note(self.log_text()[-4000:])

    @property
    def process_id(self) -> int:
        """Of the running process."""
        return self._running().pid

    async def health(self, service: str = "") -> str:
        """Name of the status that the health port tells. Raises TransportError without one."""
        request = health_pb2.HealthCheckRequest(service=service).SerializeToString()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{self.health_port}") as channel:
            check: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
                "/grpc.health.v1.Health/Check"
            )
            try:
                answer = await check(request, timeout=HEALTH_SECONDS)
            except grpc.aio.AioRpcError as exc:
                raise TransportError(f"health: {exc.code().name} {exc.details()}") from exc
        status = health_pb2.HealthCheckResponse.FromString(answer).status
        return str(health_pb2.HealthCheckResponse.ServingStatus.Name(status))

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._running().send_signal(number)

    @property
    def is_running(self) -> bool:
        """Whether the process has not ended yet."""
        return self._process is not None and self._process.returncode is None

    async def exit_status(self, *, seconds: float = STOP_SECONDS) -> int:
        """Wait for the end of the process. Raises TimeoutError when it does not end."""
        return await asyncio.wait_for(self._running().wait(), seconds)

    def log_text(self) -> str:
        """What it printed so far."""
        return self._log.read_text(errors="replace")

    async def _is_up(self) -> bool:
        if not self.is_running:
            raise ProcessLookupError("epp serve ended")
        return await self.health() in {"SERVING", self._wanted}

    def _running(self) -> asyncio.subprocess.Process:
        if self._process is None:
            raise ProcessLookupError("not started")
        return self._process

    async def _end(self) -> None:
        if self._process is None or self._process.returncode is not None:
            return
        self._process.terminate()
        try:
            await asyncio.wait_for(self._process.wait(), STOP_SECONDS)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
