"""The gRPC health service: liveness apart from readiness.

The service is an ordinary set of stream handlers, so any transport can serve it, on a port of its
own or beside ext_proc. A unary call is a stream with one message each way.

``Readiness`` owns the one fact that is state here: draining, which never ends. Everything else is
asked anew on every check, so an answer cannot be out of date. With leader election ``leader`` is
one of the conditions, and names are strict.
Reference: llm-d-router cmd/epp/runner/health.go; liveness does not fail with the pool as it does
there, and unlike there Watch is served.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2

from epp.logs import get_logger
from epp.transport.stream import (
    CloseReason,
    Services,
    StatusCode,
    StreamFactory,
    StreamHandler,
    StreamSender,
)

log = get_logger(__name__)

LIVENESS = "liveness"
READINESS = "readiness"
EXT_PROC_SERVICE = "envoy.service.ext_proc.v3.ExternalProcessor"
CHART_SERVICE = "inference-extension"
"""What the stock chart's probes ask for."""

LISTED_SERVICES = (LIVENESS, READINESS, "", EXT_PROC_SERVICE, CHART_SERVICE)
STATIC_SERVICES = ("", EXT_PROC_SERVICE)
"""What the health service beside ext_proc answers for."""

WATCH_INTERVAL_SECONDS = 0.25
"""How often an open Watch looks whether its answer changed."""

_SERVICE = "/grpc.health.v1.Health"
_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
_SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


@dataclass(slots=True)
class Readiness:
    """Whether traffic should come here.

    Attributes:
        conditions: What must hold, by name; each is asked on every check and must not block.
    """

    conditions: Mapping[str, Callable[[], bool]]
    _draining: bool = False
    _reported: str | None = field(default=None)

    def drain(self) -> None:
        """Never be ready again: the process is going away."""
        self._draining = True

    @property
    def draining(self) -> bool:
        """Whether ``drain`` was called."""
        return self._draining

    @property
    def missing(self) -> tuple[str, ...]:
        """Names of the conditions that do not hold."""
        return tuple(name for name, holds in self.conditions.items() if not holds())

    def __call__(self) -> bool:
        """Tell whether everything holds; a change since the last call is logged."""
        obstacle = "draining" if self._draining else ", ".join(self.missing)
        if obstacle != self._reported:
            self._reported = obstacle
            if obstacle:
                log.info("not ready", missing=obstacle)
            else:
                log.info("ready")
        return not obstacle


def health_services(ready: Callable[[], bool], *, strict_names: bool = False) -> Services:
    """Return Check, List and Watch, to be registered with a transport.

    Args:
        ready: Answers for every service but ``liveness``, which is always SERVING.
        strict_names: A service that is not in ``LISTED_SERVICES`` is SERVICE_UNKNOWN, as the
            reference has it with leader election; otherwise it is answered like readiness.
    """

    def status(service: str) -> int:
        if service == LIVENESS:
            return int(_SERVING)
        if strict_names and service not in LISTED_SERVICES:
            return int(_SERVICE_UNKNOWN)
        return int(_SERVING if ready() else _NOT_SERVING)

    return _services(status, LISTED_SERVICES)


def static_health_services() -> Services:
    """Return a health service for the ext_proc port itself: SERVING while it answers at all.

    Reference: llm-d-router pkg/epp/server/runserver.go with ``--health-checking``; a name that it
    does not know is answered SERVICE_UNKNOWN.
    """
    return _services(
        lambda service: int(_SERVING if service in STATIC_SERVICES else _SERVICE_UNKNOWN),
        STATIC_SERVICES,
    )


def _services(status: Callable[[str], int], listed: Sequence[str]) -> Services:
    return {
        f"{_SERVICE}/Check": _answering(lambda message: _check(message, status)),
        f"{_SERVICE}/List": _answering(lambda _message: _list(status, listed)),
        f"{_SERVICE}/Watch": lambda sender: _Watch(sender, status),
    }


def _check(message: bytes, status: Callable[[str], int]) -> bytes:
    return _response(status(_asked_service(message)))


def _list(status: Callable[[str], int], listed: Sequence[str]) -> bytes:
    response = health_pb2.HealthListResponse()
    for name in listed:
        response.statuses[name].status = status(name)
    return bytes(response.SerializeToString())


def _asked_service(message: bytes) -> str:
    return str(health_pb2.HealthCheckRequest.FromString(message).service)


def _response(status: int) -> bytes:
    return bytes(health_pb2.HealthCheckResponse(status=status).SerializeToString())


def _answering(answer: Callable[[bytes], bytes]) -> StreamFactory:
    def factory(sender: StreamSender) -> StreamHandler:
        return _Unary(sender, answer)

    return factory


@dataclass(slots=True)
class _Unary:
    """One message in, one out."""

    sender: StreamSender
    answer: Callable[[bytes], bytes]

    def on_message(self, payload: bytes) -> None:
        try:
            answer = self.answer(payload)
        except DecodeError:
            self.sender.finish(StatusCode.INVALID_ARGUMENT, "not a health request")
            return
        self.sender.send(answer)
        self.sender.finish()

    def on_half_close(self) -> None:
        self.sender.finish(StatusCode.INVALID_ARGUMENT, "a health request is missing")

    def on_closed(self, reason: CloseReason) -> None:
        pass


@dataclass(slots=True)
class _Watch:
    """The status now, and again whenever it changes, until the peer leaves."""

    sender: StreamSender
    status: Callable[[str], int]
    _last: int | None = None
    _timer: asyncio.TimerHandle | None = None

    def on_message(self, payload: bytes) -> None:
        if self._timer is not None:
            return
        try:
            service = _asked_service(payload)
        except DecodeError:
            self.sender.finish(StatusCode.INVALID_ARGUMENT, "not a health request")
            return
        self._look(service)

    def on_half_close(self) -> None:
        if self._timer is None:
            self.sender.finish(StatusCode.INVALID_ARGUMENT, "a health request is missing")

    def on_closed(self, reason: CloseReason) -> None:  # noqa: ARG002 - whatever ended it
        if self._timer is not None:
            self._timer.cancel()

    def _look(self, service: str) -> None:
        status = self.status(service)
        if status != self._last:
            self._last = status
            self.sender.send(_response(status))
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(WATCH_INTERVAL_SECONDS, self._look, service)
