"""The ext_proc conversation of one HTTP request as a state machine, without any I/O.

What may come next is data at the top of this file; ``Exchange`` applies it. The first message
tells the data path: a *buffered* request body is one message, answered as one; a *full-duplex*
one comes in chunks, is answered at its end, and its bytes are sent back. Response bodies never
come, come whole, or in chunks that are sent back. The caller brings time, ids and decisions.

Invariants: every message that Envoy waits on is answered, in order; the stream is never ended by
the machine after the request phase (Envoy would lose response bytes); bodies are held until they
are answered, response bodies not at all.

Observed on Envoy 1.40, both paths: the stream ends with a half-close, in the same millisecond
followed by a reset, **whatever happened**: response finished, client gone, upstream gone. Only
the messages before it tell them apart; see ``FINISHED_WHEN_CLOSED``. An upstream that fails early
appears as Envoy's own 503 in a response headers message, and so do its refusals (413).
"""

from collections.abc import Callable, Mapping
from enum import Enum
from types import MappingProxyType
from typing import ClassVar

from epp.errors import EppError
from epp.gen.envoy.service.ext_proc.v3.external_processor_pb2 import ProcessingRequest
from epp.handlers import messages
from epp.handlers.body_mode import WHOLE_BODIES, BodyMode, body_modes
from epp.handlers.events import Answers, Event, RequestComplete, RequestRefused, StreamBroken
from epp.handlers.request import (
    FOREIGN_HEADERS,
    READ_ON_FACTOR,
    REQUEST_ID_HEADER,
    content_length,
    header_map,
    latest_subset,
    request_path,
    served_endpoint,
    too_long,
)
from epp.handlers.response import RESPONSE_HEADERS, ResponseMeter


class State(Enum):
    """Where a conversation stands."""

    __hash__ = object.__hash__  # by identity and in C: looked up for every message

    START = "start"
    REQUEST_BODY = "waiting for the request body"
    DECIDING = "waiting for a decision"
    AWAIT_RESPONSE = "waiting for the response"
    RESPONSE_BODY = "waiting for the response body"
    RESPONSE_DONE = "response finished"
    REFUSED = "refused"
    BROKEN = "broken"


class Kind(Enum):
    """What a message is, its place in its direction included."""

    __hash__ = object.__hash__  # by identity and in C: looked up for every message

    REQUEST_HEADERS = "request headers"
    REQUEST_HEADERS_END = "last request headers"
    REQUEST_BODY = "request body"
    REQUEST_BODY_END = "last request body"
    REQUEST_TRAILERS = "request trailers"
    LATE_REQUEST_TRAILERS = "request trailers beside a buffered body"
    RESPONSE_HEADERS = "response headers"
    RESPONSE_HEADERS_END = "last response headers"
    RESPONSE_BODY = "response body"
    RESPONSE_BODY_END = "last response body"
    RESPONSE_TRAILERS = "response trailers"
    EMPTY = "empty"


_RESPONSE_BEGINS = {
    Kind.RESPONSE_HEADERS: State.RESPONSE_BODY,
    Kind.RESPONSE_HEADERS_END: State.RESPONSE_DONE,
}

_KINDS = {
    "request_headers": (Kind.REQUEST_HEADERS, Kind.REQUEST_HEADERS_END),
    "request_body": (Kind.REQUEST_BODY, Kind.REQUEST_BODY_END),
    "response_headers": (Kind.RESPONSE_HEADERS, Kind.RESPONSE_HEADERS_END),
    "response_body": (Kind.RESPONSE_BODY, Kind.RESPONSE_BODY_END),
}
"""Field of a message → what it is while more may follow, and what it is as the last one."""

