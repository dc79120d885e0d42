"""What is counted of the end of a request, and of what the gateway's log adds."""

import random

import pytest
from msgspec.structs import replace

from epp.errors import ErrorCode
from epp.requestcontrol.types import Completion, CompletionCause
from epp.testing.director_world import (
    USAGE,
    DirectorWorld,
    make_access_report,
    make_completion,
)


def test_the_end_of_a_request_is_counted_once() -> None:
    world = DirectorWorld()
    routing = world.send()

    world.director.handle_complete(routing, make_completion())
    world.director.handle_complete(routing, make_completion(CompletionCause.ERROR))

    assert len(world.metrics.named("request_finished")) == 1
    assert not world.metrics.named("request_failed")
    assert world.in_flight() == 0


def test_the_end_of_a_request_to_an_endpoint_that_left_is_counted() -> None:
    world = DirectorWorld(pods=1)
    routing = world.send()

    world.rows.remove(routing.endpoint.key)
    world.director.handle_complete(routing, make_completion())

    assert len(world.metrics.named("request_finished")) == 1
    assert len(world.director.in_flight) == 0


@pytest.mark.parametrize(
    ("completion", "duration", "ttft", "size"),
    [
        pytest.param(
            make_completion(first_body_at=1000.5, response_bytes=500), 2.5, 0.5, 500, id="natural"
        ),
        pytest.param(make_completion(), 2.5, None, None, id="lean-path-sees-no-body"),
        pytest.param(
            make_completion(
                CompletionCause.CLIENT_DISCONNECT, first_body_at=1000.5, response_bytes=9
            ),
            None,
            None,
            None,
            id="client-went-away",
        ),
        pytest.param(
            make_completion(CompletionCause.ERROR, first_body_at=1000.5, response_bytes=9),
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
    world = DirectorWorld()

    world.director.handle_complete(world.send(), completion)

    ((labels, known),) = world.metrics.named("request_finished")
    assert labels == ("food", "food-v1", 1)
    assert known["duration_seconds"] == duration
    assert known["ttft_seconds"] == ttft
    assert known["response_bytes"] == size


@pytest.mark.parametrize(
    ("completion", "want"),
    [
        pytest.param(make_completion(status=200), None, id="200"),
        pytest.param(make_completion(status=204), None, id="204"),
        pytest.param(make_completion(status=304), ErrorCode.MODEL_SERVER_ERROR, id="not-2xx"),
        pytest.param(make_completion(status=404), ErrorCode.MODEL_SERVER_ERROR, id="404"),
        pytest.param(make_completion(status=503), ErrorCode.MODEL_SERVER_ERROR, id="503"),
        pytest.param(
            make_completion(CompletionCause.CLIENT_DISCONNECT, status=0),
            None,
            id="client-is-no-failure",
        ),
        pytest.param(
            make_completion(CompletionCause.ERROR, status=0), ErrorCode.UNKNOWN, id="error"
        ),
        pytest.param(
            make_completion(CompletionCause.ERROR, status=500),
            ErrorCode.MODEL_SERVER_ERROR,
            id="both-once",
        ),
    ],
)
def test_failures_after_routing(completion: Completion, want: ErrorCode | None) -> None:
    world = DirectorWorld()

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
    world = DirectorWorld()
    routing = world.send()
    world.director.handle_complete(routing, make_completion(cause))

    world.director.handle_access_report(routing, make_access_report())

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
    world = DirectorWorld(pods=1)
    routing = world.send()

    world.director.handle_access_report(routing, make_access_report(served_by=served_by))

    assert len(world.metrics.named("pick_not_honoured")) == (0 if honoured else 1)


@pytest.mark.parametrize(
    ("served_by", "honoured"),
    [
        pytest.param("10.0.0.1:8000", True, id="the-pick"),
        pytest.param("", True, id="not-told"),
        pytest.param("10.9.9.9:8000", False, id="another"),
    ],
)
def test_the_response_headers_may_tell_who_served_and_count_once(
    served_by: str, honoured: bool
) -> None:
    world = DirectorWorld(pods=1)
    routing = world.send()
    ended = replace(make_completion(CompletionCause.NATURAL), served_by=served_by)

    world.director.handle_complete(routing, ended)
    world.director.handle_access_report(
        routing, make_access_report(served_by=served_by or "10.0.0.1:8000")
    )

    assert len(world.metrics.named("pick_not_honoured")) == (0 if honoured else 1)


def test_a_report_of_nobodys_request_is_counted_as_served_without_us() -> None:
    world = DirectorWorld()

    world.director.handle_access_report(None, make_access_report())

    assert world.metrics.names() == ["served_without_epp"]
    assert world.director.without_epp == 1


def test_running_never_drifts_whatever_ends_requests() -> None:
    world = DirectorWorld()
    source = random.Random(5)
    routings = [world.send() for _ in range(50)]
    causes = list(CompletionCause)

    for routing in source.sample(routings * 2, 100):
        world.director.handle_complete(routing, make_completion(source.choice(causes)))

    assert len(world.metrics.named("request_finished")) == 50
    assert world.in_flight() == 0
