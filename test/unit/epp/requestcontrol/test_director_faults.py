"""Whatever breaks inside, a request that can be served is served, and counted to its end."""

from typing import Any

import pytest
from structlog.testing import capture_logs

from epp.backend.endpoint_rows import EndpointRows
from epp.datastore.datastore import Datastore
from epp.errors import EppError, ErrorCode, InternalError
from epp.requestcontrol.types import Completion, CompletionCause, RoutingDecision
from epp.scheduling.framework import TypedName
from epp.scheduling.profilehandlers.single_profile_handler import SingleProfileHandler
from epp.scheduling.scheduler import Scheduler
from epp.testing.builders import make_endpoint
from epp.testing.director_world import (
    DirectorWorld,
    RecordingMetrics,
    make_access_report,
    make_completion,
    no_timer,
)
from epp_api.v1alpha2.inferencemodel_types import InferenceModel


class BadPlugin:
    """Fails wherever it is called."""

    typed_name = TypedName("bad", "bad")

    def _fail(self, *_args: object) -> Any:
        raise RuntimeError("defect")

    next_profile = primary = filter = admit = pre_request = response_complete = add = _fail


class BrokenDatastore(Datastore):
    """Cannot look a model up."""

    def model_get(self, model_name: str) -> InferenceModel | None:
        raise RuntimeError("defect")


class BrokenScheduler(Scheduler):
    """Decides nothing."""

    def schedule(self, *_args: object) -> Any:
        raise RuntimeError("defect")


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
        pytest.param(
            {"scheduler": BrokenScheduler({}, SingleProfileHandler(), no_timer)},
            "scheduling failed, picking at random",
            id="scheduler",
        ),
        pytest.param({"filters": [BadPlugin()]}, "plugin failed", id="filter"),
        pytest.param(
            {"admission": BadPlugin()}, "admission failed, request admitted", id="admission"
        ),
        pytest.param({"hooks": [BadPlugin()]}, "hook failed", id="hook"),
        pytest.param({"decisions": BadPlugin()}, "taking note of a pick failed", id="ring"),
        pytest.param({"metrics": RecordingMetrics(broken=True)}, "counting failed", id="metrics"),
    ],
)
def test_a_fault_inside_is_logged_once_a_minute_and_the_request_is_served(
    fault: dict[str, Any], event: str
) -> None:
    world = DirectorWorld(**fault)

    with capture_logs() as logs:
        for _ in range(3):
            routing = world.send()
            world.director.handle_complete(
                routing, make_completion(CompletionCause.CLIENT_DISCONNECT)
            )
        world.clock.advance(61)
        world.send()

    assert [line["event"] for line in logs] == [event, event]
    assert world.in_flight() == 1


def test_the_fallback_is_counted_and_avoids_endpoints_whose_scrapes_fail() -> None:
    world = DirectorWorld(handler=BadPlugin(), pods=3)
    for number in (0, 2):
        world.rows.fail(make_endpoint(f"pod-{number}").key, due_at=world.clock() + 1e6)

    with capture_logs():
        picks = {world.send().endpoint.pod_name for _ in range(20)}

    assert picks == {"pod-1"}
    assert world.metrics.named("plugin_error")[0][0] == ("Scheduler", "fallback", "RuntimeError")


def test_an_endpoint_whose_scrapes_fail_is_better_than_none() -> None:
    world = DirectorWorld(handler=BadPlugin(), pods=1)
    world.rows.fail(make_endpoint("pod-0").key, due_at=world.clock() + 1e6)

    with capture_logs():
        assert world.send().endpoint.pod_name == "pod-0"


def test_a_hook_that_raises_does_not_keep_the_others_from_running() -> None:
    witness = Witness()
    world = DirectorWorld(hooks=[BadPlugin(), witness], pods=1)

    with capture_logs():
        world.director.handle_complete(world.send(), make_completion())

    assert witness.seen == ["pick pod-0", "end natural"]


def test_anything_unexpected_becomes_an_internal_error_without_details() -> None:
    world = DirectorWorld(datastore=BrokenDatastore(EndpointRows()))

    with capture_logs() as logs, pytest.raises(InternalError) as info:
        world.send()

    assert "defect" not in info.value.message
    assert [line["event"] for line in logs] == ["request failed"]
    assert world.metrics.named("request_failed")[0][0][-1] == ErrorCode.INTERNAL


def broken_metrics() -> DirectorWorld:
    return DirectorWorld(metrics=RecordingMetrics(broken=True), pods=1)


@pytest.mark.parametrize(
    "completion",
    [
        pytest.param(make_completion(), id="natural"),
        pytest.param(make_completion(status=500), id="server-failed"),
        pytest.param(make_completion(CompletionCause.ERROR, status=0), id="error"),
    ],
)
def test_metrics_that_raise_lose_no_end(completion: Completion) -> None:
    witness = Witness()
    world = DirectorWorld(metrics=RecordingMetrics(broken=True), hooks=[witness], pods=1)

    with capture_logs() as logs:
        world.director.handle_complete(world.send(), completion)

    assert world.in_flight() == len(world.director.in_flight) == 0
    assert len(witness.seen) == 2
    assert "request_finished" in world.metrics.names()
    assert [line["event"] for line in logs] == ["counting failed"]


def test_metrics_that_raise_do_not_change_a_refusal() -> None:
    world = broken_metrics()

    with capture_logs(), pytest.raises(EppError) as info:
        world.send("nobody")

    assert info.value.code == ErrorCode.BAD_CONFIGURATION
    assert world.director.refused == 1


def test_metrics_that_raise_do_not_reach_the_gateways_log() -> None:
    world = broken_metrics()

    with capture_logs():
        world.director.handle_access_report(None, make_access_report())
        world.director.handle_access_report(world.send(), make_access_report(served_by="1.2.3.4:5"))

    assert world.director.without_epp == 1
    assert world.metrics.names()[-2:] == ["pick_not_honoured", "request_usage"]
