"""The supervisor: pods, EPP and Envoy as children, started in order and stopped in reverse.

Order of starting: simulated pods (demo), the EPP, Envoy. Each is ready before the next begins.
Order of stopping: Envoy stops accepting and finishes what runs, then ends; then the EPP, then the
pods. A child that dies in between is restarted by ``Child``; its siblings do not notice more than
its absence. The supervisor carries no traffic and holds no state that a restart would lose.
"""

import asyncio
import contextlib
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from epp.errors import TransportError
from epp.logs import get_logger
from epp.standalone import local_http
from epp.standalone.child import Child, ChildSpec
from epp.standalone.plan import Plan

log = get_logger(__name__)

_ACTIVE_REQUESTS = re.compile(r"^http\.gateway\.downstream_rq_active: (\d+)$", re.MULTILINE)
POOL_WAIT_SECONDS = 3.0
"""How long to wait for the pool object before Envoy is configured without knowing it."""


@dataclass(slots=True)
class Supervisor:
    """Runs a plan."""

    plan: Plan
    drain_seconds: float
    pods: list[Child] = field(default_factory=list)
    epp: Child | None = None
    envoy: Child | None = None
    _hurry: asyncio.Event = field(default_factory=asyncio.Event)

    async def start(self) -> None:
        """Start everything. Raises TransportError when a child does not come up."""
        self.pods = [Child(spec) for spec in self.plan.pods]
        await asyncio.gather(*(pod.start() for pod in self.pods))
        self.epp = Child(self.plan.epp)
        await self.epp.start()
        if self.plan.with_envoy:
            self.envoy = Child(self.plan.envoy_spec(failure_mode=await self._failure_mode()))
            await self.envoy.start()

    async def stop(self) -> None:
        """Drain and stop everything, in order. Safe after a failed start."""
        if self.envoy is not None:
            await self._drain_envoy()
            await self.envoy.stop()
        if self.epp is not None:
            await self.epp.stop()
        await asyncio.gather(*(pod.stop() for pod in self.pods))

    def hurry(self) -> None:
        """Give up draining: a second Ctrl-C."""
        self._hurry.set()

    def children(self) -> Sequence[Child]:
        """Every child that was started, in order of starting."""
        return [*self.pods, *(child for child in (self.epp, self.envoy) if child is not None)]

    async def _failure_mode(self) -> str:
        """Ask the EPP what its pool says. Absent means FailOpen in standalone mode."""
        deadline = time.monotonic() + POOL_WAIT_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(TransportError):
                view = await local_http.get_json("127.0.0.1", self.plan.metrics_port, "/debug/pool")
                if view["pool"] is not None:
                    return self._explain_failure_mode(view["pool"].get("failure_mode"))
            await asyncio.sleep(0.05)
        return self._explain_failure_mode(None)

    def _explain_failure_mode(self, mode: str | None) -> str:
        if mode is None:
            log.info("pool names no failureMode, Envoy fails open", failure_mode="FailOpen")
            return "FailOpen"
        return mode

    async def _drain_envoy(self) -> None:
        """Stop accepting, then wait until no request runs, the time is up, or the user insists."""
        host, port = "127.0.0.1", self.plan.admin_port
        with contextlib.suppress(TransportError):
            await local_http.request(host, port, "POST", "/drain_listeners?graceful&skip_exit")
        deadline = time.monotonic() + self.drain_seconds
        said = False
        while time.monotonic() < deadline and not self._hurry.is_set():
            running = await self._running_requests()
            if running == 0:
                return
            if not said:
                log.info("waiting for running requests", requests=running, again="Ctrl-C stops now")
                said = True
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._hurry.wait(), 0.1)

    async def _running_requests(self) -> int:
        path = "/stats?filter=^http.gateway.downstream_rq_active$"
        try:
            reply = await local_http.request("127.0.0.1", self.plan.admin_port, "GET", path)
        except TransportError:
            return 0
        found = _ACTIVE_REQUESTS.search(reply.body.decode(errors="replace"))
        return int(found.group(1)) if found else 0


async def requests_without_epp(admin_port: int) -> int | None:
    """How often Envoy went on without the EPP, by its own count; None when it does not say.

    Second source beside the EPP's own metric, which cannot count what it never heard of.
    """
    path = "/stats?filter=ext_proc.failure_mode_allowed$"
    try:
        reply = await local_http.request("127.0.0.1", admin_port, "GET", path)
    except TransportError:
        return None
    found = re.search(r"failure_mode_allowed: (\d+)", reply.body.decode(errors="replace"))
    return int(found.group(1)) if found else None


__all__ = ["ChildSpec", "Supervisor", "requests_without_epp"]
