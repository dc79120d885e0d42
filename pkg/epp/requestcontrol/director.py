"""Director: the life of a request, from the client's words to an endpoint and to its end.

Order: model → candidates → admission → schedule → hooks. No endpoint at all is 503 for everyone,
before anybody is shed. Faults inside admission, scheduling, hooks and bookkeeping are contained,
counted and logged once a minute: the request goes to a random candidate rather than nowhere.
Synchronous; owns in-flight accounting and the decision log.
"""

import time
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from cachetools import LRUCache

from epp.backend.endpoint_rows import EndpointRows
from epp.backend.endpoint_table import EndpointTable, Mask
from epp.errors import (
    EppError,
    ErrorCode,
    InternalError,
    ResourceExhaustedError,
    UnavailableError,
)
from epp.metrics.usage import TokenUsage
from epp.requestcontrol.admission import SATURATED, Admission
from epp.requestcontrol.candidates import Candidates
from epp.requestcontrol.decision_log import DecisionLog
from epp.requestcontrol.faults import FaultLog
from epp.requestcontrol.hooks import Hooks, PreRequest, ResponseComplete
from epp.requestcontrol.inflight import InFlight
from epp.requestcontrol.model_resolution import (
    ModelView,
    ResolvedModel,
    UnknownModelPolicy,
    resolve_model,
)
from epp.requestcontrol.types import (
    AccessReport,
    Completion,
    CompletionCause,
    IncomingRequest,
    RoutingDecision,
)
from epp.scheduling.framework import PluginObserver, RandomSource
from epp.scheduling.scheduler import Scheduler
from epp.scheduling.types import Decision, InferenceRequest, ProfileRunResult

FALLBACK_PROFILE = "fallback"
_BODYLESS = ResolvedModel(target_model="", critical=True)
"""A request without a body has no model and is never shed."""

MAX_ABORTED = 1024
"""Aborted requests remembered until the gateway's log reports them."""


class DatastoreView(ModelView, Protocol):
    """What the director needs of the datastore."""

    def endpoint_table(self) -> EndpointTable:
        """Snapshot of the endpoints."""
        ...


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


