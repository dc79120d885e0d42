"""What the tests of this package share: builders of Envoy's messages, fakes of what it talks to."""

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from google.protobuf import json_format

from epp.backend.endpoint import Endpoint
from epp.backend.endpoint_rows import EndpointRows
from epp.errors import ResourceExhaustedError
from epp.gen.envoy.service.ext_proc.v3.external_processor_pb2 import (
    ProcessingRequest,
    ProcessingResponse,
)
from epp.handlers.access_log import AccessLog
from epp.handlers.server import PROCESS_METHOD, ExtProcService
from epp.requestcontrol.types import IncomingRequest, RoutingDecision
from epp.scheduling.types import Decision, InferenceRequest
from epp.testing.fake_clock import FakeClock
from epp.transport.stream import Metadata, StatusCode

TESTDATA = Path(__file__).parents[3] / "testdata" / "ext_proc"
NONE, STREAMED, BUFFERED, PARTIAL, DUPLEX = range(5)
ENDPOINT = Endpoint(namespace="default", pod_name="pod", address="10.0.0.5", port=8000)
TARGETS = (ENDPOINT.target,)


def decode(document: Any, message_type: Any) -> Any:
    """Build a message from testdata: protobuf's JSON form with text in bytes fields."""

    def encode(value: Any) -> Any:
        if isinstance(value, dict):
            return {
                key: base64.b64encode(item.encode()).decode()
                if key in {"raw_value", "body"} and isinstance(item, str)
                else encode(item)
                for key, item in value.items()
            }
        return [encode(item) for item in value] if isinstance(value, list) else value

    return json_format.ParseDict(encode(document), message_type())


def headers(
    end: Any = False, modes: Any = None, metadata: Any = None, **fields: Any
) -> ProcessingRequest:
    """Request headers; ``modes`` are (request, response), None is the gateway's silence."""
    pairs = {":method": "POST", ":path": "/v1/completions", "x-request-id": "id-1"}
    pairs.update({name.replace("_", "-"): value for name, value in fields.items()})
    message = ProcessingRequest()
    message.request_headers.end_of_stream = end
    for name, value in pairs.items():
        if value is not None:
            raw = value.encode()
            message.request_headers.headers.headers.add(key=name, raw_value=raw)
    if modes is not None:
        message.protocol_config.request_body_mode = modes[0]
        message.protocol_config.response_body_mode = modes[1]
    return with_metadata(message, metadata)


def with_metadata(message: ProcessingRequest, metadata: Any) -> ProcessingRequest:
    """Attach dynamic metadata: namespace → key → value."""
    for namespace, content in (metadata or {}).items():
        json_format.ParseDict(content, message.metadata_context.filter_metadata[namespace])
    return message


def body(
    data: Any = b'{"model":"m","prompt":"hi"}', end: Any = True, metadata: Any = None
) -> ProcessingRequest:
    """A request body message."""
    message = ProcessingRequest()
    message.request_body.body = data
    message.request_body.end_of_stream = end
    return with_metadata(message, metadata)


def trailers() -> ProcessingRequest:
    """Request trailers."""
    message = ProcessingRequest()
    message.request_trailers.SetInParent()
    return message


def response_headers(
    status: str = "200",
    end: Any = False,
    content_type: Any = "application/json",
    metadata: Any = None,
) -> ProcessingRequest:
    """Response headers."""
    message = ProcessingRequest()
    message.response_headers.end_of_stream = end
    fields = message.response_headers.headers.headers
    fields.add(key=":status", raw_value=status.encode())
    fields.add(key="content-type", raw_value=content_type.encode())
    return with_metadata(message, metadata)


def response_body(data: Any = b"{}", end: Any = False) -> ProcessingRequest:
    """A response body message."""
    message = ProcessingRequest()
    message.response_body.body = data
    message.response_body.end_of_stream = end
    return message


def response_trailers() -> ProcessingRequest:
    """Response trailers."""
    message = ProcessingRequest()
    message.response_trailers.SetInParent()
    return message


def set_headers(mutation: Any) -> dict[str, str]:
    """Name → value of the headers that a mutation sets."""
    return {item.header.key: item.header.raw_value.decode() for item in mutation.set_headers}


def routing_of(incoming: IncomingRequest, *, target_model: Any = None) -> RoutingDecision:
    """A decision for a request, with all its parts."""
    request = InferenceRequest(
        request_id=incoming.request_id, model=incoming.model, payload=incoming.payload
    )
    rows = EndpointRows()
    rows.put(ENDPOINT)
    return RoutingDecision(
        request=incoming,
        target_model=incoming.model if target_model is None else target_model,
        endpoint=ENDPOINT,
        targets=TARGETS,
        decision=Decision(
            request=request,
            table=rows.snapshot(0.0),
            candidates=np.ones(1, dtype=bool),
            profiles=(),
            primary="default",
        ),
    )


