"""Http2: the HTTP/2 engine (libnghttp2 through ``ngh2``) as this package uses it.

The only file that imports ``ngh2``, which is young: each behaviour we rely on stands here and has
a test. Bytes in, events out; no sockets, no clock.

* Events are the engine's own objects, named here, so that an event costs no second object.
* A stream may be gone when its answer is ready: that is a normal end, reported as False.
* The engine refuses to speak after some errors, so the last GOAWAY of those is made here. Of others
  it tells in an event, once its own GOAWAY is out.
* A stream that the engine ends for a breach of the protocol is told like one that the peer ends.
* Windows are updated when the caller says that data was dealt with (``acknowledge``), which is
  how a connection pushes back on its peer.
"""

from collections.abc import Iterable, Sequence
from typing import Self

import ngh2
from ngh2 import (
    ConnectionClosed,
    DataReceived,
    GoAwayReceived,
    PingAcknowledged,
    PingReceived,
    PriorityUpdateReceived,
    RequestReceived,
    SettingsAcknowledged,
    SettingsReceived,
    StreamClosed,
    StreamReset,
    TrailersReceived,
    WindowUpdated,
)

from epp.transport.authority import AuthorityMender
from epp.transport.limits import TransportLimits

__all__ = [
    "CANCEL",
    "ENHANCE_YOUR_CALM",
    "INTERNAL_ERROR",
    "KEEPALIVE_PING",
    "NOTICE_PING",
    "NO_ERROR",
    "PROTOCOL_ERROR",
    "ConnectionClosed",
    "DataReceived",
    "Event",
    "GoAwayReceived",
    "Header",
    "Http2",
    "Http2Error",
    "PingAcknowledged",
    "PingReceived",
    "PriorityUpdateReceived",
    "RequestReceived",
    "SettingsAcknowledged",
    "SettingsReceived",
    "StreamClosed",
    "StreamReset",
    "TrailersReceived",
    "WindowUpdated",
]

Event = ngh2.Event
Header = tuple[bytes, bytes]

NO_ERROR = int(ngh2.ErrorCode.NO_ERROR)
PROTOCOL_ERROR = int(ngh2.ErrorCode.PROTOCOL_ERROR)
INTERNAL_ERROR = int(ngh2.ErrorCode.INTERNAL_ERROR)
CANCEL = int(ngh2.ErrorCode.CANCEL)
ENHANCE_YOUR_CALM = int(ngh2.ErrorCode.ENHANCE_YOUR_CALM)

KEEPALIVE_PING = b"alive?  "
NOTICE_PING = b"goodbye "
"""Sent behind a shutdown notice: its answer says that the peer has heard of it."""

_SHARED = ngh2.Priority(urgency=3, incremental=True)
"""Streams take turns frame by frame; the engine's default finishes one stream first."""

_GOAWAY_HEAD = b"\x00\x00\x08\x07\x00\x00\x00\x00\x00"


class Http2Error(Exception):
    """The peer broke HTTP/2 or asked for too much: the connection is over.

    Attributes:
        kind: ``flood`` or ``protocol``, for counters.
        code: HTTP/2 error code of the GOAWAY.
    """

    def __init__(self, message: str, *, kind: str, code: int) -> None:
        super().__init__(message)
        self.kind = kind
        self.code = code

    @classmethod
    def flood(cls, what: str) -> Self:
        """Too many of something."""
        return cls(f"too many {what}", kind="flood", code=ENHANCE_YOUR_CALM)


