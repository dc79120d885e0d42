"""Accounting of the director under any order of beginnings, ends, and pods that come and go."""

import contextlib
import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from prometheus_client import CollectorRegistry

from epp.backend.endpoint_rows import EndpointRows
from epp.datastore.datastore import Datastore
from epp.errors import BadRequestError
from epp.metrics.metrics import Metrics
from epp.requestcontrol.admission import AdmitAll
from epp.requestcontrol.candidates import Candidates
from epp.requestcontrol.director import Director
from epp.requestcontrol.types import (
    AccessReport,
    Completion,
    CompletionCause,
    IncomingRequest,
    RoutingDecision,
)
from epp.scheduling.framework import TypedName
from epp.scheduling.pickers.random_picker import RandomPicker
from epp.scheduling.profile import SchedulerProfile
from epp.scheduling.profilehandlers.single_profile_handler import SingleProfileHandler
from epp.scheduling.scheduler import Scheduler
from epp.testing.builders import make_endpoint
from epp.testing.fake_clock import FakeClock

PODS = ("a", "b", "c")
REQUEST = IncomingRequest(request_id="r", path="/v1/completions", model="m")
SERIES = {"model_name": "m"}


def no_timer(_point: str, _name: TypedName) -> Any:
    return contextlib.nullcontext()


class World:
    """A director on pods by name, with the real datastore and the real metrics."""

    def __init__(self, *names: str, picks: int = 1) -> None:
        clock = FakeClock()
        self.registry = CollectorRegistry()
        self.rows = EndpointRows()
        profile = SchedulerProfile(name="default", picker=RandomPicker(max_endpoints=picks))
        self.director = Director(
            datastore=Datastore(self.rows, clock=clock),
            scheduler=Scheduler({"default": profile}, SingleProfileHandler(), no_timer),
            admission=AdmitAll(),
            candidates=Candidates(),
            rows=self.rows,
            metrics=Metrics(self.registry, process_metrics=False, clock=clock),
            observe=no_timer,
            random=random.Random(1),
            clock=clock,
        )
        for name in names:
            self.bring(name)

    def bring(self, name: str, address: str = "") -> None:
        """Add the pod of a name; without an address at the one that it has always had."""
        self.rows.put(make_endpoint(name, address=address or f"10.0.0.{ord(name)}"))

    def send(self) -> RoutingDecision:
        return self.director.handle_request(REQUEST)

    def end(
        self, routing: RoutingDecision, cause: CompletionCause = CompletionCause.NATURAL
    ) -> None:
        self.director.handle_complete(routing, Completion(cause=cause, completed_at=1.0))

    def in_flight(self) -> dict[str, int]:
        table = self.rows.snapshot(0.0)
        counts = table.in_flight.tolist()
        return {e.pod_name: n for e, n in zip(table.endpoints, counts, strict=True)}

    def in_flight_by_target(self) -> dict[str, int]:
        table = self.rows.snapshot(0.0)
        counts = table.in_flight.tolist()
        return {e.target: n for e, n in zip(table.endpoints, counts, strict=True)}

    def running_series(self) -> float:
        return self.registry.get_sample_value("inference_model_running_requests", SERIES) or 0.0


class Interleavings(RuleBasedStateMachine):
    """Requests begin and end, also twice, while pods leave, come back, and are replaced."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(*PODS)
        self.running: list[RoutingDecision] = []
        self.ended: list[RoutingDecision] = []

    @precondition(lambda self: len(self.world.rows) > 0)
    @rule()
    def begin(self) -> None:
        self.running.append(self.world.send())

    @precondition(lambda self: self.running)
    @rule(at=st.integers(0, 99), cause=st.sampled_from(CompletionCause))
    def end(self, at: int, cause: CompletionCause) -> None:
        routing = self.running.pop(at % len(self.running))
        self.world.end(routing, cause)
        self.ended.append(routing)

    @precondition(lambda self: self.ended)
    @rule(at=st.integers(0, 99))
    def end_again(self, at: int) -> None:
        self.world.end(self.ended[at % len(self.ended)])

    @rule(name=st.sampled_from(PODS))
    def lose(self, name: str) -> None:
        self.world.rows.remove(make_endpoint(name).key)

    @rule(name=st.sampled_from(PODS))
    def bring(self, name: str) -> None:
        self.world.bring(name)

    @rule(name=st.sampled_from(PODS), host=st.integers(1, 2))
    def replace(self, name: str, host: int) -> None:
        self.world.bring(name, f"10.1.{ord(name)}.{host}")

    @invariant()
    def nothing_is_lost_and_nothing_counted_twice(self) -> None:
        running = Counter(routing.endpoint.target for routing in self.running)
        assert len(self.world.director.in_flight) == len(self.running)
        assert self.world.running_series() == len(self.running)
        shown = self.world.in_flight_by_target()
        assert shown == {target: running[target] for target in shown}

    def teardown(self) -> None:
        for routing in self.running:
            self.world.end(routing)
        assert len(self.world.director.in_flight) == 0
        assert self.world.running_series() == 0
        assert set(self.world.in_flight().values()) <= {0}


TestInterleavings = Interleavings.TestCase
TestInterleavings.settings = settings(max_examples=50, stateful_step_count=30, deadline=None)


def test_without_pods_leaving_every_count_is_exact() -> None:
    world = World(*PODS)

    routings = [world.send() for _ in range(30)]
    sent = Counter(routing.endpoint.pod_name for routing in routings)
    at_the_peak = world.in_flight()
    for routing in routings[:10]:
        world.end(routing)
    left = Counter(routing.endpoint.pod_name for routing in routings[10:])

    assert at_the_peak == dict(sent)
    assert world.in_flight() == {pod: left[pod] for pod in PODS}


def test_routed_and_refused_requests_are_told_apart() -> None:
    world = World("a")

    world.send()
    world.send()
    with pytest.raises(BadRequestError):
        world.director.handle_request(IncomingRequest(request_id="r", path="/v1/completions"))

    assert (world.director.routed, world.director.refused) == (2, 1)


@pytest.mark.parametrize(
    ("position", "passed_over"),
    [
        pytest.param(0, 0.0, id="the-first-pick"),
        pytest.param(1, 0.0, id="a-fall-back"),
        pytest.param(None, 1.0, id="somebody-else"),
    ],
)
def test_a_fall_back_that_served_was_a_pick_too(position: int | None, passed_over: float) -> None:
    world = World(*PODS, picks=2)
    routing = world.send()
    served_by = "10.9.9.9:8000" if position is None else routing.targets[position]

    world.director.handle_access_report(
        routing,
        AccessReport(
            request_id="r",
            served_by=served_by,
            status=200,
            response_bytes=1,
            first_byte_seconds=None,
            duration_seconds=1.0,
            usage=None,
        ),
    )

    assert world.registry.get_sample_value("epp_picks_not_honoured_total") == passed_over
