"""The driver: a stream of a transport feeds an Exchange, and its answers go back.

Each stream belongs to one HTTP request and runs entirely inside the transport's calls: no task, no
queue, no await. An EppError anywhere becomes one immediate response; any other exception is
logged once and becomes a 500 as long as the request is unanswered, a gRPC status afterwards.
Whatever happens, the director hears of the end of each request that it routed exactly once.
"""

import time
import uuid
from collections.abc import Callable
from typing import ParamSpec, Protocol

from google.protobuf.message import DecodeError

from epp.errors import EppError, InternalError
from epp.gen.envoy.service.ext_proc.v3.external_processor_pb2 import ProcessingRequest
from epp.handlers.access_log import AccessLog, ExpectedEntry
from epp.handlers.events import Answers, Event, RequestComplete, RequestRefused, StreamBroken
from epp.handlers.exchange import Exchange
from epp.handlers.messages import HTTP_STATUS
from epp.handlers.parsers.openai import OpenAIParser
from epp.handlers.parsers.parser import ParsedRequest, RequestParser
from epp.handlers.parsers.splice import splice_model
from epp.logs import Verbosity, get_logger
from epp.requestcontrol.types import (
    Completion,
    CompletionCause,
    IncomingRequest,
    RoutingDecision,
)
from epp.transport.stream import CloseReason, Services, StatusCode, StreamSender

log = get_logger(__name__)

PROCESS_METHOD = "/envoy.service.ext_proc.v3.ExternalProcessor/Process"
ACCESS_LOG_METHOD = "/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs"

DEFAULT_MAX_REQUEST_BODY = 16 << 20
"""Bytes of a request body: four 1M-token prompts."""

P = ParamSpec("P")

_BODYLESS = ParsedRequest(opaque=True)
_UNCLEAN = frozenset({CloseReason.ERROR, CloseReason.SHUTDOWN})


class Director(Protocol):
    """Who decides."""

    def handle_request(self, incoming: IncomingRequest) -> RoutingDecision:
        """Route a complete request. Raises EppError, which it has counted."""
        ...

    def note_refused(self) -> None:
        """Count a request that was refused before it could be decided on."""
        ...

    def handle_complete(self, routing: RoutingDecision, completion: Completion) -> None:
        """Take note of the end of a routed request."""
        ...


class ExchangeMetrics(Protocol):
    """What only this package can count."""

    def request_failed(self, model: str, target_model: str, priority: int, error_code: str) -> None:
        """Count a request that never got to the director."""
        ...

    def request_processing(self, seconds: float) -> None:
        """Observe the time from request headers to our answer."""
        ...

    def response_processing(self, seconds: float) -> None:
        """Observe the time spent on a response."""
        ...


class ExtProcService:
    """What all streams share.

    Args:
        director: Who decides.
        metrics: Counts.
        access_log: Is told which requests to expect in the gateway's log.
        parser: Reads request bodies.
        max_request_body: Longest request body in bytes.
        clock: Monotonic seconds.
        id_source: Makes request ids.

    Attributes:
        open_streams: Requests of the gateway that have not ended, decided or not.
    """

    def __init__(
        self,
        director: Director,
        *,
        metrics: ExchangeMetrics,
        access_log: AccessLog,
        parser: RequestParser | None = None,
        max_request_body: int = DEFAULT_MAX_REQUEST_BODY,
        clock: Callable[[], float] = time.monotonic,
        id_source: Callable[[], str] = lambda: str(uuid.uuid4()),
    ) -> None:
        self.director = director
        self.metrics = metrics
        self.access_log = access_log
        self.parser = parser or OpenAIParser()
        self.max_request_body = max_request_body
        self.clock = clock
        self.id_source = id_source
        self.open_streams = 0
        self._told: set[str] = set()

    @property
    def services(self) -> Services:
        """What a transport needs to serve the gateway."""
        return {PROCESS_METHOD: self.open_stream, ACCESS_LOG_METHOD: self.access_log.open_stream}

    def open_stream(self, sender: StreamSender) -> "ExtProcStream":
        """Serve one HTTP request of the gateway."""
        self.open_streams += 1
        return ExtProcStream(self, sender)

    def tell_once(self, event: str, detail: str) -> None:
        """Log a fault of the peer; there are as many details as lines in our tables."""
        if detail not in self._told:
            self._told.add(detail)
            log.error(event, detail=detail)