class Http2:
    """The server side of one HTTP/2 connection."""

    __slots__ = ("_engine", "_mender", "data_to_send", "queued_bytes")

    def __init__(self, limits: TransportLimits) -> None:
        engine = ngh2.Connection(ngh2.Role.SERVER, _configuration(limits))
        engine.initiate_connection(_settings(limits))
        engine.set_local_window_size(limits.connection_window_bytes)
        self._engine = engine
        self._mender = AuthorityMender()
        self.data_to_send = engine.data_to_send
        self.queued_bytes = engine.queued_body_size

    def receive(self, data: bytes) -> Sequence[Event]:
        """Take what the peer sent; return what it means.

        Raises:
            Http2Error: The connection is over. Events before the error are lost: every stream
                of the connection ends with it anyway.
        """
        engine = self._engine
        if self._mender.active:
            data = self._mender.feed(data)
        try:
            engine.receive_data(data)
        except ngh2.DenialOfServiceError as exc:
            raise Http2Error(str(exc), kind="flood", code=ENHANCE_YOUR_CALM) from exc
        except ngh2.NGH2Error as exc:
            raise Http2Error(str(exc), kind="protocol", code=PROTOCOL_ERROR) from exc
        return engine.events()

    @property
    def usable(self) -> bool:
        """The engine expects more, or has more to say."""
        return self._engine.want_read or self._engine.want_write

    def why_closed(self) -> tuple[int, str]:
        """Error code and reason with which the engine has ended the connection.

        For one that is not ``usable`` any more; events that nobody will deal with are dropped.
        """
        for event in reversed(self._engine.events()):
            if isinstance(event, ConnectionClosed):
                return event.error_code, event.debug_data.decode("latin-1")
        return NO_ERROR, ""

    def respond(self, stream_id: int, headers: Iterable[Header], *, end_stream: bool) -> bool:
        """Send the response headers; False when the stream is gone."""
        try:
            if not end_stream:
                self._engine.set_stream_priority(stream_id, _SHARED, ignore_client_signal=True)
            self._engine.send_response(stream_id, headers, end_stream=end_stream)
        except ngh2.NGH2Error:
            return False
        return True

    def send(self, stream_id: int, data: bytes, *, end_stream: bool = False) -> bool:
        """Queue body bytes; False when the stream is gone."""
        try:
            self._engine.send_data(stream_id, data, end_stream=end_stream)
        except ngh2.NGH2Error:
            return False
        return True

    def send_trailers(self, stream_id: int, headers: Iterable[Header]) -> bool:
        """End the response after everything queued; False when the stream is gone."""
        try:
            self._engine.send_trailers(stream_id, headers)
        except ngh2.NGH2Error:
            return False
        return True

    def reset(self, stream_id: int, code: int) -> None:
        """End the stream at once; what is queued for it is dropped."""
        try:
            self._engine.reset_stream(stream_id, code)
        except ngh2.NGH2Error:
            return

    def acknowledge(self, stream_id: int, amount: int) -> None:
        """Say that received bytes were dealt with; the window opens again by as much."""
        try:
            self._engine.acknowledge_received_data(amount, stream_id)
        except ngh2.NGH2Error:
            return

    def ping(self, opaque: bytes) -> None:
        """Ask whether the peer is there; it answers with the same 8 bytes."""
        try:
            self._engine.ping(opaque)
        except ngh2.NGH2Error:
            return

    def announce_shutdown(self) -> None:
        """Ask the peer to open no more streams; those on the way are still served."""
        try:
            self._engine.send_shutdown_notice()
        except ngh2.NGH2Error:
            return

    def go_away(self) -> None:
        """Refuse every stream that has not arrived yet."""
        try:
            self._engine.send_goaway(NO_ERROR)
        except ngh2.NGH2Error:
            return


def last_words(code: int, last_stream_id: int) -> bytes:
    """A GOAWAY frame for a connection whose engine does not speak any more."""
    return _GOAWAY_HEAD + last_stream_id.to_bytes(4, "big") + code.to_bytes(4, "big")


def _configuration(limits: TransportLimits) -> ngh2.Configuration:
    return ngh2.Configuration(
        auto_window_update=False,
        max_outbound_ack=limits.max_unsent_acks,
        max_settings=limits.max_settings,
        stream_reset_rate_limit=(2 * limits.resets.burst, 2 * limits.resets.per_second),
        max_continuations=limits.max_continuations,
        glitch_rate_limit=(limits.glitches.burst, limits.glitches.per_second),
        max_inbound_header_list_size=limits.fatal_header_bytes,
        max_inbound_header_count=limits.fatal_header_count,
    )


def _settings(limits: TransportLimits) -> dict[ngh2.Setting, int]:
    return {
        ngh2.Setting.MAX_CONCURRENT_STREAMS: limits.max_streams,
        ngh2.Setting.INITIAL_WINDOW_SIZE: limits.stream_window_bytes,
        ngh2.Setting.MAX_HEADER_LIST_SIZE: limits.max_header_bytes,
        ngh2.Setting.NO_RFC7540_PRIORITIES: 1,  # or the engine does not let streams take turns
    }