TRANSITIONS: Mapping[State, Mapping[Kind, State]] = MappingProxyType(
    {
        State.START: {
            Kind.REQUEST_HEADERS: State.REQUEST_BODY,
            Kind.REQUEST_HEADERS_END: State.DECIDING,
        },
        State.REQUEST_BODY: {
            Kind.REQUEST_BODY: State.REQUEST_BODY,
            Kind.REQUEST_BODY_END: State.DECIDING,
            Kind.REQUEST_TRAILERS: State.DECIDING,
            # Headers were answered and no body came: too late to choose, the gateway goes on.
            Kind.LATE_REQUEST_TRAILERS: State.AWAIT_RESPONSE,
            **_RESPONSE_BEGINS,
        },
        State.DECIDING: {**_RESPONSE_BEGINS},
        State.AWAIT_RESPONSE: {
            Kind.LATE_REQUEST_TRAILERS: State.AWAIT_RESPONSE,
            **_RESPONSE_BEGINS,
        },
        State.RESPONSE_BODY: {
            Kind.RESPONSE_BODY: State.RESPONSE_BODY,
            Kind.RESPONSE_BODY_END: State.RESPONSE_DONE,
            Kind.RESPONSE_TRAILERS: State.RESPONSE_DONE,
        },
        State.RESPONSE_DONE: {Kind.RESPONSE_TRAILERS: State.RESPONSE_DONE},
        # Messages that were on their way when we gave up.
        State.REFUSED: dict.fromkeys(Kind, State.REFUSED),
        State.BROKEN: dict.fromkeys(Kind, State.BROKEN),
    }
)
"""State and message → next state; what is not here is an illegal order. ``route`` leads from
DECIDING to AWAIT_RESPONSE, ``refuse`` to REFUSED."""

FINISHED_WHEN_CLOSED: Mapping[BodyMode, frozenset[State]] = MappingProxyType(
    {
        # With trailers requested Envoy keeps the stream open until the response is over. An
        # abort after the response headers looks the same; the access log knows it.
        BodyMode.NONE: frozenset({State.RESPONSE_BODY, State.RESPONSE_DONE}),
        BodyMode.BUFFERED: frozenset({State.RESPONSE_DONE}),
        BodyMode.FULL_DUPLEX: frozenset({State.RESPONSE_DONE}),
    }
)
"""Response body mode → states in which the end of the stream means a finished response. In any
other state somebody went away: client, upstream or gateway, Envoy does not say who."""

_REFUSABLE = frozenset({State.START, State.REQUEST_BODY, State.DECIDING})
_IGNORING = frozenset({State.REFUSED, State.BROKEN})