class ExtProcStream:
    """One HTTP request."""

    __slots__ = (
        "_completed",
        "_exchange",
        "_expected",
        "_held_bytes",
        "_response_seconds",
        "_routing",
        "_sender",
        "_service",
        "_status",
    )

    def __init__(self, service: ExtProcService, sender: StreamSender) -> None:
        self._service = service
        self._sender = sender
        self._exchange = Exchange(max_body_bytes=service.max_request_body, new_id=service.id_source)
        self._routing: RoutingDecision | None = None
        self._completed = False
        self._held_bytes = 0
        self._expected: ExpectedEntry | None = None
        self._status = 0
        self._response_seconds = 0.0

    def on_message(self, payload: bytes) -> None:
        """Take a message of the gateway."""
        exchange = self._exchange
        now = self._service.clock()
        try:
            self._react(exchange.receive(ProcessingRequest.FromString(payload), now))
        except DecodeError:
            self._break(StreamBroken("not a ProcessingRequest"))
        except Exception as exc:
            self._fail(exc)
        held = exchange.held_bytes
        if held != self._held_bytes:
            self._sender.hold(held - self._held_bytes)
            self._held_bytes = held
        if exchange.response.status:
            self._response_seconds += self._service.clock() - now
        if exchange.finished:
            self._complete(CompletionCause.NATURAL)

    def on_half_close(self) -> None:
        """Take note that the gateway is done with this request."""
        if not self._completed:
            self._complete(self._cause_of_close())
        self._sender.finish()

    def on_closed(self, reason: CloseReason) -> None:
        """Take note of the end, and write the request's one line."""
        self._service.open_streams -= 1
        if not self._completed:
            unclean = reason in _UNCLEAN
            self._complete(CompletionCause.ERROR if unclean else self._cause_of_close())
        if log.enabled(Verbosity.VERBOSE):
            self._log_request(reason)

    def _react(self, event: Event) -> None:
        if isinstance(event, tuple):
            self._send(event)
        elif isinstance(event, RequestComplete):
            self._decide(event)
        elif isinstance(event, RequestRefused):
            self._refuse_uncounted(event.error)
        else:
            self._break(event)

    def _decide(self, request: RequestComplete) -> None:
        service = self._service
        parsed = _BODYLESS
        try:
            if request.has_body:
                parsed = service.parser.parse(request.path, request.body)
        except EppError as exc:
            self._refuse_uncounted(exc)
            return
        try:
            routing = service.director.handle_request(_incoming(request, parsed))
        except EppError as exc:
            self._refuse(exc)
            return
        self._routing = routing
        body = None
        if parsed.model and routing.target_model not in {"", parsed.model}:
            body = splice_model(request.body, routing.target_model)
        self._send(self._exchange.route(routing.targets, body))
        wanted = not self._exchange.sees_response_body
        self._expected = service.access_log.expect(routing, wanted=wanted)
        self._note_processing()

    def _refuse_uncounted(self, error: EppError) -> None:
        self._service.metrics.request_failed("", "", 0, error.code)
        self._service.director.note_refused()
        self._refuse(error)

    def _refuse(self, error: EppError) -> None:
        answers = self._exchange.refuse(error)
        self._status = HTTP_STATUS[error.code]
        self._send(answers)
        self._note_processing()

    def _note_processing(self) -> None:
        seconds = self._service.clock() - self._exchange.received_at
        self._contained(self._service.metrics.request_processing, seconds)

    def _fail(self, exc: Exception) -> None:
        """Catch what nobody expected: this request suffers, no other does."""
        log.error("request failed", request_id=self._exchange.request_id, error=exc)
        failure = InternalError("the endpoint picker failed; see its log")
        if not self._exchange.refusable:
            self._exchange.abandon()
            self._sender.finish(StatusCode.INTERNAL, failure.message)
        elif self._routing is None:
            self._refuse_uncounted(failure)
        else:
            self._refuse(failure)
        self._complete(CompletionCause.ERROR)

    def _break(self, event: StreamBroken) -> None:
        code = StatusCode.UNIMPLEMENTED if event.unsupported else StatusCode.INVALID_ARGUMENT
        self._service.tell_once("gateway cannot be served", event.detail)
        self._exchange.abandon()
        self._sender.finish(code, event.detail)
        self._complete(CompletionCause.ERROR)

    def _send(self, answers: Answers) -> None:
        for answer in answers:
            self._sender.send(answer.SerializeToString())

    def _cause_of_close(self) -> CompletionCause:
        if self._exchange.finished_when_closed:
            return CompletionCause.NATURAL
        return CompletionCause.CLIENT_DISCONNECT

    def _complete(self, cause: CompletionCause) -> None:
        if self._routing is None or self._completed:
            return
        self._completed = True
        service = self._service
        response = self._exchange.response
        seen = self._exchange.sees_response_body
        completion = Completion(
            cause=cause,
            status=response.status,
            streaming=response.streaming,
            completed_at=service.clock(),
            first_body_at=response.first_body_at,
            response_bytes=response.body_bytes if seen else None,
            usage=response.take_usage(),
            served_by=response.served_by,
        )
        self._contained(service.director.handle_complete, self._routing, completion)
        self._contained(service.metrics.response_processing, self._response_seconds)
        if self._expected is not None:
            self._contained(service.access_log.finish, self._expected)

    def _contained(self, note: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
        """Take a note; a fault of whoever takes it must not end a response."""
        try:
            note(*args, **kwargs)
        except Exception as exc:
            log.error("taking a note failed", request_id=self._exchange.request_id, error=exc)

    def _log_request(self, reason: CloseReason) -> None:
        routing = self._routing
        exchange = self._exchange
        log.verbose(
            "request",
            request_id=exchange.request_id,
            model=routing.request.model if routing else "",
            target_model=routing.target_model if routing else "",
            endpoint=routing.endpoint.key if routing else "",
            status=exchange.response.status or self._status,
            ms=round((self._service.clock() - exchange.received_at) * 1000, 1),
            state=exchange.state.value,
            closed=reason.value,
        )


def _incoming(request: RequestComplete, parsed: ParsedRequest) -> IncomingRequest:
    return IncomingRequest(
        request_id=request.request_id,
        path=request.path,
        headers=request.headers,
        has_body=not parsed.opaque,
        model=parsed.model,
        stream=parsed.stream,
        size_bytes=len(request.body),
        payload=parsed.payload,
        subset=request.subset,
        received_at=request.received_at,
    )
