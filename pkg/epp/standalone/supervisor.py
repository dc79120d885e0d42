"""The supervisor: pods, EPP and Envoy as children, started in order and stopped in reverse.

Order of starting: simulated pods (demo), the EPP, Envoy. Each is ready before the next begins.
Order of stopping: Envoy stops accepting and finishes what runs, then ends; then the EPP, then the
pods. A child that dies in between is restarted by ``Child``; its siblings do not notice more than
its absence. The supervisor carries no traffic and holds no state that a restart would lose.

Envoy's configuration does not change while it runs. What the pool says of it (``failureMode``) is
watched, and a difference is said: restarting Envoy would cost running requests.
"""

import asyncio
import contextlib
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from epp.errors import ConfigError, TransportError
from epp.logs import get_logger
from epp.standalone import local_http
from epp.standalone.child import Child, ChildFailedError
from epp.standalone.log_lines import readable
from epp.standalone.plan import Plan
from epp.standalone.serve_flags import LOOPBACK

log = get_logger(__name__)

_ACTIVE_REQUESTS = re.compile(r"^http\.gateway\.downstream_rq_active: (\d+)$", re.MULTILINE)
POOL_WAIT_SECONDS = 3.0
"""How long to wait for the pool object before Envoy is configured without knowing it."""
WATCH_SECONDS = 1.0
"""How soon a changed failure mode is noticed."""
_DEFAULT_FAILURE_MODE = "FailOpen"
_FAILED, _USAGE_ERROR = 1, 2
"""Exit status of our programs: something failed; the input cannot be used."""


@dataclass(slots=True)
class Supervisor:
    """Runs a plan."""

    plan: Plan
    drain_seconds: float
    pods: list[Child] = field(default_factory=list)
    epp: Child | None = None
    envoy: Child | None = None
    _hurry: asyncio.Event = field(default_factory=asyncio.Event)
    _watch: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start everything.

        Raises:
            ConfigError: A child refused its input. TransportError: it did not come up otherwise.
        """
        try:
            await self._start()
        except ChildFailedError as failed:
            raise _in_words(failed) from failed

    async def _start(self) -> None:
        self.pods = [Child(spec) for spec in self.plan.pods]
        starts = [
            asyncio.create_task(pod.start(), name=f"start {pod.spec.name}") for pod in self.pods
        ]
        try:
            await asyncio.gather(*starts)
        finally:
            for start in starts:
                start.cancel()
            await asyncio.gather(*starts, return_exceptions=True)
        self.epp = Child(self.plan.epp)
        await self.epp.start()
        if self.plan.with_envoy:
            mode = await self._failure_mode()
            self.envoy = Child(self.plan.envoy_spec(failure_mode=mode))
            await self.envoy.start()
            self._watch = asyncio.create_task(self._watch_failure_mode(mode), name="failure mode")

    async def stop(self) -> None:
        """Drain and stop everything, in order. Safe after a failed start."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        if self.envoy is not None:
            await self._drain_envoy()
            await self.envoy.stop()
        if self.epp is not None:
            await self.epp.stop()
        await asyncio.gather(*(pod.stop() for pod in self.pods))

    def hurry(self) -> None:
        """Give up draining: a second Ctrl-C."""
        self._hurry.set()
        for child in self.children():
            child.hurry()

    def children(self) -> Sequence[Child]:
        """Every child that was started, in order of starting."""
        return [*self.pods, *(child for child in (self.epp, self.envoy) if child is not None)]

    async def requests_without_epp(self) -> int | None:
        """How often Envoy went on without the EPP, by its own count; None when it does not say.

        Complete, unlike the EPP's own metric: reports of the moment in which an EPP dies are lost
        with it. Counts from Envoy's start.
        """
        text = await self._stats("http.gateway.ext_proc.failure_mode_allowed")
        found = re.search(r"failure_mode_allowed: (\d+)", text or "")
        return int(found.group(1)) if found else None

    async def _pool(self) -> Mapping[str, Any] | None:
        """The pool as the EPP sees it; None while there is none, or no answer."""
        address, port = self.plan.epp_address, self.plan.metrics_port
        try:
            view = await local_http.get_json(address, port, "/debug/pool")
        except TransportError:
            return None
        pool: Mapping[str, Any] | None = view["pool"]
        return pool

    async def _failure_mode(self) -> str:
        """Ask the EPP what its pool says. Absent means FailOpen in standalone mode."""
        deadline = time.monotonic() + POOL_WAIT_SECONDS
        pool = None
        while pool is None and time.monotonic() < deadline:
            pool = await self._pool()
            await asyncio.sleep(0 if pool else 0.05)
        if pool is None or not pool["failure_mode"]:
            why = "no pool yet" if pool is None else "the pool names none"
            log.info("Envoy fails open", failure_mode=_DEFAULT_FAILURE_MODE, why=why)
            return _DEFAULT_FAILURE_MODE
        return str(pool["failure_mode"])

    async def _watch_failure_mode(self, running: str) -> None:
        said = running
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            pool = await self._pool()
            mode = said if pool is None else pool["failure_mode"] or _DEFAULT_FAILURE_MODE
            if mode == said:
                continue
            said = mode
            if mode == running:
                log.info("failureMode of the pool is again what Envoy runs with", running=running)
            else:
                log.warning(
                    "failureMode of the pool takes effect at the next start",
                    failure_mode=mode,
                    running=running,
                )

    async def _drain_envoy(self) -> None:
        """Stop accepting, then wait until no request runs, the time is up, or the user insists."""
        with contextlib.suppress(TransportError):
            await local_http.request(
                LOOPBACK, self.plan.admin_port, "POST", "/drain_listeners?graceful&skip_exit"
            )
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
        text = await self._stats("http.gateway.downstream_rq_active")
        found = _ACTIVE_REQUESTS.search(text or "")
        return int(found.group(1)) if found else 0

    async def _stats(self, name: str) -> str | None:
        path = f"/stats?filter=^{re.escape(name)}$"
        try:
            reply = await local_http.request(LOOPBACK, self.plan.admin_port, "GET", path)
        except TransportError:
            return None
        return reply.body.decode(errors="replace")


def _in_words(failed: ChildFailedError) -> ConfigError | TransportError:
    """What the child said last is the error: our own programs end with one line that says it."""
    name, status = failed.name, failed.status
    said = [line for line in failed.lines if line.strip()]
    if status in {_FAILED, _USAGE_ERROR} and said:
        last = readable(said[-1].removeprefix("epp: "), program=name)
        text = last.removeprefix("epp: ")
        return ConfigError(text) if status == _USAGE_ERROR else TransportError(text)
    lines = [readable(line, program=name) for line in said]
    return ChildFailedError(failed.what, name=name, status=status, lines=lines)
