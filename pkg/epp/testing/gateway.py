"""A whole gateway of the field for tests: its Envoy, and ``epp serve`` as a user runs it."""

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from epp.testing.epp_view import LOOPBACK, EppView
from epp.testing.gateway_envoy import (
    LEAN_FLAVOURS,
    GatewayPorts,
    end,
    envoys_of,
    epp_arguments,
    spawn,
)
from epp.testing.stack import READY_SECONDS, Manifests, eventually


class Gateway(EppView):
    """A gateway flavour and its EPP, running.

    Args:
        flavour: One of ``gateway_envoy.FLAVOURS``.
        state_dir: Files and logs of both.
        manifests: Pool, models and pods, for the EPP.
        endpoints: ``ip:port`` of every pod, for Envoy.
        arguments: More arguments of ``epp serve``.
    """

    def __init__(
        self,
        flavour: str,
        state_dir: Path,
        *,
        manifests: Manifests,
        endpoints: Sequence[str],
        arguments: Sequence[str] = (),
    ) -> None:
        state_dir.mkdir(parents=True, exist_ok=True)
        ports = GatewayPorts()
        self.port, self.admin_port, self.metrics_port = ports.listen, ports.admin, ports.metrics
        self.flavour = flavour
        self._envoys = envoys_of(flavour, state_dir, ports=ports, endpoints=endpoints)
        self._known = len(endpoints)
        self._epp_log = state_dir / "epp.log"
        self._epp_argv = [
            *(sys.executable, "-m", "epp", "serve", "--manifests", str(manifests.directory)),
            *("--bind-address", LOOPBACK, "--grpc-port", str(ports.epp)),
            *("--grpc-health-port", str(ports.epp_health), "--metrics-port", str(ports.metrics)),
            *("--drain-timeout", "0", "-v=3"),
            *(*epp_arguments(flavour, state_dir), *arguments),
        ]
        self._epp: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        """Start all, and wait until the EPP has scraped every pod and Envoy serves."""
        try:
            for envoy in self._envoys:
                await envoy.start()
            await self.start_epp()
            for envoy in self._envoys:
                await eventually(envoy.is_up, seconds=READY_SECONDS, what="Envoy")
        except BaseException as exc:
            await self._stop()
            exc.add_note(self.log_text()[-4000:])
            raise
        return self

    async def __aexit__(self, _kind: object, exc: BaseException | None, _trace: object) -> None:
        """Stop all; a failing test gets the logs as a note."""
        await self._stop()
        if exc is not None:
            exc.add_note(self.log_text()[-4000:])

    @property
    def is_lean(self) -> bool:
        """The lean-path component is applied."""
        return self.flavour in LEAN_FLAVOURS

    async def start_epp(self) -> None:
        """Start the EPP, on the ports it always has, and wait until it knows every pod."""
        self._epp = await spawn(self._epp_argv, self._epp_log)
        await eventually(self._epp_is_up, seconds=READY_SECONDS, what="epp serve")

    async def kill_epp(self) -> None:
        """Kill the EPP; connections to it end, nothing listens."""
        if self._epp is None:
            raise ProcessLookupError("epp serve does not run")
        self._epp.kill()
        await self._epp.wait()

    def log_text(self) -> str:
        """What all of them printed so far."""
        logs = [self._epp_log, *(envoy.log for envoy in self._envoys)]
        return "\n".join(log.read_text(errors="replace") for log in logs if log.exists())

    async def _epp_is_up(self) -> bool:
        if self._epp is None or self._epp.returncode is not None:
            raise ProcessLookupError("epp serve ended")
        endpoints = (await self.pool())["endpoints"]
        return sum(1 for endpoint in endpoints if endpoint["known"]) == self._known

    async def _stop(self) -> None:
        for envoy in self._envoys:
            await envoy.stop()
        await end(self._epp)
