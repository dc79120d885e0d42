"""DirectorWorld: a director on a pool of idle (or loaded) pods, and all that can be seen of it.

Requests, ends and reports of the gateway's log have everything defaulted that a test does not mean.
"""

import contextlib
import random
from collections.abc import Callable, Sequence
from typing import Any

from epp.backend.endpoint_rows import EndpointRows
from epp.backend.metrics_state import MetricsState
from epp.datastore.datastore import Datastore
from epp.metrics.usage import TokenUsage
from epp.requestcontrol.admission import Admission, AdmitAll, SaturationAdmission
from epp.requestcontrol.bookkeeping import DirectorMetrics
from epp.requestcontrol.candidates import Candidates
from epp.requestcontrol.decision_log import DecisionLog
from epp.requestcontrol.director import Director
from epp.requestcontrol.hooks import PreRequest, ResponseComplete
from epp.requestcontrol.model_resolution import UnknownModelPolicy
from epp.requestcontrol.types import (
    AccessReport,
    Completion,
    CompletionCause,
    IncomingRequest,
    RoutingDecision,
)
from epp.saturation.detector import SaturationDetector
from epp.scheduling.filters.low_latency import LowLatencyFilter, LowLatencySettings
from epp.scheduling.framework import Filter, PluginTimer, ProfileHandler, TypedName
from epp.scheduling.pickers.random_picker import RandomPicker
from epp.scheduling.profile import SchedulerProfile
from epp.scheduling.profilehandlers.single_profile_handler import SingleProfileHandler
from epp.scheduling.scheduler import Scheduler
from epp.testing.builders import make_endpoint, make_model
from epp.testing.fake_clock import FakeClock
from epp_api.v1alpha2.inferencemodel_types import Criticality, InferenceModel
from epp_api.v1alpha2.inferencemodelrewrite_types import InferenceModelRewrite
from epp_api.v1alpha2.inferenceobjective_types import InferenceObjective

FOOD = make_model(model_name="food", targets={"food-v1": 1})
BATCH = make_model(model_name="batch", criticality=Criticality.SHEDDABLE)
USAGE = TokenUsage(prompt_tokens=10, completion_tokens=20)

Call = tuple[tuple[object, ...], dict[str, object]]


def no_timer(_point: str, _name: TypedName) -> PluginTimer:
    """Observe nothing."""
    return contextlib.nullcontext()


class RecordingMetrics:
    """Implements ``DirectorMetrics``: remembers every call.

    Args:
        broken: Raises after remembering.

    Attributes:
        scheduler_seconds: How long each scheduling run took.
    """

    def __init__(self, *, broken: bool = False) -> None:
        self.calls: list[tuple[str, tuple[object, ...], dict[str, object]]] = []
        self.scheduler_seconds: list[float] = []
        self._broken = broken

    def request_routed(
        self, model: str, target_model: str, priority: int, size_bytes: int, /
    ) -> None:
        """See ``DirectorMetrics``, as all the others."""
        self._note("request_routed", model, target_model, priority, size_bytes)

    def request_finished(self, model: str, target_model: str, priority: int, **known: Any) -> None:
        """A request runs no more."""
        self._note("request_finished", model, target_model, priority, **known)

    def request_usage(self, model: str, target_model: str, priority: int, **known: Any) -> None:
        """The access log added something."""
        self._note("request_usage", model, target_model, priority, **known)

    def request_failed(
        self, model: str, target_model: str, priority: int, error_code: str, /
    ) -> None:
        """A request was refused, or its model server failed."""
        self._note("request_failed", model, target_model, priority, error_code)

    def scheduler_run(
        self,
        seconds: float,
        ok: bool,
        **labels: Any,
    ) -> None:
        """One scheduling run."""
        self.scheduler_seconds.append(seconds)
        self._note("scheduler_run", ok, **labels)

    def plugin_error(self, extension_point: str, plugin_type: str, plugin_name: str, /) -> None:
        """A plugin failed."""
        self._note("plugin_error", extension_point, plugin_type, plugin_name)

    def served_without_epp(self, n: int = 1, /) -> None:
        """The gateway served on its own."""
        self._note("served_without_epp", n)

    def pick_not_honoured(self) -> None:
        """Another endpoint than the pick served."""
        self._note("pick_not_honoured")

    def named(self, name: str) -> list[Call]:
        """Arguments of every call of a method."""
        return [(args, kwargs) for called, args, kwargs in self.calls if called == name]

    def names(self) -> list[str]:
        """Names of the methods called, in order."""
        return [name for name, _, _ in self.calls]

    def _note(self, name: str, *args: object, **kwargs: object) -> None:
        self.calls.append((name, args, kwargs))
        if self._broken:
            raise RuntimeError("metrics defect")