class Director:
    """Routes requests.

    Args:
        datastore: Models and endpoints.
        scheduler: Decides.
        admission: Sheds.
        candidates: Applies subset hints.
        rows: For in-flight counts.
        metrics: Counts.
        observe: Wraps hook calls.
        hooks: Plugins with request-control roles.
        decisions: Remembers what was decided.
        unknown_model: What becomes of undeclared models.
        strict_v03: No endpoint is 429 instead of 503, as in v0.3.
        on_request: Called for each request that is about to be scheduled: wakes the scraper.
        clock: Monotonic seconds.
        random: Draws of splits and scheduling.
    """

    def __init__(
        self,
        *,
        datastore: DatastoreView,
        scheduler: Scheduler,
        admission: Admission,
        candidates: Candidates,
        rows: EndpointRows,
        metrics: DirectorMetrics,
        observe: PluginObserver,
        random: RandomSource,
        hooks: Sequence[PreRequest | ResponseComplete] = (),
        decisions: DecisionLog | None = None,
        unknown_model: UnknownModelPolicy = UnknownModelPolicy.AUTO,
        strict_v03: bool = False,
        on_request: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._datastore = datastore
        self._scheduler = scheduler
        self._admission = admission
        self._candidates = candidates
        self._metrics = metrics
        self._random = random
        self._faults = FaultLog(clock)
        self._hooks = Hooks(hooks, observe, self._faults)
        self.decisions = decisions or DecisionLog()
        self.in_flight = InFlight(rows)
        self._unknown_model = unknown_model
        self._strict_v03 = strict_v03
        self._on_request = on_request
        self._clock = clock
        self._aborted: LRUCache[tuple[str, float], bool] = LRUCache(MAX_ABORTED)
        self.routed = 0
        self.refused = 0
        self.without_epp = 0

    def handle_request(self, incoming: IncomingRequest) -> RoutingDecision:
        """Route a complete request.

        Raises:
            EppError: It cannot be served; nothing else is ever raised.
        """
        resolved = _BODYLESS
        try:
            if incoming.has_body:
                resolved = self._resolve(incoming)
            routing = self._route(incoming, resolved)
        except EppError as exc:
            self._refuse(incoming, resolved, exc)
            raise
        except Exception as exc:
            self._faults.say("request failed", error=exc)
            failure = InternalError("the endpoint picker failed; see its log")
            self._refuse(incoming, resolved, failure)
            raise failure from exc
        self._accept(routing, resolved)
        return routing

    def handle_complete(self, routing: RoutingDecision, completion: Completion) -> None:
        """Take note of the end of a routed request. Only the first call per routing counts."""
        if not self.in_flight.end(routing):
            return
        self._hooks.response_complete(routing, completion)
        request = routing.request
        natural = completion.cause is CompletionCause.NATURAL
        if not natural:
            self._aborted[request.request_id, request.received_at] = True
        if not request.has_body:
            return
        labels = (request.model, routing.target_model, routing.decision.request.priority)
        first = completion.first_body_at
        self._metrics.request_finished(
            *labels,
            duration_seconds=completion.completed_at - request.received_at if natural else None,
            ttft_seconds=first - request.received_at if natural and first is not None else None,
            response_bytes=completion.response_bytes if natural else None,
            usage=completion.usage,
            streaming=completion.streaming,
        )
        failure = _failure_of(completion)
        if failure is not None:
            self._metrics.request_failed(*labels, failure)

    def handle_access_report(self, routing: RoutingDecision | None, report: AccessReport) -> None:
        """Take note of what the gateway saw; without a routing it served on its own.

        Of an aborted request only the tokens count: its length and time say nothing.
        """
        if routing is None:
            self.without_epp += 1
            self._metrics.served_without_epp(1)
            return
        if report.served_by and report.served_by not in routing.targets:
            self._metrics.pick_not_honoured()
        request = routing.request
        aborted = self._aborted.pop((request.request_id, request.received_at), False)
        if not request.has_body:
            return
        self._metrics.request_usage(
            request.model,
            routing.target_model,
            routing.decision.request.priority,
            response_bytes=None if aborted else report.response_bytes,
            usage=report.usage,
            duration_seconds=None if aborted else report.duration_seconds,
        )

    def _resolve(self, incoming: IncomingRequest) -> ResolvedModel:
        return resolve_model(incoming.model, self._datastore, self._unknown_model, self._random)

    def _route(self, incoming: IncomingRequest, resolved: ResolvedModel) -> RoutingDecision:
        self._wake()
        table = self._datastore.endpoint_table()
        try:
            candidates = self._candidates.of(table, incoming.subset)
        except UnavailableError as exc:
            if self._strict_v03 and incoming.has_body:
                raise ResourceExhaustedError(exc.message, dropped_reason=SATURATED) from exc
            raise
        self._admit(resolved, table, candidates)
        request = InferenceRequest(
            request_id=incoming.request_id,
            model=incoming.model,
            target_model=resolved.target_model,
            priority=resolved.priority,
            critical=resolved.critical,
            size_bytes=incoming.size_bytes,
            headers=incoming.headers,
            payload=incoming.payload,
        )
        decision = self._schedule(request, table, candidates)
        endpoints = decision.endpoints
        return RoutingDecision(
            request=incoming,
            target_model=resolved.target_model,
            endpoint=endpoints[0],
            targets=tuple(endpoint.target for endpoint in endpoints),
            decision=decision,
        )

    def _wake(self) -> None:
        try:
            self._on_request()
        except Exception as exc:
            self._faults.say("waking the scraper failed", error=exc)

    def _admit(self, resolved: ResolvedModel, table: EndpointTable, candidates: Mask) -> None:
        try:
            self._admission.admit(resolved, table, candidates)
        except EppError:
            raise
        except Exception as exc:
            self._faults.say("admission failed, request admitted", error=exc)

    def _note_failures(self, decision: Decision) -> None:
        for run in decision.profiles:
            for failure in run.failures:
                self._faults.say("plugin failed", error=failure.error, plugin=failure.name)
                if not failure.timed:
                    self._metrics.plugin_error(failure.extension_point, failure.type, failure.name)

    def _schedule(
        self, request: InferenceRequest, table: EndpointTable, candidates: Mask
    ) -> Decision:
        began = self._clock()
        try:
            decision = self._scheduler.schedule(request, table, candidates, self._random)
        except Exception as exc:
            self._faults.say("scheduling failed, picking at random", error=exc)
            self._metrics.plugin_error("Scheduler", FALLBACK_PROFILE, type(exc).__name__)
            decision = self._fallback(request, table, candidates)
        self._note_failures(decision)
        picks = decision.result.picks
        seconds = self._clock() - began
        if not picks:
            self._metrics.scheduler_run(seconds, False, target_model=request.target_model)
            raise ResourceExhaustedError(
                "no endpoint has room for this request", dropped_reason=SATURATED
            )
        endpoint = table.endpoints[picks[0]]
        self._metrics.scheduler_run(
            seconds,
            True,
            target_model=request.target_model,
            endpoint_name=endpoint.name,
            namespace=endpoint.namespace,
            port=endpoint.port,
        )
        return decision

    def _fallback(
        self, request: InferenceRequest, table: EndpointTable, candidates: Mask
    ) -> Decision:
        healthy = candidates & ~table.failing
        rows = np.flatnonzero(healthy if healthy.any() else candidates)
        run = ProfileRunResult(
            profile=FALLBACK_PROFILE,
            filters=(),
            scorers=(),
            totals=np.empty(0),
            picker="random",
            picks=(int(rows[self._random.randrange(len(rows))]),),
        )
        return Decision(
            request=request,
            table=table,
            candidates=candidates,
            profiles=(run,),
            primary=FALLBACK_PROFILE,
        )

    def _accept(self, routing: RoutingDecision, resolved: ResolvedModel) -> None:
        self.routed += 1
        self.in_flight.begin(routing)
        self._hooks.pre_request(routing)
        request = routing.request
        try:
            self.decisions.add(routing)
            if request.has_body:
                self._metrics.request_routed(
                    request.model, routing.target_model, resolved.priority, request.size_bytes
                )
        except Exception as exc:
            self._faults.say("taking note of a pick failed", error=exc)

    def _refuse(self, incoming: IncomingRequest, resolved: ResolvedModel, error: EppError) -> None:
        self.refused += 1
        target = resolved.target_model or incoming.model
        self._metrics.request_failed(incoming.model, target, resolved.priority, error.code)


def _failure_of(completion: Completion) -> ErrorCode | None:
    """What went wrong, if anything. That a client went away is no failure.

    Any status but 2xx is the model server's failure; the reference reads ``status`` where the
    gateway sends ``:status``, and so never counts one.
    """
    if completion.status and not 200 <= completion.status < 300:
        return ErrorCode.MODEL_SERVER_ERROR
    return ErrorCode.UNKNOWN if completion.cause is CompletionCause.ERROR else None
