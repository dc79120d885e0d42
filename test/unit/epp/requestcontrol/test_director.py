"""The life of a request: order, errors, what schedulers see, strict mode.

The published vectors of the decision tree are in ``test_director_vectors.py``, faults in
``test_director_faults.py``, ends in ``test_bookkeeping.py``.
"""

from typing import Any

import pytest
from structlog.testing import capture_logs

from epp.backend.endpoint_table import EndpointTable, Mask
from epp.backend.metrics_state import MetricsState
from epp.errors import EppError, ErrorCode, UnavailableError
from epp.requestcontrol.decision_log import breakdown, explain
from epp.requestcontrol.model_resolution import UnknownModelPolicy
from epp.scheduling.framework import Cycle, TypedName
from epp.testing.builders import (
    make_endpoint,
    make_model,
    make_objective,
    make_rewrite,
    make_rule,
)
from epp.testing.director_world import DirectorWorld, make_access_report, make_completion
from epp.testing.fake_clock import FakeClock


def test_a_routed_request_is_counted_scheduled_remembered_and_in_flight() -> None:
    world = DirectorWorld()

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
    it = DirectorWorld(**world)

    with pytest.raises(EppError) as info:
        it.send(**fields)

    assert (info.value.code, info.value.dropped_reason) == (code, reason)
    assert it.metrics.named("request_failed") == [((*labels, code), {})]
    assert not it.metrics.named("request_routed")
    assert it.in_flight() == 0


def test_a_saturated_pool_still_serves_what_may_not_be_shed() -> None:
    assert DirectorWorld(waiting=6).send("food").endpoint


def test_shedding_looks_at_the_candidates_only() -> None:
    world = DirectorWorld(waiting=6)
    idle = make_endpoint("idle", address="10.0.0.9")
    world.rows.put(idle)
    world.rows.publish(idle.key, MetricsState(), now=world.clock(), due_at=world.clock() + 1e6)

    assert world.send("batch").endpoint == idle
    with pytest.raises(EppError, match="saturated"):
        world.send("batch", subset=("10.0.0.1",))


def test_a_request_without_a_body_is_scheduled_within_the_hint_and_counts_for_no_model() -> None:
    world = DirectorWorld(waiting=6)

    routing = world.send("", has_body=False, subset=("10.0.0.2",))
    world.director.handle_complete(routing, make_completion())
    world.director.handle_access_report(routing, make_access_report(served_by="10.0.0.2:8000"))

    assert routing.endpoint.pod_name == "pod-1"
    assert world.metrics.names() == ["scheduler_run"]
    assert world.in_flight() == 0


def test_each_request_wakes_the_scraper_and_a_failing_scraper_fails_no_request() -> None:
    woken = []

    def wake() -> None:
        woken.append(1)
        raise RuntimeError("defect")

    with capture_logs():
        DirectorWorld(on_request=wake).send()

    assert woken == [1]


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
    world = DirectorWorld(models=[split], filters=[peek])

    named = {world.send().target_model for _ in range(40)}

    assert named == peek.targets == {"a", "b"}


def test_strict_mode_keeps_503_for_requests_without_a_body() -> None:
    with pytest.raises(UnavailableError):
        DirectorWorld(pods=0, strict=True).send("", has_body=False)


BATCH_OBJECTIVE = make_objective("low", priority=-5)
CANARY = make_rewrite("canary", make_rule("food-v2", match=["food"]))
HEADERS = {"x-llm-d-inference-objective": "low", "authorization": "Bearer s3cret"}


def test_a_rewrite_and_an_objective_decide_and_are_named_in_the_log_of_decisions() -> None:
    peek = Peek()
    world = DirectorWorld(objectives=[BATCH_OBJECTIVE], rewrites=[CANARY], filters=[peek])

    routing = world.send(headers=HEADERS)

    (kept,) = world.director.decisions.find("r")
    assert routing.target_model == "food-v2"
    assert peek.targets == {"food-v2"}, "the target is what affinity looks at"
    assert world.metrics.named("request_routed") == [(("food", "food-v2", -5, 120), {})]
    request = breakdown(kept.decision)["request"]
    assert (request["priority"], request["objective"]) == (-5, "low")
    assert request["rewrite"] == "default/canary rule 0"
    assert explain(kept.decision).endswith(
        "model food-v2 by default/canary rule 0; priority -5 by objective low"
    )
    assert "s3cret" not in repr(kept)


def test_an_objective_below_zero_makes_a_request_sheddable() -> None:
    world = DirectorWorld(waiting=6, objectives=[BATCH_OBJECTIVE])

    with pytest.raises(EppError, match="saturated"):
        world.send(headers=HEADERS)

    assert world.metrics.named("request_failed")[0][0][:3] == ("food", "food-v1", -5)


def test_an_objective_above_zero_saves_a_sheddable_model() -> None:
    urgent = make_objective("urgent", priority=0)
    world = DirectorWorld(waiting=6, objectives=[urgent])

    assert world.send("batch", headers={"x-gateway-inference-objective": "urgent"}).endpoint


def test_strict_mode_knows_neither_objectives_nor_rewrites() -> None:
    world = DirectorWorld(strict=True, objectives=[BATCH_OBJECTIVE], rewrites=[CANARY])

    routing = world.send(headers={**HEADERS, "x-llm-d-model-name-rewrite": "other"})

    assert routing.target_model == "food-v1"
    assert routing.decision.request.priority == 1
    assert "by " not in explain(routing.decision)


@pytest.mark.parametrize(
    ("policy", "served"),
    [(UnknownModelPolicy.REJECT, False), (UnknownModelPolicy.SERVE, True)],
)
def test_the_policy_for_unknown_models_is_the_directors(
    policy: UnknownModelPolicy, served: bool
) -> None:
    world = DirectorWorld(models=[], unknown_model=policy)

    if served:
        assert world.send("new").target_model == "new"
    else:
        with pytest.raises(EppError, match="does not exist"):
            world.send("new")


class SlowFilter:
    """Keeps everybody, after a while."""

    typed_name = TypedName("slow", "slow")

    def __init__(self) -> None:
        self.clock = FakeClock()

    def filter(self, _cycle: object, _table: object, candidates: Mask) -> Mask:
        self.clock.advance(0.25)
        return candidates


def test_the_time_of_a_scheduling_run_is_told_in_seconds() -> None:
    slow = SlowFilter()
    world = DirectorWorld(filters=[slow])
    slow.clock = world.clock

    world.send()

    assert world.metrics.scheduler_seconds == [pytest.approx(0.25)]
