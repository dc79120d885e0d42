"""Probes of a container, as the kubelet runs them: start-up, then readiness and liveness.

One thing differs: until a probe has succeeded for the first time it is tried four times a second,
whatever its period, so that starting costs no waiting. Failures count by the manifest's period.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2

from epp.errors import TransportError
from epp.standalone import local_http
from epp.testing.pod_paths import PodSpecError

QUICK_SECONDS = 0.25

_CHECK = "/grpc.health.v1.Health/Check"


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """One probe.

    Attributes:
        check: One try, which takes no longer than the probe's timeout.
        period_seconds: Between two tries.
        delay_seconds: Before the first.
        failures: In a row, until it counts as failed.
        successes: In a row, until it counts as succeeded.
    """

    check: Callable[[], Awaitable[bool]]
    period_seconds: float
    delay_seconds: float
    failures: int
    successes: int

    async def first_success(self) -> bool:
        """Try until it succeeds; False once it has failed for as long as it may."""
        await asyncio.sleep(self.delay_seconds)
        deadline = time.monotonic() + self.failures * self.period_seconds
        while not await self.check():
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(min(self.period_seconds, QUICK_SECONDS))
        return True

    async def follow(self, report: Callable[[bool], None]) -> None:
        """Report every change of the verdict, for ever; the first verdict is the first success."""
        while not await self.first_success():
            pass
        verdict, against = True, 0
        report(verdict)
        while True:
            await asyncio.sleep(self.period_seconds)
            against = 0 if await self.check() is verdict else against + 1
            if against >= (self.failures if verdict else self.successes):
                verdict, against = not verdict, 0
                report(verdict)

    async def first_failure(self) -> None:
        """Return once it has failed as often in a row as it may not."""
        await asyncio.sleep(self.delay_seconds)
        failed = 0
        while failed < self.failures:
            failed = 0 if await self.check() else failed + 1
            await asyncio.sleep(self.period_seconds)


def probe_of(container: Mapping[str, Any], kind: str, *, address: str) -> Probe | None:
    """``startupProbe``, ``readinessProbe`` or ``livenessProbe`` of a container; None without one.

    Raises:
        PodSpecError: It is of a kind that the harness has not.
    """
    said = container.get(kind)
    if not said:
        return None
    return Probe(
        check=_check_of(said, container, address),
        period_seconds=said.get("periodSeconds", 10),
        delay_seconds=said.get("initialDelaySeconds", 0),
        failures=said.get("failureThreshold", 3),
        successes=said.get("successThreshold", 1),
    )


def _check_of(
    said: Mapping[str, Any], container: Mapping[str, Any], address: str
) -> Callable[[], Awaitable[bool]]:
    seconds = float(said.get("timeoutSeconds", 1))
    if "grpc" in said:
        target = f"{address}:{said['grpc']['port']}"
        return lambda: _grpc_serving(target, said["grpc"].get("service") or "", seconds)
    if "httpGet" in said:
        port, path = _port(said["httpGet"]["port"], container), said["httpGet"].get("path", "/")
        return lambda: _http_answers(address, port, path, seconds)
    if "tcpSocket" in said:
        port = _port(said["tcpSocket"]["port"], container)
        return lambda: _tcp_opens(address, port, seconds)
    raise PodSpecError(
        f"container {container['name']}: a probe of another kind than grpc, http, tcp"
    )


def _port(named: str | int, container: Mapping[str, Any]) -> int:
    for port in container.get("ports") or ():
        if named in (port.get("name"), port["containerPort"]):
            return int(port["containerPort"])
    if isinstance(named, int):
        return named
    raise PodSpecError(f'container {container["name"]} has no port "{named}"')


async def _grpc_serving(target: str, service: str, seconds: float) -> bool:
    request = health_pb2.HealthCheckRequest(service=service).SerializeToString()
    async with grpc.aio.insecure_channel(target) as channel:
        check: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(_CHECK)
        try:
            answer = await check(request, timeout=seconds)
        except grpc.aio.AioRpcError:
            return False
    status = health_pb2.HealthCheckResponse.FromString(answer).status
    return bool(status == health_pb2.HealthCheckResponse.SERVING)


async def _http_answers(address: str, port: int, path: str, seconds: float) -> bool:
    try:
        reply = await local_http.request(address, port, "GET", path, deadline_seconds=seconds)
    except TransportError:
        return False
    return 200 <= reply.status < 400


async def _tcp_opens(address: str, port: int, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            _, writer = await asyncio.open_connection(address, port)
    except (OSError, TimeoutError):
        return False
    writer.transport.abort()
    return True
