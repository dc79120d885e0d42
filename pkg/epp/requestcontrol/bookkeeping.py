"""Bookkeeping: what is counted of a request's life. Nothing in it can fail a request.

A metric that raises is a defect of ours: it is logged once a minute, and the request goes on.
Owns which aborted requests the gateway has yet to report.
"""

from collections.abc import Callable
from typing import ParamSpec, Protocol

from cachetools import LRUCache

from epp.backend.endpoint import Endpoint
from epp.errors import EppError, ErrorCode
from epp.metrics.usage import TokenUsage
from epp.requestcontrol.faults import FaultLog
from epp.requestcontrol.model_resolution import ResolvedModel
from epp.requestcontrol.types import (
    AccessReport,
    Completion,
    CompletionCause,
    IncomingRequest,
    RoutingDecision,
)
from epp.scheduling.types import PluginFailure

MAX_ABORTED = 1024
"""Aborted requests remembered until the gateway's log reports them."""

P = ParamSpec("P")


class DirectorMetrics(Protocol):
    """What the director counts."""

    def request_routed(
        self, model: str, target_model: str, priority: int, size_bytes: int, /
    ) -> None:
        """A request with a body got an endpoint; it runs."""
        ...

    def request_finished(
        self,
        model: str,
        target_model: str,
        priority: int,
        *,
        duration_seconds: float | None = None,
        ttft_seconds: float | None = None,
        response_bytes: int | None = None,
        usage: TokenUsage | None = None,
        streaming: bool = False,
    ) -> None:
        """It runs no more; what is known of the response is observed."""
        ...

    def request_usage(
        self,
        model: str,
        target_model: str,
        priority: int,
        *,
        response_bytes: int | None,
        usage: TokenUsage | None,
        duration_seconds: float | None = None,
    ) -> None:
        """What the access log added after the end."""
        ...

    def request_failed(
        self, model: str, target_model: str, priority: int, error_code: str, /
    ) -> None:
        """A request was refused, or its model server failed."""
        ...

    def scheduler_run(
        self,
        seconds: float,
        ok: bool,
        *,
        target_model: str = "",
        endpoint_name: str = "",
        namespace: str = "",
        port: str | int = "",
    ) -> None:
        """One scheduling run."""
        ...

    def plugin_error(self, extension_point: str, plugin_type: str, plugin_name: str, /) -> None:
        """A plugin failed where no timer saw it."""
        ...

    def served_without_epp(self, n: int = 1, /) -> None:
        """The gateway served a request on its own."""
        ...

    def pick_not_honoured(self) -> None:
        """Another endpoint than the pick served."""
        ...


class Bookkeeping:
    """Counts requests.

    Args:
        metrics: Told everything.
        faults: Told when that fails.

    Attributes:
        routed: Requests that got an endpoint, since the start.
        refused: Requests that were answered with an error.
        without_epp: Requests that the gateway served on its own.
    """

    def __init__(self, metrics: DirectorMetrics, faults: FaultLog) -> None:
        self._metrics = metrics
        self._faults = faults
        self._aborted: LRUCache[tuple[str, float], bool] = LRUCache(MAX_ABORTED)
        self._not_honoured: LRUCache[tuple[str, float], bool] = LRUCache(MAX_ABORTED)
        self.routed = 0
        self.refused = 0
        self.without_epp = 0

    def note_routed(self, routing: RoutingDecision) -> None:
        """A request got an endpoint."""
        self.routed += 1
        request = routing.request
        if request.has_body:
            self._count(self._metrics.request_routed, *_labels(routing), request.size_bytes)

    def note_refused(
        self, incoming: IncomingRequest, resolved: ResolvedModel, error: EppError
    ) -> None:
        """A request was answered with an error."""
        self.refused += 1
        model, target = incoming.model, resolved.target_model or incoming.model
        self._count(self._metrics.request_failed, model, target, resolved.priority, error.code)

    def note_completed(self, routing: RoutingDecision, completion: Completion) -> None:
        """A routed request has ended. To be called once for each."""
        request = routing.request
        natural = completion.cause is CompletionCause.NATURAL
        if completion.served_by and completion.served_by not in routing.targets:
            self._not_honoured[request.request_id, request.received_at] = True
            self._count(self._metrics.pick_not_honoured)
        if not natural:
            self._aborted[request.request_id, request.received_at] = True
        if not request.has_body:
            return
        labels, first = _labels(routing), completion.first_body_at
        self._count(
            self._metrics.request_finished,
            *labels,
            duration_seconds=completion.completed_at - request.received_at if natural else None,
            ttft_seconds=first - request.received_at if natural and first is not None else None,
            response_bytes=completion.response_bytes if natural else None,
            usage=completion.usage,
            streaming=completion.streaming,
        )
        failure = _failure_of(completion)
        if failure is not None:
            self._count(self._metrics.request_failed, *labels, failure)

    def note_reported(self, routing: RoutingDecision | None, report: AccessReport) -> None:
        """The gateway's log told of a response; without a routing it served on its own.

        Of an aborted request only the tokens count: its length and time say nothing.
        """
        if routing is None:
            self.without_epp += 1
            self._count(self._metrics.served_without_epp, 1)
            return
        request = routing.request
        counted = self._not_honoured.pop((request.request_id, request.received_at), False)
        if report.served_by and report.served_by not in routing.targets and not counted:
            self._count(self._metrics.pick_not_honoured)
        aborted = self._aborted.pop((request.request_id, request.received_at), False)
        if not request.has_body:
            return
        self._count(
            self._metrics.request_usage,
            *_labels(routing),
            response_bytes=None if aborted else report.response_bytes,
            usage=report.usage,
            duration_seconds=None if aborted else report.duration_seconds,
        )

    def note_scheduled(self, seconds: float, target_model: str, endpoint: Endpoint | None) -> None:
        """A scheduling run gave this endpoint, or none."""
        if endpoint is None:
            self._count(self._metrics.scheduler_run, seconds, False, target_model=target_model)
            return
        self._count(
            self._metrics.scheduler_run,
            seconds,
            True,
            target_model=target_model,
            endpoint_name=endpoint.name,
            namespace=endpoint.namespace,
            port=endpoint.port,
        )

    def note_failure(self, failure: PluginFailure) -> None:
        """A plugin failed and was done without; one that a timer saw has been counted there."""
        self._faults.say("plugin failed", error=failure.error, plugin=failure.name)
        if not failure.timed:
            self.note_plugin_error(failure.extension_point, failure.type, failure.name)

    def note_plugin_error(self, extension_point: str, plugin_type: str, plugin_name: str) -> None:
        """Something failed where no timer saw it."""
        self._count(self._metrics.plugin_error, extension_point, plugin_type, plugin_name)

    def _count(self, record: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
        try:
            record(*args, **kwargs)
        except Exception as exc:
            self._faults.say("counting failed", error=exc)


def _labels(routing: RoutingDecision) -> tuple[str, str, int]:
    return routing.request.model, routing.target_model, routing.decision.request.priority


def _failure_of(completion: Completion) -> ErrorCode | None:
    """What went wrong, if anything. That a client went away is no failure.

    Any status but 2xx is the model server's failure; the reference reads ``status`` where the
    gateway sends ``:status``, and so never counts one.
    """
    if completion.status and not 200 <= completion.status < 300:
        return ErrorCode.MODEL_SERVER_ERROR
    return ErrorCode.UNKNOWN if completion.cause is CompletionCause.ERROR else None
