"""The driver: recorded conversations, faults, and random ones."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from epp.errors import UnavailableError
from epp.gen.envoy.service.ext_proc.v3.external_processor_pb2 import (
    ProcessingRequest,
    ProcessingResponse,
)
from epp.metrics.usage import TokenUsage
from epp.requestcontrol.types import CompletionCause
from epp.transport.stream import CloseReason, StatusCode

LEAN = (2, 0)
GATEWAY = (4, 4)
BUFFERED_PATH = "lean with trailers, response buffered"
NATURAL = CompletionCause.NATURAL
GONE = CompletionCause.CLIENT_DISCONNECT
ERROR = CompletionCause.ERROR

CAUSES = {
    "json reply": (NATURAL, NATURAL, NATURAL),
    "event stream": (NATURAL, NATURAL, NATURAL),
    "client aborts the event stream": (NATURAL, GONE, GONE),
    "client aborts before the response": (GONE, GONE, GONE),
    "upstream resets the event stream": (NATURAL, GONE, GONE),
    "get": (NATURAL, NATURAL, NATURAL),
    "malformed json": (None, None, None),
    "refused by the director": (None, None, None),
    "client sends routing headers": (NATURAL, NATURAL, NATURAL),
    "request trailers": (NATURAL, NATURAL, NATURAL),
    "request trailers without a body": (None, NATURAL, None),
    "chunked empty body": (None, None, None),
    "response trailers": (NATURAL, NATURAL, NATURAL),
}
REPLAYS = [
    pytest.param(path, case, causes[index], id=f"{path}-{case}".replace(" ", "-"))
    for case, causes in CAUSES.items()
    for index, path in enumerate(("lean", "gateway", BUFFERED_PATH))
]


@pytest.mark.parametrize(("path", "case", "want"), REPLAYS)
def test_recorded_conversations_are_answered_alike(
    kit: Any, conversations: Any, path: str, case: str, want: Any
) -> None:
    driver = kit.Driver(max_request_body=200_000)
    handler, sender = driver.open()
    wanted = []

    for event in conversations[path, case]:
        if "epp" in event:
            wanted.append(kit.decode(event["epp"], ProcessingResponse))
            continue
        assert sender.take() == wanted
        wanted = []
        if "envoy" in event:
            message = kit.decode(event["envoy"], ProcessingRequest)
            handler.on_message(message.SerializeToString())
        elif "half_close" in event:
            handler.on_half_close()
        elif "closed" in event:
            handler.on_closed(CloseReason(event["closed"]))

    assert [done.cause for _, done in driver.director.completed] == ([want] if want else [])


def test_a_recording_exists_for_every_path_and_case(conversations: Any) -> None:
    expected = {(path, case) for path, case, _ in (param.values for param in REPLAYS)}

    assert set(conversations) - expected == {(BUFFERED_PATH, "body above the buffer limit")}
    assert expected <= set(conversations)


def test_the_gateways_own_413_needs_no_decision(kit: Any, conversations: Any) -> None:
    driver = kit.Driver()
    events = conversations[BUFFERED_PATH, "body above the buffer limit"]

    _, sender = driver.talk(
        *(kit.decode(event["envoy"], ProcessingRequest) for event in events if "envoy" in event)
    )

    assert driver.director.requests == []
    assert sender.finished is None


# What the director is told


def test_the_director_gets_the_parsed_request(kit: Any) -> None:
    driver = kit.Driver()
    data = b'{"model":"m","prompt":"hi","stream":true}'

    driver.talk(kit.headers(modes=LEAN), kit.body(data))

    (request,) = driver.director.requests
    assert (request.request_id, request.path) == ("id-1", "/v1/completions")
    assert (request.model, request.stream, request.has_body) == ("m", True, True)
    assert request.size_bytes == len(data)
    assert request.payload["prompt"] == "hi"
    assert request.received_at == driver.clock()


@pytest.mark.parametrize(
    ("path", "data"),
    [
        pytest.param("/v1/audio/transcriptions", b"--b\r\n", id="multipart"),
        pytest.param("/tokenize", b'{"text":"a"}', id="no-model"),
    ],
)
def test_an_opaque_body_is_routed_like_none_and_passes_untouched(
    kit: Any, path: str, data: Any
) -> None:
    driver = kit.Driver()

    _, sender = driver.talk(kit.headers(modes=LEAN, **{":path": path}), kit.body(data))

    (request,) = driver.director.requests
    assert (request.has_body, request.model, request.size_bytes) == (False, "", len(data))
    assert not sender.sent[-1].request_body.response.HasField("body_mutation")


def test_the_completion_of_a_gateway_response_carries_what_passed_by(kit: Any) -> None:
    driver = kit.Driver()
    handler, _ = driver.talk(kit.headers(modes=GATEWAY), kit.body())
    driver.clock.advance(1.0)
    handler.on_message(kit.response_headers("200").SerializeToString())
    driver.clock.advance(1.0)

    chunk = b'{"usage":{"prompt_tokens":3,"completion_tokens":4}}'
    handler.on_message(kit.response_body(chunk, end=True).SerializeToString())

    ((routing, completion),) = driver.director.completed
    assert routing is driver.director.routed[0]
    assert completion.cause is NATURAL
    assert (completion.status, completion.streaming) == (200, False)
    assert completion.response_bytes == len(chunk)
    assert completion.first_body_at == completion.completed_at == driver.clock()
    assert completion.usage == TokenUsage(prompt_tokens=3, completion_tokens=4)


def test_the_completion_of_a_lean_response_leaves_open_what_was_not_seen(kit: Any) -> None:
    driver = kit.Driver()
    handler, sender = driver.talk(kit.headers(modes=LEAN), kit.body(), kit.response_headers())
    assert driver.director.completed == []

    handler.on_half_close()

    ((_, completion),) = driver.director.completed
    assert completion.cause is NATURAL
    assert (completion.response_bytes, completion.first_body_at) == (None, None)
    assert sender.finished == (StatusCode.OK, "")


@pytest.mark.parametrize(
    ("reason", "want"),
    [
        pytest.param(CloseReason.CANCELLED, NATURAL, id="reset-that-swallowed-the-half-close"),
        pytest.param(CloseReason.SHUTDOWN, ERROR, id="we-go-away"),
        pytest.param(CloseReason.ERROR, ERROR, id="transport-failed"),
    ],
)
def test_how_a_lean_stream_ends_after_response_headers(kit: Any, reason: Any, want: Any) -> None:
    driver = kit.Driver()
    handler, _ = driver.talk(kit.headers(modes=LEAN), kit.body(), kit.response_headers())

    handler.on_closed(reason)

    assert [done.cause for _, done in driver.director.completed] == [want]


def test_the_end_is_told_once_however_often_it_is_seen(kit: Any) -> None:
    driver = kit.Driver()
    handler, _ = driver.talk(
        kit.headers(modes=GATEWAY), kit.body(), kit.response_headers(), kit.response_body(end=True)
    )

    handler.on_half_close()
    handler.on_closed(CloseReason.CANCELLED)

    assert len(driver.director.completed) == 1


# Refusals and faults


def test_an_error_of_the_director_is_one_immediate_response(kit: Any) -> None:
    driver = kit.Driver(fault=UnavailableError("no endpoint"))

    _, sender = driver.talk(kit.headers(modes=GATEWAY), kit.body())

    (answer,) = sender.sent
    assert answer.immediate_response.status.code == 503
    assert sender.finished is None
    assert driver.metrics.failed == []
    assert len(driver.metrics.request_seconds) == 1


def test_a_refusal_before_the_director_is_counted_here(kit: Any) -> None:
    driver = kit.Driver()

    _, sender = driver.talk(kit.headers(modes=LEAN), kit.body(b"{"))

    assert sender.sent[-1].immediate_response.status.code == 400
    assert driver.metrics.failed == ["BadRequest"]
    assert driver.director.requests == []
    assert driver.director.refused_early == 1


def test_a_body_that_is_not_complete_counts_as_held(kit: Any) -> None:
    driver = kit.Driver()

    stream, sender = driver.talk(kit.headers(modes=GATEWAY), kit.body(b'{"model":', end=False))
    waiting = sender.held_bytes
    stream.on_message(kit.body(b'"m","prompt":"x"}').SerializeToString())

    assert (waiting, sender.held_bytes) == (9, 0)
    assert len(driver.director.requests) == 1


def test_who_served_is_told_to_the_director(kit: Any) -> None:
    driver = kit.Driver()
    served = {"envoy.lb": {"x-gateway-destination-endpoint-served": "10.0.0.9:8000"}}

    stream, _ = driver.talk(
        kit.headers(modes=GATEWAY),
        kit.body(),
        kit.response_headers(metadata=served),
        kit.response_body(end=True),
    )
    stream.on_half_close()

    ((_, completion),) = driver.director.completed
    assert completion.served_by == "10.0.0.9:8000"


def test_an_unexpected_fault_of_the_director_is_a_500(kit: Any) -> None:
    driver = kit.Driver(fault=ZeroDivisionError("secret"))

    _, sender = driver.talk(kit.headers(modes=LEAN), kit.body())

    reply = sender.sent[-1].immediate_response
    assert reply.status.code == 500
    assert b"secret" not in reply.body
    assert driver.metrics.failed == ["Internal"]


def test_a_fault_after_routing_ends_the_stream_and_the_request(kit: Any) -> None:
    driver = kit.Driver()
    handler, sender = driver.talk(kit.headers(modes=GATEWAY), kit.body())
    sender.fault = ZeroDivisionError()

    handler.on_message(kit.response_headers().SerializeToString())

    assert sender.finished[0] is StatusCode.INTERNAL
    assert [done.cause for _, done in driver.director.completed] == [ERROR]


def test_a_fault_of_the_metrics_does_not_cost_the_request(kit: Any) -> None:
    driver = kit.Driver()
    driver.metrics.fault = ZeroDivisionError()

    _, sender = driver.talk(kit.headers(modes=LEAN), kit.body())

    assert sender.sent[-1].HasField("request_body")
    assert sender.finished is None


def test_a_fault_of_the_completion_does_not_reach_the_response(kit: Any) -> None:
    driver = kit.Driver(completion_fault=ZeroDivisionError())

    handler, sender = driver.talk(
        kit.headers(modes=GATEWAY), kit.body(), kit.response_headers(), kit.response_body(end=True)
    )
    handler.on_closed(CloseReason.CANCELLED)

    assert sender.finished is None
    assert sender.sent[-1].HasField("response_body")
    assert len(driver.director.completed) == 1
    assert len(driver.metrics.response_seconds) == 1


def test_bytes_that_are_no_message_end_the_stream(kit: Any) -> None:
    driver = kit.Driver()
    handler, sender = driver.open()

    handler.on_message(b"\xff\xff")

    assert sender.finished == (StatusCode.INVALID_ARGUMENT, "not a ProcessingRequest")


def test_an_illegal_order_ends_stream_and_request(kit: Any) -> None:
    driver = kit.Driver()

    _, sender = driver.talk(kit.headers(modes=GATEWAY), kit.body(), kit.body())

    assert sender.finished[0] is StatusCode.INVALID_ARGUMENT
    assert [done.cause for _, done in driver.director.completed] == [ERROR]


def test_an_unsupported_configuration_is_logged_once_and_refused_each_time(
    kit: Any,
) -> None:
    driver = kit.Driver()

    with capture_logs() as logs:
        senders = [driver.talk(kit.headers(modes=(1, 0)))[1] for _ in range(3)]

    assert {sender.finished[0] for sender in senders} == {StatusCode.UNIMPLEMENTED}
    assert len([line for line in logs if "unsupported processing mode" in line["detail"]]) == 1


# Random conversations

STEPS = [
    "headers",
    "headers_end",
    "body",
    "body_end",
    "big_body",
    "trailers",
    "response_headers",
    "response_headers_end",
    "response_body",
    "response_body_end",
    "response_trailers",
    "empty",
    "garbage",
    "half_close",
]
MODES = st.none() | st.tuples(st.sampled_from([0, 1, 2, 4]), st.sampled_from([0, 1, 2, 4]))
ENDINGS = st.sampled_from(list(CloseReason))
USUAL = st.sampled_from(
    [
        ["headers", "body", "body_end", "response_headers", "response_body", "response_body_end"],
        ["headers", "body_end", "response_headers"],
        ["headers_end", "response_headers", "response_trailers"],
        ["headers", "body", "trailers", "response_headers_end"],
    ]
)


def payload(kit: Any, step: str, modes: Any, data: bytes) -> bytes:
    builders: dict[str, Callable[[], ProcessingRequest]] = {
        "headers": lambda: kit.headers(modes=modes),
        "headers_end": lambda: kit.headers(end=True, modes=modes),
        "body": lambda: kit.body(data, end=False),
        "body_end": lambda: kit.body(data),
        "big_body": lambda: kit.body(b"x" * 5000, end=False),
        "trailers": kit.trailers,
        "response_headers": kit.response_headers,
        "response_headers_end": lambda: kit.response_headers(end=True),
        "response_body": lambda: kit.response_body(data),
        "response_body_end": lambda: kit.response_body(data, end=True),
        "response_trailers": kit.response_trailers,
        "empty": ProcessingRequest,
    }
    return builders[step]().SerializeToString()


@pytest.mark.fuzz
@settings(max_examples=2500, deadline=None)
@given(
    steps=st.tuples(USUAL, st.lists(st.sampled_from(STEPS), max_size=4), st.integers(0, 7)).map(
        lambda parts: [*parts[0][: parts[2]], *parts[1], *parts[0][parts[2] :]]
    )
    | st.lists(st.sampled_from(STEPS), max_size=9),
    modes=MODES,
    model=st.sampled_from(["m", "split", "refuse", None, 5]),
    garbage=st.binary(max_size=30),
    fault=st.sampled_from([None, None, None, UnavailableError("no"), ZeroDivisionError()]),
    ending=ENDINGS,
)
def test_no_conversation_escapes_or_loses_its_end(
    kit: Any, steps: Any, modes: Any, model: Any, garbage: Any, fault: Any, ending: Any
) -> None:
    driver = kit.Driver(max_request_body=4000, fault=fault)
    handler, sender = driver.open()
    data = b'{"prompt":"p","model":%s}' % (
        b"null" if model is None else b'"%s"' % str(model).encode()
    )

    for step in steps:
        answered = len(sender.sent)
        if step == "half_close":
            handler.on_half_close()
        elif step == "garbage":
            handler.on_message(garbage)
        else:
            handler.on_message(payload(kit, step, modes, data))
        if handler._exchange.state.name in {"REFUSED", "BROKEN"}:
            assert len(sender.sent) - answered <= 1
    assert driver.service.open_streams == 1
    handler.on_closed(ending)

    assert driver.service.open_streams == 0

    routed, completed = driver.director.routed, driver.director.completed
    assert [routing for routing, _ in completed] == routed
    kinds = [answer.WhichOneof("response") for answer in sender.sent]
    assert kinds.count("immediate_response") <= 1
    assert "immediate_response" not in kinds[:-1]
    assert kinds.count("request_trailers") <= steps.count("trailers")
    if routed:
        assert len(routed) == 1
        assert "immediate_response" not in kinds
    assert driver.access_log._open == {}