class DirectorWorld:
    """A director and its surroundings.

    Args:
        pods: Their number.
        waiting: Requests that wait at each of them.
        models: InferenceModels of the pool.
        objectives: InferenceObjectives of the pool.
        rewrites: InferenceModelRewrites of the pool.
        unknown_model: Policy.
        strict: The rules of v0.3.
        handler: Profile handler in place of the usual one.
        scheduler: In place of the latency tree with a random picker.
        filters: Before the latency tree.
        admission: In place of the usual one.
        decisions: In place of a log of the usual size.
        hooks: Request-control plugins.
        on_request: Called for each request.
        datastore: In place of one that holds what is above.
        metrics: In place of ones that work.
    """

    def __init__(
        self,
        *,
        pods: int = 2,
        waiting: int = 0,
        models: Sequence[InferenceModel] = (FOOD, BATCH),
        objectives: Sequence[InferenceObjective] = (),
        rewrites: Sequence[InferenceModelRewrite] = (),
        unknown_model: UnknownModelPolicy = UnknownModelPolicy.AUTO,
        strict: bool = False,
        handler: ProfileHandler | None = None,
        scheduler: Scheduler | None = None,
        filters: Sequence[Filter] = (),
        admission: Admission | None = None,
        decisions: DecisionLog | None = None,
        hooks: Sequence[PreRequest | ResponseComplete] = (),
        on_request: Callable[[], None] = lambda: None,
        datastore: Datastore | None = None,
        metrics: RecordingMetrics | None = None,
    ) -> None:
        self.clock = FakeClock()
        self.rows = EndpointRows()
        self.metrics = metrics or RecordingMetrics()
        self.datastore = datastore or Datastore(self.rows, clock=self.clock)
        for model in models:
            self.datastore.model_resolve(model.spec.model_name, [model])
        for objective in objectives:
            self.datastore.objective_set(objective)
        for rewrite in rewrites:
            self.datastore.rewrite_set(rewrite)
        for number in range(pods):
            self.bring(f"pod-{number}", f"10.0.0.{number + 1}", waiting=waiting)
        tree = LowLatencyFilter(LowLatencySettings(strict_v03=strict))
        profile = SchedulerProfile(name="p", filters=[*filters, tree], picker=RandomPicker())
        usual = Scheduler({"p": profile}, handler or SingleProfileHandler(), no_timer)
        shedding = AdmitAll() if strict else SaturationAdmission(SaturationDetector())
        told: DirectorMetrics = self.metrics
        self.director = Director(
            datastore=self.datastore,
            scheduler=scheduler or usual,
            admission=admission or shedding,
            candidates=Candidates(),
            rows=self.rows,
            metrics=told,
            observe=no_timer,
            random=random.Random(1),
            hooks=hooks,
            decisions=decisions,
            unknown_model=unknown_model,
            strict_v03=strict,
            on_request=on_request,
            clock=self.clock,
        )

    def bring(self, name: str, address: str, *, waiting: int = 0) -> None:
        """Add a pod that has just been scraped, or change its address."""
        pod = make_endpoint(name, address=address)
        self.rows.put(pod)
        now = self.clock()
        state = MetricsState(waiting_requests=waiting)
        self.rows.publish(pod.key, state, now=now, due_at=now + 1e6)

    def send(self, model: str = "food", **fields: Any) -> RoutingDecision:
        """Route a request."""
        return self.director.handle_request(self.incoming(model, **fields))

    def incoming(self, model: str = "food", **fields: Any) -> IncomingRequest:
        """A request that arrives now."""
        known = {"request_id": "r", "path": "/v1/completions", "size_bytes": 120}
        return IncomingRequest(**{**known, "received_at": self.clock(), "model": model, **fields})

    def in_flight(self) -> int:
        """Requests in flight as the table shows them, of all pods together."""
        return int(self.datastore.endpoint_table().in_flight.sum())


def make_completion(cause: CompletionCause = CompletionCause.NATURAL, **fields: Any) -> Completion:
    """The end of a request, 2.5 s after the beginning of a world's time."""
    return Completion(**{"cause": cause, "status": 200, "completed_at": 1002.5, **fields})


def make_access_report(**fields: Any) -> AccessReport:
    """What the gateway's log says of a response that the first pod gave."""
    known: dict[str, Any] = {
        "request_id": "r",
        "served_by": "10.0.0.1:8000",
        "status": 200,
        "response_bytes": 500,
        "first_byte_seconds": 0.1,
        "duration_seconds": 2.5,
        "usage": USAGE,
    }
    return AccessReport(**{**known, **fields})
