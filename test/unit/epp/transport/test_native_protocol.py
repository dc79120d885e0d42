"""One connection on a loop and a socket of the test: when it writes, reads on, waits and closes.

The loop has no time of its own: what is to run in its next turn waits until the test runs it. The
socket takes nothing until the test says so, and tells of its watermark as asyncio's do.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from epp.testing.raw_http2 import (
    PREFACE,
    Kind,
    data,
    message,
    request,
    settings,
    window_update,
)
from epp.transport.limits import TransportLimits
from epp.transport.native_protocol import (
    CLOSE_SECONDS,
    HIGH_WATER_BYTES,
    READ_BYTES,
    WRITE_BYTES,
    NativeProtocol,
)
from epp.transport.stats import TransportStats
from epp.transport.stream import CloseReason, StatusCode, StreamSender

PATH = b"/test.Service/Talk"
WIDE = PREFACE + settings({4: 0x7FFFFFFF}) + window_update(0, 0x7FFF0000)
KIB, MIB = 1 << 10, 1 << 20
ASYNCIO_HIGH_WATER = 64 * KIB


@dataclass
class Timer:
    due: float
    call: Callable[[], None]
    cancelled: bool = False

    def cancel(self) -> None:
        self.cancelled = True


@dataclass
class Loop:
    """What a connection needs of an event loop."""

    now: float = 1000.0
    clock: Callable[[], float] | None = None
    soon: list[Callable[[], None]] = field(default_factory=list)
    timers: list[Timer] = field(default_factory=list)

    def time(self) -> float:
        return self.now if self.clock is None else self.clock()

    def call_soon(self, call: Callable[[], None]) -> None:
        self.soon.append(call)

    def call_later(self, seconds: float, call: Callable[[], None]) -> Timer:
        self.timers.append(Timer(self.time() + seconds, call))
        return self.timers[-1]

    def turn(self) -> bool:
        """Run what waits for the next turn; False when nothing does."""
        calls, self.soon = self.soon, []
        for call in calls:
            call()
        return bool(calls)

    def advance(self, seconds: float) -> None:
        self.now += seconds
        for timer in [t for t in self.timers if t.due <= self.now and not t.cancelled]:
            self.timers.remove(timer)
            timer.call()


class Socket(asyncio.Transport):
    """Keeps what is written until the peer takes it."""

    def __init__(self, protocol: NativeProtocol) -> None:
        super().__init__()
        self.unsent = bytearray()
        self.writes = 0
        self.reading = True
        self.ended = ""
        self._protocol = protocol
        self._high = ASYNCIO_HIGH_WATER
        self._paused = False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._high = ASYNCIO_HIGH_WATER if high is None else high

    def get_write_buffer_size(self) -> int:
        return len(self.unsent)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.unsent += data
        self.writes += 1
        if len(self.unsent) > self._high and not self._paused:
            self._paused = True
            self._protocol.pause_writing()

    def take(self) -> bytes:
        """The peer reads all of it."""
        taken = bytes(self.unsent)
        self.unsent.clear()
        if self._paused:
            self._paused = False
            self._protocol.resume_writing()
        return taken

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def close(self) -> None:
        self.ended = "closed"

    def abort(self) -> None:
        self.ended = "aborted"

    def is_closing(self) -> bool:
        return bool(self.ended)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default


class Home:
    """The server of one connection."""

    def opened(self, protocol: NativeProtocol) -> bool:
        return True

    def closed(self, protocol: NativeProtocol) -> None:
        """Nothing to forget."""


class Scene:
    """A connection that has just been made."""

    def __init__(self, service: Any, loop: Loop | None = None, **limits: Any) -> None:
        self.loop = loop or Loop()
        self.stats = TransportStats()
        self.protocol = NativeProtocol(
            Home(),
            {PATH.decode(): service},
            TransportLimits(**limits),
            self.stats,
            cast("asyncio.AbstractEventLoop", self.loop),
        )
        self.socket = Socket(self.protocol)
        self.protocol.connection_made(self.socket)

    def hear(self, *parts: bytes) -> None:
        """One read, and every turn that it takes."""
        self.protocol.data_received(b"".join(parts))
        turns = 0
        while self.loop.turn():
            turns += 1
            assert turns < 10_000


def kinds(out: bytes) -> list[int]:
    found, at = [], 0
    while at < len(out):
        found.append(out[at + 3])
        at += 9 + int.from_bytes(out[at : at + 3], "big")
    return found


def test_what_is_sent_from_outside_is_written_at_once(tally: Any) -> None:
    service = tally(lambda _sender, _payload: None)
    scene = Scene(service)
    scene.hear(WIDE, request(1, PATH), data(1, message(b"wait")))
    scene.socket.take()

    service.handlers[0].sender.send(b"later")
    sent = scene.socket.take()
    service.handlers[0].sender.finish(StatusCode.UNAVAILABLE, "later")
    finished = scene.socket.take()

    assert kinds(sent) == [Kind.HEADERS, Kind.DATA]
    assert sent.endswith(message(b"later"))
    assert kinds(finished) == [Kind.HEADERS]
    assert service.ends == [[CloseReason.FINISHED]]


def test_what_many_streams_answer_to_one_read_leaves_in_one_write(tally: Any) -> None:
    scene = Scene(tally())
    scene.hear(WIDE)
    before = scene.socket.writes

    scene.hear(*(request(n, PATH) + data(n, message(b"x")) for n in range(1, 101, 2)))

    assert scene.socket.writes == before + 1
    assert scene.socket.take().count(message(b"x")) == 50


def test_a_large_read_is_worked_off_in_turns(tally: Any) -> None:
    """Each piece of it is quickly dealt with; together they would hold the loop for long."""
    work_seconds, turn_seconds, pieces = 0.4, 1.0, 40
    loop = Loop()

    def work(_sender: StreamSender, _payload: bytes) -> None:
        loop.now += work_seconds

    service = tally(work)
    scene = Scene(service, loop, turn_seconds=turn_seconds)
    scene.hear(WIDE, request(1, PATH))
    per_turn = []

    scene.protocol.data_received(data(1, message(b"x" * (READ_BYTES - 14))) * pieces)
    waited = not scene.socket.reading
    while scene.loop.soon:
        before = service.messages
        scene.loop.turn()
        per_turn.append(service.messages - before)

    assert service.messages == pieces
    assert max(per_turn) <= 4
    assert waited
    assert scene.socket.reading


def test_no_read_holds_the_loop_however_small_its_frames_are(tally: Any) -> None:
    """Time of the processor, so that other programs do not count."""
    service = tally()
    scene = Scene(service, Loop(clock=time.monotonic))
    scene.hear(PREFACE, settings(), request(1, PATH))
    took = []

    def timed(call: Callable[[], object]) -> None:
        began = time.thread_time()
        call()
        took.append(time.thread_time() - began)

    timed(lambda: scene.protocol.data_received(window_update(0, 1) * 150_000))
    while scene.loop.soon:
        timed(scene.loop.turn)

    assert not scene.stats.errors
    assert max(took) < sum(took) / 8


def test_writing_stops_at_the_mark_and_reading_with_it(tally: Any) -> None:
    service = tally(lambda sender, payload: sender.send(payload * MIB))
    scene = Scene(service)
    scene.hear(WIDE)
    scene.socket.take()
    was_reading = scene.socket.reading

    scene.hear(request(1, PATH), data(1, message(b"abcd")))
    unsent, stopped = len(scene.socket.unsent), not scene.socket.reading
    body = scene.socket.take()
    while scene.socket.unsent:
        body += scene.socket.take()

    assert was_reading
    assert HIGH_WATER_BYTES < unsent <= HIGH_WATER_BYTES + WRITE_BYTES
    assert stopped
    assert len(body) > 4 * MIB
    assert scene.socket.reading


def test_what_the_socket_has_not_got_rid_of_counts_as_kept(tally: Any) -> None:
    service = tally(lambda sender, payload: sender.send(payload * 100 * KIB))
    bound = 450 * KIB
    scene = Scene(service, max_connection_bytes=bound)
    scene.hear(WIDE, request(1, PATH))

    for _ in range(10):
        scene.hear(data(1, message(b"x")))
    served, pending = service.messages, scene.protocol.connection.pending_bytes

    assert served == 5
    assert bound < pending < bound + 101 * KIB
    assert len(scene.socket.unsent) > 500 * KIB


def test_a_connection_that_cannot_say_its_last_words_is_cut(tally: Any) -> None:
    scene = Scene(tally())
    scene.hear(WIDE, b"\xff" * 100)
    ended_first = scene.socket.ended

    scene.loop.advance(CLOSE_SECONDS * 0.9)
    before = scene.socket.ended
    scene.loop.advance(CLOSE_SECONDS * 0.2)

    assert (ended_first, before, scene.socket.ended) == ("closed", "closed", "aborted")
    assert scene.stats.errors == {"protocol": 1}


def test_a_connection_that_is_gone_in_time_is_not_cut(tally: Any) -> None:
    scene = Scene(tally())
    scene.hear(WIDE, b"\xff" * 100)

    scene.protocol.connection_lost(None)
    scene.loop.advance(CLOSE_SECONDS * 2)

    assert scene.socket.ended == "closed"


@pytest.mark.parametrize(
    ("open_streams", "ends"),
    [pytest.param(0, True, id="no-stream"), pytest.param(1, False, id="a-stream")],
)
def test_a_connection_is_idle_only_without_streams(
    tally: Any, open_streams: int, ends: bool
) -> None:
    scene = Scene(tally(), idle_seconds=100.0, keepalive_seconds=1000.0)
    scene.hear(WIDE)
    for number in range(open_streams):
        scene.hear(request(2 * number + 1, PATH), data(2 * number + 1, message(b"x")))
    scene.socket.take()

    for _ in range(10):
        scene.loop.advance(20.0)
        scene.protocol.check(scene.loop.now)

    assert bool(scene.socket.ended) == ends
    assert (Kind.GOAWAY in kinds(scene.socket.take())) == ends
