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

from epp.backend.endpoint_rows import EndpointRows
from epp.backend.endpoint_table import EndpointTable, Mask
from epp.errors import EppError, InternalError, ResourceExhaustedError, UnavailableError
from epp.requestcontrol.admission import SATURATED, Admission
from epp.requestcontrol.bookkeeping import Bookkeeping, DirectorMetrics
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
    IncomingRequest,
    RoutingDecision,
)
from epp.scheduling.framework import PluginObserver, RandomSource
from epp.scheduling.scheduler import Scheduler
from epp.scheduling.types import Decision, InferenceRequest, ProfileRunResult

FALLBACK_PROFILE = "fallback"
_BODYLESS = ResolvedModel(target_model="", critical=True)
"""A request without a body has no model and is never shed."""


class DatastoreView(ModelView, Protocol):
    """What the director needs of the datastore."""

    def endpoint_table(self) -> EndpointTable:
        """Snapshot of the endpoints."""
        ...


class Director:
    """Routes requests.

    Args:
        datastore: Models, objectives, rewrites and endpoints.
        scheduler: Decides.
        admission: Sheds.
        candidates: Applies subset hints.
        rows: For in-flight counts.
        metrics: Counts.
        observe: Wraps hook calls.
        hooks: Plugins with request-control roles.
        decisions: Remembers what was decided.
        unknown_model: What becomes of undeclared models.
        strict_v03: As in v0.3 no endpoint is 429 instead of 503, and InferenceModels alone decide
            on target and priority: no objectives, no rewrites, none of their headers.
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
        self._random = random
        self._faults = FaultLog(clock)
        self._book = Bookkeeping(metrics, self._faults)
        self._hooks = Hooks(hooks, observe, self._faults)
        self.decisions = decisions or DecisionLog()
        self.in_flight = InFlight(rows)
        self._unknown_model = unknown_model
        self._strict_v03 = strict_v03
        self._on_request = on_request
        self._clock = clock

    @property
    def routed(self) -> int:
        """Requests that got an endpoint, since the start."""
        return self._book.routed

    @property
    def refused(self) -> int:
        """Requests that were answered with an error."""
        return self._book.refused

    @property
    def without_epp(self) -> int:
        """Requests that the gateway served on its own."""
        return self._book.without_epp

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
            self._book.note_refused(incoming, resolved, exc)
            raise
        except Exception as exc:
            self._faults.say("request failed", error=exc)
            failure = InternalError("the endpoint picker failed; see its log")
            self._book.note_refused(incoming, resolved, failure)
            raise failure from exc
        self._accept(routing)
        return routing

    def note_refused(self) -> None:
        """Count a request that was answered with an error before it got here."""
        self._book.refused += 1

    def handle_complete(self, routing: RoutingDecision, completion: Completion) -> None:
        """Take note of the end of a routed request. Only the first call per routing counts."""
        if not self.in_flight.end(routing):
            return
        self._hooks.response_complete(routing, completion)
        self._book.note_completed(routing, completion)

    def handle_access_report(self, routing: RoutingDecision | None, report: AccessReport) -> None:
        """Take note of what the gateway saw; without a routing it served on its own."""
        self._book.note_reported(routing, report)

    def _resolve(self, incoming: IncomingRequest) -> ResolvedModel:
        return resolve_model(
            incoming.model,
            self._datastore,
            self._unknown_model,
            self._random,
            headers=incoming.headers,
            strict_v03=self._strict_v03,
        )

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
            objective=resolved.objective,
            rewrite=resolved.rewrite,
        )
        decision = self._schedule(request, table, candidates)
        endpoints = decision.endpoints
        return RoutingDecision(
            request=incoming,
            target_model=resolved.target_model,
            endpoint=endpoints[0],
            targets=tuple([endpoint.target for endpoint in endpoints]),
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

    def _schedule(
        self, request: InferenceRequest, table: EndpointTable, candidates: Mask
    ) -> Decision:
        began = self._clock()
        try:
            decision = self._scheduler.schedule(request, table, candidates, self._random)
        except Exception as exc:
            self._faults.say("scheduling failed, picking at random", error=exc)
            self._book.note_plugin_error("Scheduler", FALLBACK_PROFILE, type(exc).__name__)
            decision = self._fallback(request, table, candidates)
        for run in decision.profiles:
            for failure in run.failures:
                self._book.note_failure(failure)
        picks = decision.result.picks
        endpoint = table.endpoints[picks[0]] if picks else None
        self._book.note_scheduled(self._clock() - began, request.target_model, endpoint)
        if endpoint is None:
            raise ResourceExhaustedError(
                "no endpoint has room for this request", dropped_reason=SATURATED
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

    def _accept(self, routing: RoutingDecision) -> None:
        self.in_flight.begin(routing)
        self._hooks.pre_request(routing)
        try:
            self.decisions.add(routing)
        except Exception as exc:
            self._faults.say("taking note of a pick failed", error=exc)
        self._book.note_routed(routing)
