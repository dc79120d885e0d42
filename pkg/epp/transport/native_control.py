"""ControlFrames: what a peer says about the connection itself, and how often it may."""

from collections.abc import Callable, Mapping
from typing import Any

from epp.transport.http2 import (
    NOTICE_PING,
    Event,
    GoAwayReceived,
    Http2Error,
    PingAcknowledged,
    PingReceived,
    PriorityUpdateReceived,
    SettingsReceived,
    WindowUpdated,
)
from epp.transport.limits import Meters


class ControlFrames:
    """Takes the frames that belong to no stream, and counts them.

    Args:
        meters: What is left of the rates.
        clock: Monotonic seconds.

    Attributes:
        greeted: The peer has shown that it speaks HTTP/2.
        answered_pings: Answers to our pings.
        notice_heard: It knows that we are shutting down.
        handlers: What to call with each kind of event; each raises Http2Error when there are too
            many.
    """

    __slots__ = (
        "_clock",
        "_meters",
        "answered_pings",
        "greeted",
        "handlers",
        "notice_heard",
    )

    def __init__(self, meters: Meters, clock: Callable[[], float]) -> None:
        self.greeted = False
        self.answered_pings = 0
        self.notice_heard = False
        self._meters = meters
        self._clock = clock
        self.handlers: Mapping[type[Any], Callable[[Any], None]] = {
            SettingsReceived: self._on_settings,
            PingReceived: self._on_control_frame,
            PingAcknowledged: self._on_ping_acknowledged,
            GoAwayReceived: self._on_control_frame,
            PriorityUpdateReceived: self._on_control_frame,
            WindowUpdated: self._on_window_update,
        }

    def release(self) -> None:
        """Let go of the owner, as the last call."""
        self.handlers = {}

    def _on_control_frame(self, _event: Event) -> None:
        if not self._meters.control_frames.take(self._clock()):
            raise Http2Error.flood("control frames")

    def _on_settings(self, event: SettingsReceived) -> None:
        self.greeted = True
        self._on_control_frame(event)

    def _on_window_update(self, _event: WindowUpdated) -> None:
        if not self._meters.window_updates.take(self._clock()):
            raise Http2Error.flood("WINDOW_UPDATE frames")

    def _on_ping_acknowledged(self, event: PingAcknowledged) -> None:
        self.answered_pings += 1
        if event.opaque_data == NOTICE_PING:
            self.notice_heard = True
        self._on_control_frame(event)
