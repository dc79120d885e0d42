"""Director: the life of a request, from the client's words to an endpoint and to its end.

Order: model → candidates → admission → schedule → hooks. No endpoint at all is 503 for everyone,
before anybody is shed. A fault inside scheduling is contained: the request goes to a random
candidate rather than nowhere. Synchronous; owns in-flight accounting and the decision log.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

import numpy as np
from cachetools import TTLCache

from epp.backend.endpoint_rows import EndpointRows
from epp.backend.endpoint_table import EndpointTable, Mask
from epp.errors import EppError, InternalError, ResourceExhaustedError, UnavailableError
from epp.logs import get_logger
from epp.metrics.usage import TokenUsage
from epp.requestcontrol.admission import SATURATED, Admission
from epp.requestcontrol.candidates import Candidates
from epp.requestcontrol.decision_log import DecisionLog
from epp.requestcontrol.hooks import PreRequest, ResponseComplete
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

log = get_logger(__name__)

FALLBACK_PROFILE = "fallback"
_BODYLESS = ResolvedModel(target_model="", critical=True)
"""A request without a body has no model and is never shed."""

LOG_EVERY_SECONDS = 60.0
MAX_REMEMBERED_FAULTS = 64


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
        self._observe = observe
        self._random = random
        self._pre_request = [hook for hook in hooks if isinstance(hook, PreRequest)]
        self._on_complete = [hook for hook in hooks if isinstance(hook, ResponseComplete)]
        self.decisions = decisions or DecisionLog()
        self.in_flight = InFlight(rows)
        self._unknown_model = unknown_model
        self._strict_v03 = strict_v03
        self._on_request = on_request
        self._clock = clock
        self._said: TTLCache[str, bool] = TTLCache(
            MAX_REMEMBERED_FAULTS, LOG_EVERY_SECONDS, timer=clock
        )
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
            self._say_once("request failed", exc)
            failure = InternalError("the endpoint picker failed; see its log")
            self._refuse(incoming, resolved, failure)
            raise failure from exc
        self._accept(routing, resolved)
        return routing

    def handle_complete(self, routing: RoutingDecision, completion: Completion) -> None:
        """Take note of the end of a routed request. Only the first call per routing counts."""
        if not self.in_flight.end(routing):
            return
        request = routing.request
        for hook in self._on_complete:
            self._contained(
                hook, "ResponseComplete", partial(hook.response_complete, routing, completion)
            )
        if not request.has_body:
            return
        labels = (request.model, routing.target_model, routing.decision.request.priority)
        natural = completion.cause is CompletionCause.NATURAL
        first = completion.first_body_at
        self._metrics.request_finished(
            *labels,
            duration_seconds=completion.completed_at - request.received_at if natural else None,
            ttft_seconds=None if first is None else first - request.received_at,
            response_bytes=completion.response_bytes if natural else None,
            usage=completion.usage,
            streaming=completion.streaming,
        )
        if completion.status >= 400:
            self._metrics.request_failed(*labels, "ModelServerError")

    def handle_access_report(self, routing: RoutingDecision | None, report: AccessReport) -> None:
        """Take note of what the gateway saw; without a routing it served on its own."""
        if routing is None:
            self.without_epp += 1
            self._metrics.served_without_epp(1)
            return
        if report.served_by and report.served_by not in routing.targets:
            self._metrics.pick_not_honoured()
        if not routing.request.has_body:
            return
        self._metrics.request_usage(
            routing.request.model,
            routing.target_model,
            routing.decision.request.priority,
            response_bytes=report.response_bytes,
            usage=report.usage,
            duration_seconds=report.duration_seconds,
        )

    def _resolve(self, incoming: IncomingRequest) -> ResolvedModel:
        return resolve_model(incoming.model, self._datastore, self._unknown_model, self._random)

    def _route(self, incoming: IncomingRequest, resolved: ResolvedModel) -> RoutingDecision:
        self._on_request()
        table = self._datastore.endpoint_table()
        try:
            candidates = self._candidates.of(table, incoming.subset)
        except UnavailableError as exc:
            if self._strict_v03 and incoming.has_body:
                raise ResourceExhaustedError(exc.message, dropped_reason=SATURATED) from exc
            raise
        self._admission.admit(resolved, table, candidates)
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

    def _schedule(
        self, request: InferenceRequest, table: EndpointTable, candidates: Mask
    ) -> Decision:
        began = self._clock()
        try:
            decision = self._scheduler.schedule(request, table, candidates, self._random)
        except Exception as exc:
            self._say_once("scheduling failed, picking at random", exc)
            decision = self._fallback(request, table, candidates)
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
        rows = np.flatnonzero(candidates)
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
        self.decisions.add(routing)
        for hook in self._pre_request:
            self._contained(hook, "PreRequest", partial(hook.pre_request, routing))
        request = routing.request
        if request.has_body:
            self._metrics.request_routed(
                request.model, routing.target_model, resolved.priority, request.size_bytes
            )

    def _refuse(self, incoming: IncomingRequest, resolved: ResolvedModel, error: EppError) -> None:
        self.refused += 1
        target = resolved.target_model or incoming.model
        self._metrics.request_failed(incoming.model, target, resolved.priority, error.code)

    def _contained(
        self, hook: PreRequest | ResponseComplete, point: str, call: Callable[[], None]
    ) -> None:
        try:
            with self._observe(point, hook.typed_name):
                call()
        except Exception as exc:
            self._say_once(f"{point} hook {hook.typed_name.name} failed", exc)

    def _say_once(self, event: str, exc: Exception) -> None:
        if event not in self._said:
            self._said[event] = True
            log.error(event, error=exc, again_after_seconds=LOG_EVERY_SECONDS)
