"""What request control is asked, what it answers, and what it is told at the end.

These values are made for every request: msgspec's structs cost a tenth of a frozen dataclass.
"""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from epp.backend.endpoint import Endpoint
from epp.metrics.usage import TokenUsage
from epp.scheduling.types import Decision

_EMPTY: Mapping[str, Any] = MappingProxyType({})


class IncomingRequest(Struct, frozen=True, kw_only=True):
    """A complete client request, free of Envoy's types.

    Attributes:
        request_id: ``x-request-id``, generated when the client sent none.
        path: Path with query, as the client sent it.
        headers: Lower-case names; last value wins.
        has_body: False for GET and the like: no model, no admission, no per-model metrics.
        model: ``model`` of the body.
        stream: ``stream`` of the body.
        size_bytes: Length of the body.
        payload: The parsed body.
        subset: Subset hint of the gateway: ``ip`` or ``ip:port`` entries; None without a hint.
        received_at: Monotonic seconds of the request headers.
    """

    request_id: str
    path: str
    headers: Mapping[str, str] = _EMPTY
    has_body: bool = True
    model: str = ""
    stream: bool = False
    size_bytes: int = 0
    payload: Mapping[str, Any] = _EMPTY
    subset: tuple[str, ...] | None = None
    received_at: float = 0.0


class RoutingDecision(Struct, frozen=True, kw_only=True):
    """Where a request goes.

    Attributes:
        request: As it came in.
        target_model: Name that the model server must see; equals ``request.model`` when unchanged.
        endpoint: The primary pick.
        targets: ``ip:port`` of every pick, best first.
        decision: Why.
    """

    request: IncomingRequest
    target_model: str
    endpoint: Endpoint
    targets: tuple[str, ...]
    decision: Decision

    def without_content(self) -> "RoutingDecision":
        """The same without body and headers: who and where, not what."""
        decision = self.decision
        asked = replace(decision.request, headers=_EMPTY, payload=_EMPTY)
        return replace(
            self,
            request=replace(self.request, headers=_EMPTY, payload=_EMPTY),
            decision=replace(decision, request=asked),
        )


class CompletionCause(StrEnum):
    """How a routed request ended."""

    NATURAL = "natural"  # the response was finished
    CLIENT_DISCONNECT = "client-disconnect"  # stream reset before the response was finished
    ERROR = "error"  # our fault or the gateway's


class Completion(Struct, frozen=True, kw_only=True):
    """Told to the director exactly once per routed request.

    Attributes:
        cause: How it ended.
        status: HTTP status of the upstream; 0 when no response headers came.
        streaming: The response was an event stream.
        completed_at: Monotonic seconds.
        first_body_at: Monotonic seconds of the first response body bytes; None when not seen
            (always so on the lean path).
        response_bytes: Length of the response body; None when not seen (lean path: the access
            log brings it later).
        usage: Token counts; None when not seen.
        served_by: ``ip:port`` that really served, where the gateway says so with the response
            headers; else empty, and the access log may tell.
    """

    cause: CompletionCause
    status: int = 0
    streaming: bool = False
    completed_at: float
    first_body_at: float | None = None
    response_bytes: int | None = None
    usage: TokenUsage | None = None
    served_by: str = ""


class AccessReport(Struct, frozen=True, kw_only=True):
    """What the gateway's access log adds after a response, lean path only.

    Attributes:
        request_id: ``x-request-id`` as logged.
        served_by: ``ip:port`` that really served; empty when no upstream was reached.
        status: HTTP status to the client.
        response_bytes: Length of the response body.
        first_byte_seconds: From the request's first byte to the response's first; None unknown.
        duration_seconds: From the request's first byte to the response's last.
        usage: Token counts found in the response; None when there were none.
    """

    request_id: str
    served_by: str
    status: int
    response_bytes: int
    first_byte_seconds: float | None
    duration_seconds: float
    usage: TokenUsage | None
