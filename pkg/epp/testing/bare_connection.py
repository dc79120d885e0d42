"""BareConnection: a connection of the native transport without a socket, on a clock of the test."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from epp.testing.raw_http2 import PREFACE, settings, window_update
from epp.transport.limits import TransportLimits
from epp.transport.native_connection import NativeConnection
from epp.transport.stats import TransportStats

PATH = b"/test.Service/Talk"

WIDE = PREFACE + settings({4: 0x7FFFFFFF}) + window_update(0, 0x7FFF0000)
"""The greeting of a peer that takes everything."""

SHUT = PREFACE + settings({4: 0})
"""The greeting of one that takes no body."""


@dataclass
class Timer:
    """One that a test fires."""

    seconds: float
    call: Callable[[], None]
    cancelled: bool = False

    def cancel(self) -> None:
        """Only says so."""
        self.cancelled = True


@dataclass
class BareConnection:
    """A connection, its clock, and what it asked of its owner.

    Attributes:
        service: Its only one, under ``PATH``.
        limits: Its limits.
        now: What its clock says.
        tick: By how much the clock moves whenever it is looked at.
        timers: What it started.
        flushes: How often it had something to write.
        complaints: What it said of its peer.
    """

    service: Any
    limits: TransportLimits = field(default_factory=TransportLimits)
    now: float = 1000.0
    tick: float = 0.0
    timers: list[Timer] = field(default_factory=list)
    flushes: int = 0
    complaints: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.stats = TransportStats()
        self.connection = NativeConnection(
            {PATH.decode(): self.service},
            self.limits,
            self.stats,
            clock=self._clock,
            call_later=self._call_later,
            flush=self._flush,
            complain=self.complaints.append,
        )

    def _clock(self) -> float:
        self.now += self.tick
        return self.now

    def _call_later(self, seconds: float, call: Callable[[], None]) -> Timer:
        self.timers.append(Timer(seconds, call))
        return self.timers[-1]

    def _flush(self) -> None:
        self.flushes += 1

    def hear(self, *parts: bytes) -> None:
        """One read, and the work of one turn."""
        self.connection.receive(b"".join(parts))
        self.connection.work()

    def work_off(self) -> int:
        """Turns until nothing waits."""
        turns = 0
        while self.connection.ready:
            self.connection.work()
            turns += 1
        return turns

    def sweep(self) -> None:
        """Look after the streams."""
        self.connection.sweep()
        self.work_off()

    def output(self) -> bytes:
        """Everything that leaves."""
        parts = []
        while part := self.connection.output(1 << 20):
            parts.append(part)
        return b"".join(parts)
