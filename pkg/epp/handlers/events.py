"""What an exchange tells its caller."""

from collections.abc import Mapping

from msgspec import Struct

from epp.errors import EppError
from epp.gen.envoy.service.ext_proc.v3.external_processor_pb2 import ProcessingResponse


class RequestComplete(Struct, frozen=True, kw_only=True):
    """The whole request is here: call ``route`` or ``refuse``.

    Attributes:
        request_id: The client's, or the one generated.
        path: Path with query.
        headers: Lower-case names.
        has_body: False when the headers were all there is.
        body: All of it.
        subset: Endpoints that the gateway allows; None without a hint.
        received_at: When the headers came, on the caller's clock.
    """

    request_id: str
    path: str
    headers: Mapping[str, str]
    has_body: bool
    body: bytes
    subset: tuple[str, ...] | None
    received_at: float


class RequestRefused(Struct, frozen=True):
    """The request cannot be accepted: call ``refuse`` with the error."""

    error: EppError


class StreamBroken(Struct, frozen=True):
    """The conversation cannot go on: end the stream with a status.

    Attributes:
        detail: What came, and when.
        unsupported: The gateway's configuration is at fault, not the order of messages.
    """

    detail: str
    unsupported: bool = False


Answers = tuple[ProcessingResponse, ...]
Event = Answers | RequestComplete | RequestRefused | StreamBroken
"""Answers are to be sent in order; an empty tuple asks for nothing."""
