"""The life of a request: order, errors, containment, and what is counted when.

The published vectors of the decision tree are in ``test_director_vectors.py``.
"""

import contextlib
import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from structlog.testing import capture_logs

from epp.backend.endpoint_rows import EndpointRows
from epp.backend.endpoint_table import EndpointTable
from epp.backend.metrics_state import MetricsState
from epp.errors import EppError, ErrorCode, InternalError, UnavailableError
from epp.metrics.usage import TokenUsage
from epp.requestcontrol.admission import Admission, AdmitAll, SaturationAdmission
from epp.requestcontrol.candidates import Candidates
from epp.requestcontrol.decision_log import DecisionLog
from epp.requestcontrol.director import Director, DirectorMetrics
from epp.requestcontrol.types import (
    AccessReport,
    Completion,
    CompletionCause,
    IncomingRequest,
    RoutingDecision,
)
from epp.saturation.detector import SaturationDetector
from epp.scheduling.filters.low_latency import LowLatencyFilter, LowLatencySettings
from epp.scheduling.framework import Cycle, TypedName
from epp.scheduling.pickers.random_picker import RandomPicker
from epp.scheduling.profile import SchedulerProfile
from epp.scheduling.profilehandlers.single_profile_handler import SingleProfileHandler
from epp.scheduling.scheduler import Scheduler
from epp.testing.builders import make_endpoint, make_model
from epp.testing.fake_clock import FakeClock
from epp_api.v1alpha2.inferencemodel_types import Criticality, InferenceModel

MODEL = make_model(model_name="food", targets={"food-v1": 1})
BATCH = make_model(model_name="batch", criticality=Criticality.SHEDDABLE)
USAGE = TokenUsage(prompt_tokens=10, completion_tokens=20)


