"""The exchange: messages in, messages out."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from epp.errors import PayloadTooLargeError, ResourceExhaustedError
from epp.gen.envoy.service.ext_proc.v3.external_processor_pb2 import ProcessingRequest
from epp.handlers.events import Answers, RequestComplete, RequestRefused, StreamBroken
from epp.handlers.exchange import TRANSITIONS, Exchange, Kind, State
from epp.metrics.usage import TokenUsage

LEAN = (2, 0)
LEAN_BUFFERED = (2, 2)
GATEWAY = (4, 4)
SUBSET = {"envoy.lb.subset_hint": {"x-gateway-destination-endpoint-subset": ["10.0.0.5"]}}
PICK = ("10.0.0.5:8000", "10.0.0.6:8000")


def start(*messages: Any, limit: int = 1000) -> tuple[Exchange, Any]:
    """Feed messages to a new exchange; return it and the last event."""
    exchange = Exchange(max_body_bytes=limit, new_id=lambda: "generated")
    event: Any = ()
    for now, message in enumerate(messages):
        event = exchange.receive(message, float(now))
    return exchange, event


def answered(exchange: Exchange, message: ProcessingRequest, now: float = 3.0) -> Answers:
    """Feed a message that must be answered."""
    event = exchange.receive(message, now)
    assert isinstance(event, tuple)
    return event


def kinds(answers: Any) -> list[str | None]:
    return [answer.WhichOneof("response") for answer in answers]


def streamed(answer: Any) -> Any:
    part = getattr(answer, answer.WhichOneof("response"))
    return part.response.body_mutation.streamed_response


# The request phase of the lean path


def test_lean_headers_are_answered_with_an_empty_continue(kit: Any) -> None:
    _, answers = start(kit.headers(modes=LEAN))

    assert kinds(answers) == ["request_headers"]
    assert not answers[0].request_headers.response.ListFields()


def test_lean_body_is_answered_with_the_pick_and_nothing_else(kit: Any) -> None:
    exchange, _ = start(kit.headers(modes=LEAN), kit.body())

    (answer,) = exchange.route(PICK)

    common = answer.request_body.response
    assert kit.set_headers(common.header_mutation) == {
        "x-gateway-destination-endpoint": "10.0.0.5:8000,10.0.0.6:8000"
    }
    assert common.clear_route_cache
    assert not common.HasField("body_mutation")
    metadata = answer.dynamic_metadata.fields["envoy.lb"].struct_value.fields
    assert metadata["x-gateway-destination-endpoint"].string_value == ",".join(PICK)


def test_lean_body_is_replaced_only_when_it_changed(kit: Any) -> None:
    exchange, _ = start(kit.headers(modes=LEAN), kit.body())

    (answer,) = exchange.route(PICK, b"new body")

    common = answer.request_body.response
    assert common.body_mutation.body == b"new body"
    assert kit.set_headers(common.header_mutation)["content-length"] == "8"


def test_a_buffered_body_is_complete_even_when_trailers_follow(kit: Any) -> None:
    exchange, event = start(kit.headers(modes=LEAN), kit.body(end=False))

    (answer,) = exchange.route(PICK, b"new body")
    late = answered(exchange, kit.trailers(), 3.0)

    assert isinstance(event, RequestComplete)
    assert "content-length" not in kit.set_headers(answer.request_body.response.header_mutation)
    assert kinds(late) == ["request_trailers"]


def test_trailers_in_place_of_a_buffered_body_are_answered_and_leave_the_request_unrouted(
    kit: Any,
) -> None:
    exchange, answers = start(kit.headers(modes=LEAN), kit.trailers())

    assert kinds(answers) == ["request_trailers"]
    assert exchange.state is State.AWAIT_RESPONSE
    assert exchange.route(PICK) == ()


# The request phase of the gateway path


def test_without_protocol_config_both_bodies_are_full_duplex(kit: Any) -> None:
    _, answers = start(kit.headers(modes=None))

    assert answers == ()


def test_gateway_answers_nothing_before_the_body_is_complete(kit: Any) -> None:
    events = [
        start(*messages)[1]
        for messages in itertools.accumulate(
            [
                (kit.headers(modes=GATEWAY),),
                (kit.body(b"ab", end=False),),
                (kit.body(b"cd", end=False),),
                (kit.body(b"", end=True),),
            ],
            lambda done, more: done + more,
        )
    ]

    assert events[:3] == [(), (), ()]
    assert events[3].body == b"abcd"


def test_gateway_answers_headers_and_the_whole_body_in_pieces(kit: Any) -> None:
    data = bytes(range(250)) * 600
    exchange, _ = start(kit.headers(modes=GATEWAY), kit.body(data), limit=200_000)

    answers = exchange.route(PICK)

    assert kinds(answers) == ["request_headers"] + ["request_body"] * 3
    pieces = [streamed(answer) for answer in answers[1:]]
    assert b"".join(piece.body for piece in pieces) == data
    assert [len(piece.body) for piece in pieces] == [62_000, 62_000, 26_000]
    assert [piece.end_of_stream for piece in pieces] == [False, False, True]
    common = answers[0].request_headers.response
    assert kit.set_headers(common.header_mutation)["content-length"] == "150000"
    assert common.clear_route_cache


def test_an_empty_gateway_body_is_one_last_piece(kit: Any) -> None:
    exchange, event = start(kit.headers(modes=GATEWAY), kit.body(b""))

    answers = exchange.route(PICK)

    assert event.has_body
    assert kinds(answers) == ["request_headers", "request_body"]
    assert streamed(answers[1]).end_of_stream
    assert "content-length" not in kit.set_headers(
        answers[0].request_headers.response.header_mutation
    )


def test_a_gateway_body_ended_by_trailers_ends_with_a_trailers_answer(kit: Any) -> None:
    exchange, event = start(kit.headers(modes=GATEWAY), kit.body(b"ab", end=False), kit.trailers())

    answers = exchange.route(PICK)

    assert event.body == b"ab"
    assert kinds(answers) == ["request_headers", "request_body", "request_trailers"]
    assert not streamed(answers[1]).end_of_stream
    assert not answers[2].request_trailers.ListFields()


def test_trailers_without_any_body_get_no_body_answer(kit: Any) -> None:
    exchange, _ = start(kit.headers(modes=GATEWAY), kit.trailers())

    assert kinds(exchange.route(PICK)) == ["request_headers", "request_trailers"]


# Both paths


@pytest.mark.parametrize("modes", [pytest.param(LEAN, id="lean"), pytest.param(GATEWAY, id="gw")])
def test_a_request_without_a_body_is_routed_by_its_headers_answer(kit: Any, modes: Any) -> None:
    exchange, event = start(kit.headers(end=True, modes=modes))

    (answer,) = exchange.route(PICK)

    assert (event.has_body, event.body) == (False, b"")
    assert kit.set_headers(answer.request_headers.response.header_mutation) == {
        "x-gateway-destination-endpoint": ",".join(PICK)
    }


@pytest.mark.parametrize("modes", [pytest.param(LEAN, id="lean"), pytest.param(GATEWAY, id="gw")])
def test_the_complete_request_carries_what_routing_needs(kit: Any, modes: Any) -> None:
    _, event = start(kit.headers(modes=modes, X_Custom="a"), kit.body(b"{}", metadata=SUBSET))

    assert event.request_id == "id-1"
    assert event.path == "/v1/completions"
    assert event.headers["x-custom"] == "a"
    assert (event.has_body, event.body) == (True, b"{}")
    assert event.subset == ("10.0.0.5",)
    assert event.received_at == 0.0


def test_a_subset_hint_of_the_headers_stays_when_the_body_has_none(kit: Any) -> None:
    _, event = start(
        kit.headers(modes=LEAN, metadata=SUBSET), kit.body(metadata={"other": {"a": "b"}})
    )

    assert event.subset == ("10.0.0.5",)


@pytest.mark.parametrize("given", [pytest.param(None, id="absent"), pytest.param("", id="empty")])
def test_a_missing_request_id_is_generated_and_set(kit: Any, given: Any) -> None:
    exchange, event = start(kit.headers(modes=LEAN, x_request_id=given), kit.body())

    (answer,) = exchange.route(PICK)

    assert event.request_id == "generated"
    mutation = answer.request_body.response.header_mutation
    assert kit.set_headers(mutation)["x-request-id"] == "generated"


def test_routing_headers_of_the_client_are_removed(kit: Any) -> None:
    exchange, _ = start(
        kit.headers(
            end=True,
            x_gateway_destination_endpoint="6.6.6.6:1",
            x_prefiller_host_port="6.6.6.6:1",
            x_encoder_hosts_ports="6.6.6.6:1",
            x_data_parallel_host_port="6.6.6.6:1",
            x_kv_cache_source_host_port="6.6.6.6:1",
            x_other="kept",
        )
    )

    (answer,) = exchange.route(PICK)

    mutation = answer.request_headers.response.header_mutation
    assert sorted(mutation.remove_headers) == [
        "x-data-parallel-host-port",
        "x-encoder-hosts-ports",
        "x-kv-cache-source-host-port",
        "x-prefiller-host-port",
    ]
    assert kit.set_headers(mutation) == {"x-gateway-destination-endpoint": ",".join(PICK)}


@pytest.mark.parametrize(
    "messages",
    [
        pytest.param(
            lambda kit: [kit.headers(modes=LEAN, content_length="11"), kit.body(b"x" * 11)],
            id="announced-and-read",
        ),
        pytest.param(lambda kit: [kit.headers(modes=LEAN), kit.body(b"x" * 11)], id="buffered"),
        pytest.param(
            lambda kit: [
                kit.headers(modes=GATEWAY),
                kit.body(b"x" * 6, end=False),
                kit.body(b"x" * 5, end=False),
                kit.body(b"", end=True),
            ],
            id="read-to-its-end",
        ),
        pytest.param(
            lambda kit: [kit.headers(modes=LEAN, content_length="41")], id="announced-far-beyond"
        ),
        pytest.param(
            lambda kit: [kit.headers(modes=GATEWAY), kit.body(b"x" * 41, end=False)],
            id="endless",
        ),
    ],
)
def test_a_body_above_the_limit_is_refused_when_it_has_been_read_or_is_hopeless(
    kit: Any, messages: Any
) -> None:
    _, event = start(*messages(kit), limit=10)

    assert isinstance(event, RequestRefused)
    assert isinstance(event.error, PayloadTooLargeError)
    assert "10 bytes" in event.error.message


def test_a_body_of_exactly_the_limit_is_accepted(kit: Any) -> None:
    _, event = start(kit.headers(modes=LEAN, content_length="10"), kit.body(b"x" * 10), limit=10)

    assert isinstance(event, RequestComplete)


@pytest.mark.parametrize(
    "modes",
    [
        pytest.param((request, response), id=f"{request}-{response}")
        for request in range(7)
        for response in range(7)
        if not (request in {2, 4} and response in {0, 2, 4})
    ],
)
def test_other_body_modes_are_refused(kit: Any, modes: Any) -> None:
    exchange, event = start(kit.headers(modes=modes))

    assert isinstance(event, StreamBroken)
    assert event.unsupported
    assert "unsupported processing mode: request_body_mode" in event.detail
    assert exchange.receive(kit.body(), 2.0) == ()


# Refusals


def test_a_refusal_is_one_immediate_response_and_the_rest_is_ignored(kit: Any) -> None:
    exchange, _ = start(kit.headers(modes=GATEWAY), kit.body(b"ab", end=False))

    answers = exchange.refuse(ResourceExhaustedError("saturated"))

    assert kinds(answers) == ["immediate_response"]
    assert exchange.receive(kit.body(b"cd"), 3.0) == ()
    assert exchange.receive(kit.response_headers(), 3.0) == ()
    assert exchange.refuse(ResourceExhaustedError("again")) == ()


def test_a_routed_request_can_no_longer_be_refused(kit: Any) -> None:
    exchange, _ = start(kit.headers(end=True))
    exchange.route(PICK)

    assert not exchange.refusable
    assert exchange.refuse(ResourceExhaustedError("late")) == ()


# The response phase


def routed(kit: Any, modes: Any) -> Exchange:
    exchange, _ = start(kit.headers(modes=modes), kit.body())
    exchange.route(PICK)
    return exchange


@pytest.mark.parametrize("modes", [pytest.param(LEAN, id="lean"), pytest.param(GATEWAY, id="gw")])
def test_response_headers_get_the_mark_and_nothing_else(kit: Any, modes: Any) -> None:
    exchange = routed(kit, modes)

    (answer,) = answered(
        exchange, kit.response_headers("503", content_type="text/event-stream"), 3.0
    )

    common = answer.response_headers.response
    assert kit.set_headers(common.header_mutation) == {"x-went-into-resp-headers": "true"}
    assert [field.name for field, _ in common.ListFields()] == ["header_mutation"]
    assert (exchange.response.status, exchange.response.streaming) == (503, True)


def test_gateway_response_chunks_come_back_unchanged(kit: Any) -> None:
    exchange = routed(kit, GATEWAY)
    exchange.receive(kit.response_headers(content_type="text/event-stream"), 3.0)
    big = b"data: x\n" * 10_000

    first = answered(exchange, kit.response_body(big), 4.0)
    last = answered(
        exchange, kit.response_body(b'data: {"usage":{"prompt_tokens":4}}\n\n', end=True), 5.0
    )

    assert [len(streamed(answer).body) for answer in first] == [62_000, 18_000]
    assert b"".join(streamed(answer).body for answer in first) == big
    assert not any(streamed(answer).end_of_stream for answer in first)
    assert [streamed(answer).end_of_stream for answer in last] == [True]
    assert exchange.finished
    assert exchange.response.first_body_at == 4.0
    assert exchange.response.body_bytes == 80_000 + 37
    assert exchange.response.take_usage() == TokenUsage(prompt_tokens=4)
    assert exchange.response.take_usage() is None


def test_an_empty_first_chunk_is_no_first_byte(kit: Any) -> None:
    exchange = routed(kit, GATEWAY)
    exchange.receive(kit.response_headers(), 3.0)

    exchange.receive(kit.response_body(b""), 4.0)
    exchange.receive(kit.response_body(b"x"), 5.0)

    assert exchange.response.first_body_at == 5.0


def test_a_buffered_response_body_is_kept_as_it_is(kit: Any) -> None:
    exchange = routed(kit, LEAN_BUFFERED)
    exchange.receive(kit.response_headers(), 3.0)

    (answer,) = answered(exchange, kit.response_body(b'{"usage":{"prompt_tokens":4}}'), 4.0)
    late = answered(exchange, kit.response_trailers(), 5.0)

    assert not answer.response_body.response.ListFields()
    assert kinds(late) == ["response_trailers"]
    assert exchange.finished
    assert exchange.response.take_usage() == TokenUsage(prompt_tokens=4)


@pytest.mark.parametrize("modes", [pytest.param(LEAN, id="lean"), pytest.param(GATEWAY, id="gw")])
def test_response_trailers_are_answered_and_end_the_response(kit: Any, modes: Any) -> None:
    exchange = routed(kit, modes)
    exchange.receive(kit.response_headers(), 3.0)

    (answer,) = answered(exchange, kit.response_trailers(), 4.0)

    assert not answer.response_trailers.ListFields()
    assert exchange.finished


def test_response_headers_may_be_the_end(kit: Any) -> None:
    exchange = routed(kit, GATEWAY)

    exchange.receive(kit.response_headers("204", end=True), 3.0)

    assert exchange.finished


@pytest.mark.parametrize(
    ("modes", "messages", "want"),
    [
        pytest.param(LEAN, 0, False, id="lean-before-response-headers"),
        pytest.param(LEAN, 1, True, id="lean-after-response-headers"),
        pytest.param(LEAN_BUFFERED, 1, False, id="buffered-before-the-body"),
        pytest.param(LEAN_BUFFERED, 2, True, id="buffered-after-the-body"),
        pytest.param(GATEWAY, 1, False, id="gateway-after-response-headers"),
        pytest.param(GATEWAY, 2, False, id="gateway-amid-the-body"),
        pytest.param(GATEWAY, 3, True, id="gateway-after-the-end"),
    ],
)
def test_when_the_end_of_the_stream_means_a_finished_response(
    kit: Any, modes: Any, messages: Any, want: Any
) -> None:
    exchange = routed(kit, modes)
    following = [kit.response_headers(), kit.response_body(), kit.response_body(end=True)]

    for message in following[:messages]:
        exchange.receive(message, 3.0)

    assert exchange.finished_when_closed is want


@pytest.mark.parametrize("modes", [pytest.param(LEAN, id="lean"), pytest.param(GATEWAY, id="gw")])
def test_the_gateways_own_response_before_the_request_is_complete_is_answered(
    kit: Any, modes: Any
) -> None:
    exchange, _ = start(kit.headers(modes=modes))

    answers = answered(exchange, kit.response_headers("413"), 3.0)

    assert kinds(answers) == ["response_headers"]
    assert exchange.response.status == 413
    assert not exchange.refusable


# Illegal orders

MESSAGES: dict[Kind, Callable[[Any], ProcessingRequest]] = {
    Kind.REQUEST_HEADERS: lambda kit: kit.headers(),
    Kind.REQUEST_HEADERS_END: lambda kit: kit.headers(end=True),
    Kind.REQUEST_BODY: lambda kit: kit.body(end=False),
    Kind.REQUEST_BODY_END: lambda kit: kit.body(),
    Kind.REQUEST_TRAILERS: lambda kit: kit.trailers(),
    Kind.LATE_REQUEST_TRAILERS: lambda kit: kit.trailers(),
    Kind.RESPONSE_HEADERS: lambda kit: kit.response_headers(),
    Kind.RESPONSE_HEADERS_END: lambda kit: kit.response_headers(end=True),
    Kind.RESPONSE_BODY: lambda kit: kit.response_body(),
    Kind.RESPONSE_BODY_END: lambda kit: kit.response_body(end=True),
    Kind.RESPONSE_TRAILERS: lambda kit: kit.response_trailers(),
    Kind.EMPTY: lambda _kit: ProcessingRequest(),
}


def in_state(kit: Any, state: State, modes: Any) -> Exchange:
    """Lead an exchange to a state."""
    exchange, _ = start(limit=1000)
    steps = {
        State.START: [],
        State.REQUEST_BODY: [Kind.REQUEST_HEADERS],
        State.DECIDING: [Kind.REQUEST_HEADERS_END],
        State.AWAIT_RESPONSE: [Kind.REQUEST_HEADERS_END],
        State.RESPONSE_BODY: [Kind.REQUEST_HEADERS_END, Kind.RESPONSE_HEADERS],
        State.RESPONSE_DONE: [Kind.REQUEST_HEADERS_END, Kind.RESPONSE_HEADERS_END],
        State.REFUSED: [Kind.REQUEST_HEADERS],
        State.BROKEN: [Kind.RESPONSE_HEADERS],
    }[state]
    for kind in steps:
        message = MESSAGES[kind](kit)
        if kind in {Kind.REQUEST_HEADERS, Kind.REQUEST_HEADERS_END}:
            message.protocol_config.request_body_mode = modes[0]
            message.protocol_config.response_body_mode = modes[1]
        exchange.receive(message, 1.0)
        if exchange.state is State.DECIDING and state is not State.DECIDING:
            exchange.route(PICK)
    if state is State.REFUSED:
        exchange.refuse(ResourceExhaustedError("no"))
    assert exchange.state is state
    return exchange


@pytest.mark.parametrize(
    ("state", "kind"),
    [
        pytest.param(state, kind, id=f"{state.name}-{kind.name}")
        for state in State
        for kind in Kind
        if (state, kind) != (State.START, Kind.LATE_REQUEST_TRAILERS)  # no mode is known yet
    ],
)
def test_the_table_decides_what_may_come(kit: Any, state: State, kind: Any) -> None:
    late = kind is Kind.LATE_REQUEST_TRAILERS
    exchange = in_state(kit, state, LEAN if late else GATEWAY)

    event = exchange.receive(MESSAGES[kind](kit), 2.0)

    want = TRANSITIONS[state].get(kind)
    assert isinstance(event, StreamBroken) is (want is None)
    assert exchange.state is (want or State.BROKEN)


def test_a_violation_says_what_came_and_when(kit: Any) -> None:
    _, event = start(kit.headers(), kit.headers())

    assert event.detail == "unexpected message: request headers, while waiting for the request body"
    assert not event.unsupported


def test_a_response_body_that_was_not_asked_for_is_a_violation(kit: Any) -> None:
    exchange = routed(kit, LEAN)
    exchange.receive(kit.response_headers(), 3.0)

    event = exchange.receive(kit.response_body(), 4.0)

    assert isinstance(event, StreamBroken)


def test_bodies_are_released_with_the_answer(kit: Any) -> None:
    exchange, _ = start(kit.headers(modes=GATEWAY), kit.body(b"x" * 500))

    exchange.route(PICK)

    assert (exchange._body, exchange._chunks) == (b"", [])