@dataclass
class FakeDirector:
    """Routes everything to one endpoint; ``split`` becomes ``tuned``, ``refuse`` is shed."""

    fault: Exception | None = None
    completion_fault: Exception | None = None
    on_complete: Callable[[], object] = lambda: None
    requests: list[Any] = field(default_factory=list)
    routed: list[Any] = field(default_factory=list)
    completed: list[Any] = field(default_factory=list)
    reports: list[Any] = field(default_factory=list)
    refused_early: int = 0

    def note_refused(self) -> None:
        self.refused_early += 1

    def handle_request(self, incoming: Any) -> RoutingDecision:
        self.requests.append(incoming)
        if self.fault is not None:
            raise self.fault
        if incoming.model == "refuse":
            raise ResourceExhaustedError("saturated", dropped_reason="rejected-saturated")
        target = "tuned" if incoming.model == "split" else incoming.model
        routing = routing_of(incoming, target_model=target)
        self.routed.append(routing)
        return routing

    def handle_complete(self, routing: Any, completion: Any) -> None:
        self.completed.append((routing, completion))
        self.on_complete()
        if self.completion_fault is not None:
            raise self.completion_fault

    def handle_access_report(self, routing: Any, report: Any) -> None:
        self.reports.append((routing, report))


@dataclass
class FakeMetrics:
    """Remembers what was counted."""

    failed: list[Any] = field(default_factory=list)
    request_seconds: list[Any] = field(default_factory=list)
    response_seconds: list[Any] = field(default_factory=list)
    fault: Exception | None = None

    def request_failed(self, model: Any, target_model: Any, priority: Any, error_code: Any) -> None:
        self.failed.append(error_code)

    def request_processing(self, seconds: Any) -> None:
        if self.fault is not None:
            raise self.fault
        self.request_seconds.append(seconds)

    def response_processing(self, seconds: Any) -> None:
        self.response_seconds.append(seconds)


@dataclass
class FakeSender:
    """Keeps what was sent; like a transport, it ignores what comes after the end."""

    sent: list[Any] = field(default_factory=list)
    finished: tuple[StatusCode, str] | None = None
    fault: Exception | None = None
    metadata: Metadata = ()
    held_bytes: int = 0

    def hold(self, change_bytes: int) -> None:
        self.held_bytes += change_bytes

    def send(self, payload: Any) -> None:
        if self.fault is not None:
            raise self.fault
        if self.finished is None:
            self.sent.append(ProcessingResponse.FromString(payload))

    def finish(
        self,
        code: StatusCode = StatusCode.OK,
        details: str = "",
        *,
        metadata: Metadata = (),
    ) -> None:
        assert not metadata, "nothing here sends trailing metadata"
        if self.finished is None:
            self.finished = (code, details)

    def take(self) -> list[ProcessingResponse]:
        """Return what was sent since the last call."""
        sent, self.sent = self.sent, []
        return sent


class Driver:
    """The services over fakes."""

    def __init__(self, *, max_request_body: Any = 1 << 20, **director: Any) -> None:
        self.clock = FakeClock()
        self.director = FakeDirector(**director)
        self.metrics = FakeMetrics()
        self.access_log = AccessLog(
            self.director,
            clock=self.clock,
            wall_clock=lambda: self.clock() + 1e6,
            call_later=self.clock.call_later,
        )
        self.service = ExtProcService(
            self.director,
            metrics=self.metrics,
            access_log=self.access_log,
            max_request_body=max_request_body,
            clock=self.clock,
            id_source=lambda: "generated",
        )
        self.services = self.service.services

    def open(self) -> tuple[Any, FakeSender]:
        """Open an ext_proc stream: its handler and its sender."""
        sender = FakeSender()
        return self.services[PROCESS_METHOD](sender), sender

    def talk(self, *messages: Any) -> tuple[Any, FakeSender]:
        """Open a stream and send messages."""
        handler, sender = self.open()
        for message in messages:
            handler.on_message(message.SerializeToString())
        return handler, sender


@pytest.fixture(scope="session")
def kit() -> SimpleNamespace:
    """Everything above, for tests that cannot import it."""
    return SimpleNamespace(**{name: value for name, value in globals().items() if name[0] != "_"})


@pytest.fixture(scope="session")
def conversations() -> dict[tuple[str, str], Any]:
    """Recorded conversations by path and case."""
    recorded = json.loads((TESTDATA / "envoy-1.40.json").read_text())
    return {(item["path"], item["case"]): item["events"] for item in recorded}