class Recorder:
    """Implements ``DirectorMetrics``: remembers every call."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[object, ...], dict[str, object]]] = []

    def _note(self, name: str, *args: object, **kwargs: object) -> None:
        self.calls.append((name, args, kwargs))

    def request_routed(
        self, model: str, target_model: str, priority: int, size_bytes: int, /
    ) -> None:
        self._note("request_routed", model, target_model, priority, size_bytes)

    def request_finished(self, model: str, target_model: str, priority: int, **known: Any) -> None:
        self._note("request_finished", model, target_model, priority, **known)

    def request_usage(self, model: str, target_model: str, priority: int, **known: Any) -> None:
        self._note("request_usage", model, target_model, priority, **known)

    def request_failed(
        self, model: str, target_model: str, priority: int, error_code: str, /
    ) -> None:
        self._note("request_failed", model, target_model, priority, error_code)

    def scheduler_run(self, seconds: float, ok: bool, **labels: Any) -> None:
        self._note("scheduler_run", ok, **labels)

    def plugin_error(self, extension_point: str, plugin_type: str, plugin_name: str, /) -> None:
        self._note("plugin_error", extension_point, plugin_type, plugin_name)

    def served_without_epp(self, n: int = 1, /) -> None:
        self._note("served_without_epp", n)

    def pick_not_honoured(self) -> None:
        self._note("pick_not_honoured")

    def named(self, name: str) -> list[tuple[tuple[object, ...], dict[str, object]]]:
        return [(args, kwargs) for called, args, kwargs in self.calls if called == name]


class World:
    """A director on a pool of idle pods (or loaded ones), and all that can be seen of it."""

    def __init__(
        self,
        *,
        pods: int = 2,
        waiting: int = 0,
        models: Sequence[InferenceModel] = (MODEL, BATCH),
        strict: bool = False,
        handler: Any = None,
        filters: Sequence[Any] = (),
        admission: Admission | None = None,
        decisions: DecisionLog | None = None,
        hooks: Sequence[Any] = (),
        on_request: Callable[[], None] = lambda: None,
    ) -> None:
        self.clock = FakeClock()
        self.rows = EndpointRows()
        self.metrics = Recorder()
        self.models = {model.spec.model_name: model for model in models}
        for number in range(pods):
            pod = make_endpoint(f"pod-{number}", address=f"10.0.0.{number + 1}")
            self.rows.put(pod)
            state = MetricsState(waiting_requests=waiting)
            self.rows.publish(pod.key, state, now=self.clock(), due_at=self.clock() + 1e6)
        tree = LowLatencyFilter(LowLatencySettings(strict_v03=strict))
        profile = SchedulerProfile(name="p", filters=[*filters, tree], picker=RandomPicker())
        shedding = AdmitAll() if strict else SaturationAdmission(SaturationDetector())
        metrics: DirectorMetrics = self.metrics
        self.director = Director(
            datastore=self,
            scheduler=Scheduler({"p": profile}, handler or SingleProfileHandler(), no_timer),
            admission=admission or shedding,
            candidates=Candidates(),
            rows=self.rows,
            metrics=metrics,
            observe=no_timer,
            random=random.Random(1),
            hooks=hooks,
            decisions=decisions,
            strict_v03=strict,
            on_request=on_request,
            clock=self.clock,
        )

    @property
    def models_in_use(self) -> bool:
        return bool(self.models)

    def model_get(self, model_name: str) -> InferenceModel | None:
        return self.models.get(model_name)

    def endpoint_table(self) -> EndpointTable:
        return self.rows.snapshot(self.clock())

    def send(self, model: str = "food", **fields: Any) -> RoutingDecision:
        return self.director.handle_request(self.incoming(model, **fields))

    def incoming(self, model: str = "food", **fields: Any) -> IncomingRequest:
        known = {"request_id": "r", "path": "/v1/completions", "size_bytes": 120}
        return IncomingRequest(**{**known, "received_at": self.clock(), "model": model, **fields})

    def in_flight(self) -> int:
        return int(self.endpoint_table().in_flight.sum())


def no_timer(_point: str, _name: TypedName) -> Any:
    return contextlib.nullcontext()


def end(cause: CompletionCause = CompletionCause.NATURAL, **fields: Any) -> Completion:
    return Completion(**{"cause": cause, "status": 200, "completed_at": 1002.5, **fields})


def report(**fields: Any) -> AccessReport:
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


def test_a_routed_request_is_counted_scheduled_remembered_and_in_flight() -> None:
    world = World()

    routing = world.send()

    assert routing.target_model == "food-v1"
    assert routing.targets == (routing.endpoint.target,)
    assert world.metrics.named("request_routed") == [(("food", "food-v1", 1, 120), {})]
    ((ok,), labels) = world.metrics.named("scheduler_run")[0]
    assert ok
    assert labels["endpoint_name"] == routing.endpoint.name
    assert labels["target_model"] == "food-v1"
    assert world.director.decisions.find("r")[0].targets == routing.targets
    assert world.in_flight() == len(world.director.in_flight) == 1


@pytest.mark.parametrize(
    ("world", "fields", "code", "reason", "labels"),
    [
        pytest.param(
            {}, {"model": ""}, ErrorCode.BAD_REQUEST, None, ("", "", 0), id="no-model-400"
        ),
        pytest.param(
            {}, {"model": "x"}, ErrorCode.BAD_CONFIGURATION, None, ("x", "x", 0), id="unknown-404"
        ),
        pytest.param(
            {"pods": 0},
            {"model": "batch"},
            ErrorCode.SERVICE_UNAVAILABLE,
            "rejected-no-endpoints",
            ("batch", "batch", -1),
            id="no-endpoint-503-before-shedding",
        ),
        pytest.param(
            {"pods": 0},
            {"model": "x"},
            ErrorCode.BAD_CONFIGURATION,
            None,
            ("x", "x", 0),
            id="unknown-404-before-no-endpoint",
        ),
        pytest.param(
            {"pods": 0, "strict": True},
            {},
            ErrorCode.RESOURCE_EXHAUSTED,
            "rejected-saturated",
            ("food", "food-v1", 1),
            id="strict-no-endpoint-429",
        ),
        pytest.param(
            {"waiting": 6},
            {"model": "batch"},
            ErrorCode.RESOURCE_EXHAUSTED,
            "rejected-saturated",
            ("batch", "batch", -1),
            id="shed-429",
        ),
        pytest.param(
            {"waiting": 6, "strict": True},
            {},
            ErrorCode.RESOURCE_EXHAUSTED,
            "rejected-saturated",
            ("food", "food-v1", 1),
            id="strict-sheds-standard-429",
        ),
        pytest.param(
            {},
            {"subset": ("10.9.9.9",)},
            ErrorCode.SERVICE_UNAVAILABLE,
            "rejected-no-endpoints",
            ("food", "food-v1", 1),
            id="subset-without-match-503",
        ),
        pytest.param(
            {"pods": 0},
            {"model": "", "has_body": False},
            ErrorCode.SERVICE_UNAVAILABLE,
            "rejected-no-endpoints",
            ("", "", 0),
            id="no-body-503",
        ),
    ],
)
def test_refusals(
    world: dict[str, Any],
    fields: dict[str, Any],
    code: ErrorCode,
    reason: str | None,
    labels: tuple[str, str, int],
) -> None:
    it = World(**world)

    with pytest.raises(EppError) as info:
        it.send(**fields)

    assert (info.value.code, info.value.dropped_reason) == (code, reason)
    assert it.metrics.named("request_failed") == [((*labels, code), {})]
    assert not it.metrics.named("request_routed")
    assert it.in_flight() == 0


def test_a_saturated_pool_still_serves_what_may_not_be_shed() -> None:
    assert World(waiting=6).send("food").endpoint


def test_shedding_looks_at_the_candidates_only() -> None:
    world = World(waiting=6)
    idle = make_endpoint("idle", address="10.0.0.9")
    world.rows.put(idle)
    world.rows.publish(idle.key, MetricsState(), now=world.clock(), due_at=world.clock() + 1e6)

    assert world.send("batch").endpoint == idle
    with pytest.raises(EppError, match="saturated"):
        world.send("batch", subset=("10.0.0.1",))


def test_a_request_without_a_body_is_scheduled_within_the_hint_and_counts_for_no_model() -> None:
    world = World(waiting=6)

    routing = world.send("", has_body=False, subset=("10.0.0.2",))
    world.director.handle_complete(routing, end())
    world.director.handle_access_report(routing, report(served_by="10.0.0.2:8000"))

    assert routing.endpoint.pod_name == "pod-1"
    assert [name for name, _, _ in world.metrics.calls] == ["scheduler_run"]
    assert world.in_flight() == 0


def test_each_request_wakes_the_scraper_and_a_failing_scraper_fails_no_request() -> None:
    woken = []

    def wake() -> None:
        woken.append(1)
        raise RuntimeError("defect")

    with capture_logs():
        World(on_request=wake).send()

    assert woken == [1]


class BadPlugin:
    """Fails wherever it is called."""

    typed_name = TypedName("bad", "bad")

    def _fail(self, *_args: object) -> Any:
        raise RuntimeError("defect")

    next_profile = primary = filter = admit = pre_request = response_complete = add = _fail


class Witness:
    """A hook that remembers."""

    typed_name = TypedName("witness", "witness")

    def __init__(self) -> None:
        self.seen: list[str] = []

    def pre_request(self, routing: RoutingDecision) -> None:
        self.seen.append(f"pick {routing.endpoint.pod_name}")

    def response_complete(self, routing: RoutingDecision, completion: Completion) -> None:
        self.seen.append(f"end {completion.cause.value}")


@pytest.mark.parametrize(
    ("fault", "event"),
    [
        pytest.param(
            {"handler": BadPlugin()}, "scheduling failed, picking at random", id="handler"
        ),
        pytest.param({"filters": [BadPlugin()]}, "plugin failed", id="filter"),
        pytest.param(
            {"admission": BadPlugin()}, "admission failed, request admitted", id="admission"
        ),
        pytest.param({"hooks": [BadPlugin()]}, "hook failed", id="hook"),
        pytest.param({"decisions": BadPlugin()}, "taking note of a pick failed", id="ring"),
    ],
)
def test_a_fault_inside_is_logged_once_a_minute_and_the_request_is_served(
    fault: dict[str, Any], event: str
) -> None:
    world = World(**fault)

    with capture_logs() as logs:
        for _ in range(3):
            routing = world.send()
            world.director.handle_complete(routing, end(CompletionCause.CLIENT_DISCONNECT))
        world.clock.advance(61)
        world.send()

    assert [line["event"] for line in logs] == [event, event]
    assert world.in_flight() == 1


def test_the_fallback_is_counted_and_avoids_endpoints_whose_scrapes_fail() -> None:
    world = World(handler=BadPlugin(), pods=3)
    for number in (0, 2):
        world.rows.fail(make_endpoint(f"pod-{number}").key, due_at=world.clock() + 1e6)

    with capture_logs():
        picks = {world.send().endpoint.pod_name for _ in range(20)}

    assert picks == {"pod-1"}
    assert world.metrics.named("plugin_error")[0][0] == ("Scheduler", "fallback", "RuntimeError")


def test_an_endpoint_whose_scrapes_fail_is_better_than_none() -> None:
    world = World(handler=BadPlugin(), pods=1)
    world.rows.fail(make_endpoint("pod-0").key, due_at=world.clock() + 1e6)

    with capture_logs():
        assert world.send().endpoint.pod_name == "pod-0"


def test_a_hook_that_raises_does_not_keep_the_others_from_running() -> None:
    witness = Witness()
    world = World(hooks=[BadPlugin(), witness], pods=1)

    with capture_logs():
        world.director.handle_complete(world.send(), end())

    assert witness.seen == ["pick pod-0", "end natural"]


def test_anything_unexpected_becomes_an_internal_error_without_details() -> None:
    world = World()
    vars(world)["models"] = None  # the datastore itself is broken

    with capture_logs() as logs, pytest.raises(InternalError) as info:
        world.send()

    assert "NoneType" not in info.value.message
    assert [line["event"] for line in logs] == ["request failed"]
    assert world.metrics.named("request_failed")[0][0][-1] == ErrorCode.INTERNAL


def test_the_end_of_a_request_is_counted_once() -> None:
    witness = Witness()
    world = World(hooks=[witness])
    routing = world.send()

    world.director.handle_complete(routing, end())
    world.director.handle_complete(routing, end(CompletionCause.ERROR))

    assert len(world.metrics.named("request_finished")) == 1
    assert not world.metrics.named("request_failed")
    assert len(witness.seen) == 2
    assert world.in_flight() == 0


def test_the_end_of_a_request_to_an_endpoint_that_left_is_counted() -> None:
    world = World(pods=1)
    routing = world.send()

    world.rows.remove(routing.endpoint.key)
    world.director.handle_complete(routing, end())

    assert len(world.metrics.named("request_finished")) == 1
    assert len(world.director.in_flight) == 0


@pytest.mark.parametrize(
    ("completion", "duration", "ttft", "size"),
    [
        pytest.param(end(first_body_at=1000.5, response_bytes=500), 2.5, 0.5, 500, id="natural"),
        pytest.param(end(), 2.5, None, None, id="lean-path-sees-no-body"),
        pytest.param(
            end(CompletionCause.CLIENT_DISCONNECT, first_body_at=1000.5, response_bytes=9),
            None,
            None,
            None,
            id="client-went-away",
        ),
        pytest.param(
            end(CompletionCause.ERROR, first_body_at=1000.5, response_bytes=9),
            None,
            None,
            None,
            id="error",
        ),
    ],
)
def test_what_an_end_tells(
    completion: Completion, duration: float | None, ttft: float | None, size: int | None
) -> None:
    world = World()

    world.director.handle_complete(world.send(), completion)

    ((labels, known),) = world.metrics.named("request_finished")
    assert labels == ("food", "food-v1", 1)
    assert known["duration_seconds"] == duration
    assert known["ttft_seconds"] == ttft
    assert known["response_bytes"] == size


@pytest.mark.parametrize(
    ("completion", "want"),
    [
        pytest.param(end(status=200), None, id="200"),
        pytest.param(end(status=204), None, id="204"),
        pytest.param(end(status=304), ErrorCode.MODEL_SERVER_ERROR, id="not-2xx"),
        pytest.param(end(status=404), ErrorCode.MODEL_SERVER_ERROR, id="404"),
        pytest.param(end(status=503), ErrorCode.MODEL_SERVER_ERROR, id="503"),
        pytest.param(
            end(CompletionCause.CLIENT_DISCONNECT, status=0), None, id="client-is-no-failure"
        ),
        pytest.param(end(CompletionCause.ERROR, status=0), ErrorCode.UNKNOWN, id="error"),
        pytest.param(
            end(CompletionCause.ERROR, status=500), ErrorCode.MODEL_SERVER_ERROR, id="both-once"
        ),
    ],
)
def test_failures_after_routing(completion: Completion, want: ErrorCode | None) -> None:
    world = World()

    world.director.handle_complete(world.send(), completion)

    failed = world.metrics.named("request_failed")
    assert failed == ([] if want is None else [(("food", "food-v1", 1, want), {})])


@pytest.mark.parametrize(
    ("cause", "size", "duration"),
    [
        pytest.param(CompletionCause.NATURAL, 500, 2.5, id="natural"),
        pytest.param(CompletionCause.CLIENT_DISCONNECT, None, None, id="aborted-tokens-only"),
    ],
)
def test_what_the_access_log_adds(
    cause: CompletionCause, size: int | None, duration: float | None
) -> None:
    world = World()
    routing = world.send()
    world.director.handle_complete(routing, end(cause))

    world.director.handle_access_report(routing, report())

    ((labels, known),) = world.metrics.named("request_usage")
    assert labels == ("food", "food-v1", 1)
    assert known == {"response_bytes": size, "usage": USAGE, "duration_seconds": duration}


@pytest.mark.parametrize(
    ("served_by", "honoured"),
    [
        pytest.param("10.0.0.1:8000", True, id="the-pick"),
        pytest.param("", True, id="no-upstream-reached"),
        pytest.param("10.9.9.9:8000", False, id="another"),
    ],
)
def test_whether_the_pick_was_honoured(served_by: str, honoured: bool) -> None:
    world = World(pods=1)
    routing = world.send()

    world.director.handle_access_report(routing, report(served_by=served_by))

    assert len(world.metrics.named("pick_not_honoured")) == (0 if honoured else 1)


def test_a_report_of_nobodys_request_is_counted_as_served_without_us() -> None:
    world = World()

    world.director.handle_access_report(None, report())

    assert [name for name, _, _ in world.metrics.calls] == ["served_without_epp"]
    assert world.director.without_epp == 1


def test_running_never_drifts_whatever_ends_requests() -> None:
    world = World()
    source = random.Random(5)
    routings = [world.send() for _ in range(50)]
    causes = list(CompletionCause)

    for routing in source.sample(routings * 2, 100):
        world.director.handle_complete(routing, end(source.choice(causes)))

    assert len(world.metrics.named("request_finished")) == 50
    assert world.in_flight() == 0


class Peek:
    """A filter that notes which target models it is asked about."""

    typed_name = TypedName("peek", "peek")

    def __init__(self) -> None:
        self.targets: set[str] = set()

    def filter(self, cycle: Cycle, _table: EndpointTable, candidates: Any) -> Any:
        self.targets.add(cycle.request.target_model)
        return candidates


def test_filters_see_the_drawn_target_that_the_routing_names() -> None:
    split = make_model(model_name="food", targets={"a": 1, "b": 1})
    peek = Peek()
    world = World(models=[split], filters=[peek])

    named = {world.send().target_model for _ in range(40)}

    assert named == peek.targets == {"a", "b"}


def test_strict_mode_keeps_503_for_requests_without_a_body() -> None:
    with pytest.raises(UnavailableError):
        World(pods=0, strict=True).send("", has_body=False)