class Exchange:
    """One conversation.

    Args:
        max_body_bytes: Longest request body that is accepted.
        new_id: Gives a request id to a request without one.

    Attributes:
        state: Where it stands.
        request_id: Empty until the request headers came.
        path: Path with query.
        received_at: When the request headers came, on the caller's clock.
        response: What is known of the response.
        sees_response_body: Its bytes and usage pass here, not in the access log alone.
    """

    __slots__ = (
        "_body",
        "_chunks",
        "_generated_id",
        "_has_body",
        "_has_trailers",
        "_headers",
        "_max_body_bytes",
        "_new_id",
        "_response_mode",
        "_size",
        "_subset",
        "_whole",
        "path",
        "received_at",
        "request_id",
        "response",
        "sees_response_body",
        "state",
    )

    def __init__(self, *, max_body_bytes: int, new_id: Callable[[], str]) -> None:
        self._max_body_bytes = max_body_bytes
        self._new_id = new_id
        self._response_mode = BodyMode.FULL_DUPLEX
        self._whole: frozenset[str] = frozenset()
        self._headers: Mapping[str, str] = {}
        self._generated_id = False
        self._has_body = True
        self._has_trailers = False
        self._chunks: list[bytes] = []
        self._size = 0
        self._body = b""
        self._subset: tuple[str, ...] | None = None
        self.state = State.START
        self.request_id = ""
        self.path = ""
        self.received_at = 0.0
        self.response = ResponseMeter()
        self.sees_response_body = True

    @property
    def refusable(self) -> bool:
        """The request can still be answered in place of the model server."""
        return self.state in _REFUSABLE

    @property
    def finished(self) -> bool:
        """The response was seen to its end."""
        return self.state is State.RESPONSE_DONE

    @property
    def finished_when_closed(self) -> bool:
        """The end of the stream now means a finished response."""
        return self.state in FINISHED_WHEN_CLOSED[self._response_mode]

    @property
    def held_bytes(self) -> int:
        """Bytes of the request's body that wait here."""
        return self._size if self._chunks else len(self._body)

    def receive(self, message: ProcessingRequest, now: float) -> Event:
        """Take a message of the gateway.

        Args:
            message: As it came.
            now: Monotonic seconds.
        """
        if self.state is State.START and message.HasField("protocol_config"):
            try:
                self._use_modes(*body_modes(message.protocol_config))
            except ValueError as exc:
                return self._break(str(exc), unsupported=True)
        kind = self._classify(message)
        following = TRANSITIONS[self.state].get(kind)
        if following is None:
            return self._break(f"unexpected message: {kind.value}, while {self.state.value}")
        self.state = following
        if following in _IGNORING:
            return ()
        return self._HANDLERS[kind](self, message, now)

    def route(self, targets: tuple[str, ...], body: bytes | None = None) -> Answers:
        """Answer a complete request with a pick.

        Args:
            targets: ``ip:port`` of every pick, best first.
            body: The body to send instead of the client's; None keeps it.
        """
        if self.state is not State.DECIDING:
            return ()
        kept = self._body if body is None else body
        buffered = self._has_body and "request_body" in self._whole
        first = messages.routed(
            targets=targets,
            request_id=self.request_id if self._generated_id else None,
            content_length=self._length_to_set(kept, changed=body is not None),
            remove=[name for name in FOREIGN_HEADERS if name in self._headers],
            answers_body=buffered,
            body=body if buffered else None,
        )
        answers = (first,) if buffered else (first, *self._duplex_body(kept))
        self._release(State.AWAIT_RESPONSE)
        return answers

    def refuse(self, error: EppError) -> Answers:
        """Answer the request in place of the model server; nothing once it was routed."""
        if not self.refusable:
            return ()
        self._release(State.REFUSED)
        return (messages.immediate(error, self.path),)

    def abandon(self) -> None:
        """Ignore whatever still comes: the caller ended the stream."""
        self._release(State.BROKEN)

    def _duplex_body(self, body: bytes) -> Answers:
        answers: Answers = ()
        # Before trailers an empty body had no message, and Envoy fails on an answer to none.
        if self._has_body and (body or not self._has_trailers):
            answers = messages.request_chunks(body, end_of_stream=not self._has_trailers)
        return (*answers, messages.REQUEST_TRAILERS) if self._has_trailers else answers

    def _length_to_set(self, body: bytes, *, changed: bool) -> int | None:
        """Full duplex makes Envoy drop the length; a body before trailers has none."""
        if not self._has_body or self._has_trailers:
            return None
        if "request_body" in self._whole:
            return len(body) if changed else None
        return len(body) or None

    def _use_modes(self, request: BodyMode, response: BodyMode) -> None:
        self._response_mode = response
        self.sees_response_body = response is not BodyMode.NONE
        self._whole = WHOLE_BODIES[request, response]

    def _classify(self, message: ProcessingRequest) -> Kind:
        name = message.WhichOneof("request")
        if name in _KINDS:
            more, last = _KINDS[name]
            ends = name in self._whole or getattr(message, name).end_of_stream
            return last if ends else more
        if name == "request_trailers":
            late = "request_body" in self._whole
            return Kind.LATE_REQUEST_TRAILERS if late else Kind.REQUEST_TRAILERS
        return Kind.RESPONSE_TRAILERS if name == "response_trailers" else Kind.EMPTY

    def _on_request_headers(self, message: ProcessingRequest, now: float) -> Event:
        self.received_at = now
        self._headers = header_map(message.request_headers.headers)
        self.path = request_path(self._headers)
        self.request_id = self._headers.get(REQUEST_ID_HEADER, "")
        if not self.request_id:
            self.request_id = self._new_id()
            self._generated_id = True
        self._subset = latest_subset(message, self._subset)
        if self.state is State.DECIDING:
            self._has_body = False
            return self._complete()
        if content_length(self._headers) > self._max_body_bytes * READ_ON_FACTOR:
            return RequestRefused(too_long(self._max_body_bytes))
        if "request_body" in self._whole:
            return (messages.CONTINUE_HEADERS,)
        return ()

    def _on_request_body(self, message: ProcessingRequest, _now: float) -> Event:
        chunk = message.request_body.body
        self._size += len(chunk)
        if self._size > self._max_body_bytes:
            self._chunks.clear()
            if self._size > self._max_body_bytes * READ_ON_FACTOR:
                return RequestRefused(too_long(self._max_body_bytes))
        elif chunk:
            self._chunks.append(chunk)
        self._subset = latest_subset(message, self._subset)
        if self.state is not State.DECIDING:
            return ()
        # Of a buffered body this says that trailers follow.
        self._has_trailers = not message.request_body.end_of_stream
        return self._complete()

    def _on_request_trailers(self, message: ProcessingRequest, _now: float) -> Event:
        self._has_trailers = True
        self._subset = latest_subset(message, self._subset)
        return self._complete()

    def _on_late_request_trailers(self, _message: ProcessingRequest, _now: float) -> Event:
        return (messages.REQUEST_TRAILERS,)

    def _on_response_headers(self, message: ProcessingRequest, _now: float) -> Event:
        self._chunks.clear()
        headers = header_map(message.response_headers.headers, only=RESPONSE_HEADERS)
        self.response.start(headers, served_endpoint(message))
        return (messages.RESPONSE_HEADERS,)

    def _on_response_body(self, message: ProcessingRequest, now: float) -> Event:
        if not self.sees_response_body:
            return self._break("unexpected message: response body, although its mode is NONE")
        part = message.response_body
        body = part.body
        self.response.feed(body, now)
        if "response_body" in self._whole:
            return (messages.CONTINUE_RESPONSE_BODY,)
        return messages.response_chunks(body, end_of_stream=part.end_of_stream)

    def _on_response_trailers(self, _message: ProcessingRequest, _now: float) -> Event:
        return (messages.RESPONSE_TRAILERS,)

    def _complete(self) -> RequestComplete | RequestRefused:
        if self._size > self._max_body_bytes:
            return RequestRefused(too_long(self._max_body_bytes))
        self._body = b"".join(self._chunks)
        self._chunks.clear()
        return RequestComplete(
            request_id=self.request_id,
            path=self.path,
            headers=self._headers,
            has_body=self._has_body,
            body=self._body,
            subset=self._subset,
            received_at=self.received_at,
        )

    def _break(self, detail: str, *, unsupported: bool = False) -> StreamBroken:
        self._release(State.BROKEN)
        return StreamBroken(detail, unsupported)

    def _release(self, state: State) -> None:
        self.state = state
        self._chunks.clear()
        self._body = b""

    _HANDLERS: ClassVar[dict[Kind, Callable[["Exchange", ProcessingRequest, float], Event]]] = {
        Kind.REQUEST_HEADERS: _on_request_headers,
        Kind.REQUEST_HEADERS_END: _on_request_headers,
        Kind.REQUEST_BODY: _on_request_body,
        Kind.REQUEST_BODY_END: _on_request_body,
        Kind.REQUEST_TRAILERS: _on_request_trailers,
        Kind.LATE_REQUEST_TRAILERS: _on_late_request_trailers,
        Kind.RESPONSE_HEADERS: _on_response_headers,
        Kind.RESPONSE_HEADERS_END: _on_response_headers,
        Kind.RESPONSE_BODY: _on_response_body,
        Kind.RESPONSE_BODY_END: _on_response_body,
        Kind.RESPONSE_TRAILERS: _on_response_trailers,
    }
