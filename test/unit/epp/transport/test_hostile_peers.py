"""Peers that ask for too much: their connection ends or waits, the others never notice."""

import asyncio
import gzip
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import grpc.aio
import pytest
from structlog.testing import capture_logs

from epp.testing.raw_http2 import (
    CANCEL,
    ENHANCE_YOUR_CALM,
    GRPC_HEADERS,
    PREFACE,
    Frame,
    Kind,
    RawPeer,
    data,
    frame,
    hpack,
    hpack_indexed,
    message,
    raw_peer,
    request,
    reset,
    settings,
    window_update,
)
from epp.transport.limits import Rate, TransportLimits
from epp.transport.native_server import NativeServer
from epp.transport.stream import CloseReason, StreamSender

PATH = b"/test.Service/Talk"
OTHER = "/test.Service/Other"
FEW = Rate(burst=20, per_second=0)
KIB = 1 << 10
MIB = 1 << 20

pytestmark = pytest.mark.timeout(60)


@dataclass
class Scene:
    """A server under attack, and a peer of good manners on a connection of its own."""

    server: NativeServer
    port: int
    service: Any
    bystander: Any
    asked: int = 0

    @property
    def errors(self) -> dict[str, int]:
        return dict(self.server.stats.errors)

    async def ask_bystander(self, times: int = 5) -> None:
        """The other connection is served."""
        for _ in range(times):
            self.asked += 1
            await self.bystander.write(b"%d" % self.asked)
            assert await asyncio.wait_for(self.bystander.read(), 20) == b"%d" % self.asked

    async def until(self, fact: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not fact():
                await asyncio.sleep(0.005)


class Echo:
    def __init__(self, sender: StreamSender) -> None:
        self._sender = sender

    def on_message(self, payload: bytes) -> None:
        self._sender.send(payload)

    def on_half_close(self) -> None:
        self._sender.finish()

    def on_closed(self, reason: CloseReason) -> None:
        """Nothing to release."""


@asynccontextmanager
async def scene(service: Any, **limits: Any) -> AsyncIterator[Scene]:
    """At the end every handler has been told of it, once.

    Turns are long, so that a ping that is answered says that what was before it is dealt with.
    """
    chosen = replace(TransportLimits(check_seconds=0.02, turn_seconds=5.0), **limits)
    services = {PATH.decode(): service, OTHER: Echo}
    server = NativeServer(services, host="127.0.0.1", limits=chosen)
    port = await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            set_up = Scene(server, port, service, channel.stream_stream(OTHER)())
            await set_up.ask_bystander()
            yield set_up
            await set_up.ask_bystander()
    finally:
        await server.stop(0)
    assert server.open_streams == 0
    assert [len(ends) for ends in service.ends] == [1] * len(service.handlers)


def goaways(frames: list[Frame]) -> list[int]:
    return [found.code for found in frames if found.kind == Kind.GOAWAY]


FIELDS = hpack([*GRPC_HEADERS[:3], (b":path", PATH), *GRPC_HEADERS[3:]])
REMEMBERED = hpack_indexed(b"a", b"x" * 4000)
BOMB = FIELDS + REMEMBERED + b"\xbe" * 4000
GZIP = [(b"grpc-encoding", b"gzip")]
GZIP_BOMB = b"\x01" + message(gzip.compress(bytes(8 * MIB)))[1:]


@pytest.mark.parametrize(
    ("flood", "limits"),
    [
        pytest.param(
            [request(n, PATH) + reset(n) for n in range(1, 401, 2)],
            {"resets": FEW},
            id="rapid-reset",
        ),
        pytest.param(
            [frame(Kind.HEADERS, 0, 1, hpack(GRPC_HEADERS))]
            + [frame(Kind.CONTINUATION, 0, 1, b"")] * 100,
            {},
            id="continuation",
        ),
        pytest.param([settings()] * 40, {"control_frames": FEW}, id="settings"),
        pytest.param([settings({4: n % 2}) for n in range(200)], {}, id="settings-in-one-read"),
        pytest.param([settings(dict.fromkeys(range(100, 200), 1))], {}, id="long-settings"),
        pytest.param(
            [frame(Kind.PING, 0, 0, b"12345678")] * 40, {"control_frames": FEW}, id="ping"
        ),
        pytest.param(
            [frame(Kind.PING, 1, 0, b"12345678")] * 100, {"control_frames": FEW}, id="ping-answers"
        ),
        pytest.param(
            [request(1, PATH), *[frame(Kind.GOAWAY, 0, 0, bytes(8))] * 100],
            {"control_frames": FEW},
            id="goaway",
        ),
        pytest.param(
            [request(1, PATH), *[frame(Kind.PRIORITY_UPDATE, 0, 0, b"\0\0\0\1u=1")] * 100],
            {"control_frames": FEW},
            id="priority-update",
        ),
        pytest.param(
            [request(1, PATH), *[data(1, b"")] * 100], {"empty_frames": FEW}, id="empty-data"
        ),
        pytest.param(
            [window_update(0, 1)] * 200,
            {"window_updates": Rate(burst=100, per_second=0)},
            id="window-update",
        ),
        pytest.param([frame(Kind.HEADERS, 4, 1, BOMB)], {}, id="header-bomb"),
        pytest.param(
            [request(1, PATH, extra=[(b"h%d" % n, b"") for n in range(1_100)])],
            {},
            id="header-count",
        ),
    ],
)
async def test_a_flood_ends_its_connection_and_no_other(
    tally: Any, flood: list[bytes], limits: dict[str, Any]
) -> None:
    with capture_logs() as logs:
        async with scene(tally(), **limits) as at, raw_peer(at.port) as peer:
            await peer.settle()
            await peer.send(*flood)
            await at.ask_bystander()
            frames = await peer.rest()
            errors = at.errors

    assert goaways(frames) == [ENHANCE_YOUR_CALM]
    assert errors == {"flood": 1}
    assert [line["event"] for line in logs] == ["connection ended"]
    assert logs[0]["log_level"] == "warning"


REQUESTS = range(1, 201, 2)


@pytest.mark.parametrize(
    ("refused", "limits", "kinds"),
    [
        pytest.param(
            [request(n, b"/nowhere") for n in REQUESTS], {}, {"flood"}, id="unknown-method"
        ),
        pytest.param(
            [request(n, PATH, extra=[(b"te", b"gzip")]) for n in REQUESTS],
            {},
            {"flood", "stream"},
            id="malformed",
        ),
        pytest.param(
            [frame(Kind.HEADERS, 4, 1, FIELDS + REMEMBERED + b"\xbe" * 30)]
            + [frame(Kind.HEADERS, 4, n, FIELDS + b"\xbe" * 31) for n in REQUESTS[1:]],
            {},
            {"flood", "headers"},
            id="long-headers",
        ),
        pytest.param(
            [request(n, PATH) + data(n, b"\x07\0\0\0\0") for n in REQUESTS],
            {},
            {"flood", "message"},
            id="bad-messages",
        ),
        pytest.param(
            [request(n, PATH, extra=GZIP) + data(n, GZIP_BOMB, end=True) for n in REQUESTS],
            {"refusals": Rate(burst=1_000, per_second=0)},
            {"flood", "message"},
            id="gzip-bombs",
        ),
    ],
)
async def test_refusals_without_end_end_their_connection_and_no_other(
    tally: Any, refused: list[bytes], limits: dict[str, Any], kinds: set[str]
) -> None:
    with capture_logs() as logs:
        async with scene(tally(), **{"refusals": FEW, **limits}) as at, raw_peer(at.port) as peer:
            await peer.settle()
            frames = await heard_until_the_end(peer, refused)
            await at.ask_bystander()
            errors = at.errors

    assert goaways(frames) == [ENHANCE_YOUR_CALM]
    assert set(errors) == kinds
    assert errors["flood"] == 1
    assert [line["log_level"] for line in logs] == ["warning"]


async def heard_until_the_end(peer: RawPeer, parts: list[bytes]) -> list[Frame]:
    """What the server says to one part after the other, for as long as it listens."""
    frames = []
    for part in parts:
        await peer.send(part, frame(Kind.PING, 0, 0, b"and this"))
        while (found := await peer.read()) is not None:
            frames.append(found)
            if found.kind == Kind.PING:
                break
        else:
            break
    return frames


async def test_a_connection_has_one_line_whatever_it_does(tally: Any) -> None:
    with capture_logs() as logs:
        async with scene(tally()) as at, raw_peer(at.port) as peer:
            await peer.send(request(1, PATH), data(1, b"\x07\0\0\0\0"))
            await peer.read_until(Kind.HEADERS, 1)
            await peer.send(data(0, b"x"))
            await peer.rest()
            errors = at.errors

    assert errors == {"message": 1, "protocol": 1}
    assert [(line["event"], line["kind"]) for line in logs] == [
        ("stream ended by a limit", "message")
    ]


async def test_pings_whose_answers_are_not_read_end_the_connection(tally: Any) -> None:
    many = Rate(burst=1 << 30, per_second=0)

    async with scene(tally(), control_frames=many, max_unsent_acks=10) as at:
        async with raw_peer(at.port) as peer:
            await peer.settle()
            await peer.send(*[frame(Kind.PING, 0, 0, b"12345678")] * 5_000)
            frames = await peer.rest()
            errors = at.errors

    assert goaways(frames) == [ENHANCE_YOUR_CALM]
    assert errors == {"flood": 1}


@pytest.mark.parametrize(
    "junk",
    [
        pytest.param(b"\xff" * 100, id="frame-too-large"),
        pytest.param(window_update(0, 0x7FFFFFFF), id="window-overflow"),
        pytest.param(data(0, b"x"), id="data-without-stream"),
        pytest.param(data(5, b"x"), id="data-of-idle-stream"),
        pytest.param(settings({4: 0xFFFFFFFF}), id="bad-setting"),
        pytest.param(frame(Kind.HEADERS, 4, 1, b"\xff\xff\xff\xff\xff\xff"), id="bad-hpack"),
        pytest.param(frame(Kind.PING, 0, 0, b"1"), id="short-ping"),
        pytest.param(request(2, PATH), id="even-stream"),
    ],
)
async def test_junk_after_the_preface_ends_its_connection(tally: Any, junk: bytes) -> None:
    with capture_logs() as logs:
        async with scene(tally()) as at, raw_peer(at.port) as peer:
            await peer.settle()
            await peer.send(request(1, PATH), data(1, message(b"x")))
            await peer.send(junk)
            frames = await peer.rest()
            errors = at.errors

    assert len(goaways(frames)) == 1
    assert goaways(frames) != [0]
    assert errors == {"protocol": 1}
    assert [line["event"] for line in logs] == ["connection ended"]


@pytest.mark.parametrize(
    "greeting",
    [
        pytest.param(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", id="http-1"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(300), id="tls"),
        pytest.param(PREFACE + request(1, PATH), id="no-settings"),
    ],
)
@pytest.mark.usefixtures("debug_logs")
async def test_a_stranger_is_shown_out_without_noise(tally: Any, greeting: bytes) -> None:
    with capture_logs() as logs:
        async with scene(tally()) as at, raw_peer(at.port, greeting=greeting) as peer:
            await peer.rest()
            errors = at.errors

    assert errors == {"not http/2": 1}
    assert [(line["event"], line["log_level"]) for line in logs] == [("connection ended", "debug")]


@pytest.mark.parametrize(
    "greeting",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(PREFACE[:10], id="half-a-preface"),
        pytest.param(PREFACE, id="no-settings"),
    ],
)
@pytest.mark.usefixtures("debug_logs")
async def test_a_peer_that_never_greets_is_cut(tally: Any, greeting: bytes) -> None:
    with capture_logs() as logs:
        async with scene(tally(), preface_seconds=0.2) as at:
            async with raw_peer(at.port, greeting=greeting) as peer:
                await peer.rest()
                errors = at.errors

    assert errors == {"no preface": 1}
    assert [line["log_level"] for line in logs] == ["debug"]


async def test_a_greeting_in_drops_does_not_buy_time(tally: Any) -> None:
    async with scene(tally(), preface_seconds=0.2) as at:
        async with raw_peer(at.port, greeting=b"") as peer:

            async def drip() -> None:
                while True:
                    for at in range(len(PREFACE) - 1):
                        await peer.send(PREFACE[at : at + 1])
                        await asyncio.sleep(0.05)

            dripping = asyncio.create_task(drip())
            await peer.rest()
            dripping.cancel()

        assert at.errors == {"no preface": 1}


async def test_headers_above_the_limit_end_their_stream_only(tally: Any) -> None:
    with capture_logs() as logs:
        async with scene(tally(), max_header_bytes=1_000) as at, raw_peer(at.port) as peer:
            for stream_id in (1, 3):
                await peer.send(request(stream_id, PATH, extra=[(b"a", b"x" * 1_000)]))
                await peer.read_until(Kind.HEADERS, stream_id)
            await peer.send(request(5, PATH), data(5, message(b"hi")))
            body = await peer.read_body(5, 7)
            errors = at.errors

    assert body == message(b"hi")
    assert errors == {"headers": 2}
    assert [line["event"] for line in logs] == ["stream ended by a limit"]


async def test_a_slow_reader_stops_being_served_and_then_gets_everything_in_order(
    tally: Any,
) -> None:
    """10 MB of answers wait for one connection; its bound is 2 MiB."""
    size, count = 100 * KIB, 100
    service = tally(lambda sender, payload: sender.send(payload * size))

    async with scene(service, max_connection_bytes=2 * MIB) as at:
        async with raw_peer(at.port, receive_buffer=32 * KIB) as peer:
            await peer.send(settings({4: 0x7FFFFFFF}), window_update(0, 0x7FFF0000))
            await peer.send(request(1, PATH))
            await peer.send(*(data(1, message(b"%c" % (n % 251))) for n in range(count)))
            await at.until(lambda: service.messages > 0)
            await at.ask_bystander(50)
            served_before = service.messages
            body = await peer.read_body(1, count * (size + 5))

    assert served_before < 70  # what the sockets take, and the bound
    assert service.messages == count
    assert body == b"".join(message(b"%c" % (n % 251) * size) for n in range(count))


async def test_a_peer_that_opens_no_windows_is_bounded_and_goes_on_when_it_does(
    tally: Any,
) -> None:
    """It reads its socket all the time, so that nothing but our own bound can stop us."""
    service = tally(lambda sender, payload: sender.send(payload * 1000))
    shut = PREFACE + settings({4: 0})

    async with scene(service, max_connection_bytes=50 * KIB) as at:
        async with raw_peer(at.port, greeting=shut) as peer:
            await peer.settle()
            await peer.send(request(1, PATH))
            for n in range(200):
                await peer.send(data(1, message(b"%c" % n)))
            await peer.settle()
            served_before = service.messages
            await at.ask_bystander()
            await peer.send(window_update(1, MIB), window_update(0, MIB))
            body = await peer.read_body(1, 200 * 1005)
            await at.until(lambda: at.server.stats.blocked_seconds > 0)

    assert served_before <= 51
    assert body == b"".join(message(b"%c" % n * 1000) for n in range(200))


async def test_a_crowded_connection_that_never_moves_ends(tally: Any) -> None:
    service = tally(lambda sender, payload: sender.send(payload * 1000))
    shut = PREFACE + settings({4: 0})

    async with scene(service, max_connection_bytes=10 * KIB, crowded_seconds=0.2) as at:
        async with raw_peer(at.port, greeting=shut) as peer:
            await peer.send(request(1, PATH), *[data(1, message(b"x"))] * 100)
            frames = await peer.rest()
            errors = at.errors

    assert goaways(frames) == [ENHANCE_YOUR_CALM]
    assert errors == {"crowded": 1}
    assert service.ends == [[CloseReason.CANCELLED]]


async def test_what_waits_for_a_crowded_connection_is_bounded_by_not_reading(tally: Any) -> None:
    service = tally(lambda sender, payload: sender.send(payload * 1000))
    shut = PREFACE + settings({4: 0})
    bounds = {"max_connection_bytes": 10 * KIB, "max_backlog_bytes": 64 * KIB}

    async with scene(service, **bounds) as at:
        async with raw_peer(at.port, greeting=shut) as peer:
            await peer.send(request(1, PATH), *[data(1, message(b"x"))] * 20)
            await at.until(lambda: service.messages > 10)
            (protocol,) = (p for p in at.server._protocols if p.connection.crowded)

            async def pour() -> None:
                while True:
                    await peer.send(*[window_update(0, 1)] * 100)

            pouring = asyncio.create_task(pour())
            await at.until(lambda: protocol.connection.overfull)
            before = protocol.connection._backlog_bytes
            await at.ask_bystander(20)
            after = protocol.connection._backlog_bytes
            pouring.cancel()

    assert before == after
    assert before < 64 * KIB + 260 * (256 * KIB // 13)  # one read, event by event


async def test_half_open_streams_without_progress_end(tally: Any) -> None:
    """A thousand streams, each in the middle of a message."""
    service = tally()

    with capture_logs() as logs:
        async with scene(service, stalled_stream_seconds=0.3) as at, raw_peer(at.port) as peer:
            ids = range(1, 2001, 2)
            await peer.send(*(request(n, PATH) + data(n, b"\0\0\0\0\x05ab") for n in ids))
            await at.until(lambda: len(service.handlers) == 1000)
            await at.ask_bystander()
            await at.until(lambda: not service.open)
            ends = [await peer.read_until(Kind.HEADERS) for _ in ids]
            errors = at.errors

    assert {found.stream_id for found in ends} == set(ids)
    assert errors == {"stalled stream": 1000}
    assert [line["event"] for line in logs] == ["stream ended by a limit"]


async def test_a_byte_now_and_then_is_no_progress(tally: Any) -> None:
    """Ten of them in the time that a stream may take."""
    service = tally()
    begun = b"\0\0\0\xff\xff"

    async with scene(service, stalled_stream_seconds=0.5) as at, raw_peer(at.port) as peer:
        ids = range(1, 201, 2)
        await peer.send(*(request(n, PATH) + data(n, begun) for n in ids))
        await at.until(lambda: len(service.handlers) == 100)

        async def drip() -> None:
            while True:
                await peer.send(*(data(n, b"x") for n in ids))
                await asyncio.sleep(0.05)

        dripping = asyncio.create_task(drip())
        await at.until(lambda: not service.open)
        dripping.cancel()
        errors = at.errors

    assert errors == {"stalled stream": 100}


async def test_short_blocks_are_counted_on_every_loop(tally: Any) -> None:
    """Most are shorter than a millisecond, in which uvloop's own clock ticks."""
    shut = PREFACE + settings({4: 0})
    counted = []

    async with scene(tally()) as at, raw_peer(at.port, greeting=shut) as peer:
        await peer.settle()
        for stream_id in range(1, 41, 2):
            before = at.server.stats.blocked_seconds
            await peer.send(request(stream_id, PATH), data(stream_id, message(b"x")))
            await peer.settle()
            await peer.send(window_update(stream_id, 100))
            await peer.read_body(stream_id, 6)
            counted.append(at.server.stats.blocked_seconds > before)

    assert counted == [True] * 20


async def test_a_stream_that_we_finished_and_its_peer_does_not_is_reset(tally: Any) -> None:
    service = tally(lambda sender, _: sender.finish())

    async with scene(service, stalled_stream_seconds=0.1) as at, raw_peer(at.port) as peer:
        await peer.send(request(1, PATH), data(1, message(b"x")))
        found = await peer.read_until(Kind.RST_STREAM, 1)

    assert found.code == CANCEL


async def test_the_oldest_idle_connection_makes_room(tally: Any) -> None:
    async with scene(tally(), max_connections=3) as at:
        async with raw_peer(at.port) as oldest:
            await oldest.settle()
            async with raw_peer(at.port) as older:
                await older.settle()
                async with raw_peer(at.port) as newest:
                    await newest.settle()
                    frames = await oldest.rest()
                    await older.settle()
                    errors = at.errors

    assert goaways(frames) == [0]
    assert errors == {"idle made room": 1}


async def test_without_an_idle_connection_the_new_one_goes(tally: Any) -> None:
    with capture_logs() as logs:
        async with scene(tally(), max_connections=2) as at:
            async with raw_peer(at.port) as busy:
                await busy.send(request(1, PATH))
                await busy.settle()
                async with raw_peer(at.port) as late:
                    await late.rest()
                await busy.send(data(1, message(b"x")))
                body = await busy.read_body(1, 6)
                errors = at.errors

    assert body == message(b"x")
    assert errors == {"connections": 1}
    assert [line["kind"] for line in logs] == ["connections"]


async def test_an_idle_connection_is_closed_although_it_answers_pings(tally: Any) -> None:
    async with scene(tally(), idle_seconds=0.4, keepalive_seconds=0.1) as at:
        async with raw_peer(at.port) as peer:
            frames = []
            while (found := await peer.read()) is not None:
                frames.append(found)
                if found.kind == Kind.PING:
                    await peer.send(frame(Kind.PING, 1, 0, found.payload))
            errors = at.errors

    assert [found.kind for found in frames].count(Kind.PING) >= 2
    assert goaways(frames) == [0]
    assert errors == {}


async def test_a_peer_that_answers_no_ping_is_cut(tally: Any) -> None:
    service = tally()

    async with scene(service, keepalive_seconds=0.1, keepalive_timeout_seconds=0.1) as at:
        async with raw_peer(at.port) as peer:
            await peer.send(request(1, PATH))
            frames = await peer.rest()
            await at.until(lambda: not service.open)
            errors = at.errors

    assert Kind.PING in {found.kind for found in frames}
    assert errors == {"keep-alive": 1}
    assert service.ends == [[CloseReason.CANCELLED]]


async def test_requests_that_are_kept_too_long_are_refused(tally: Any) -> None:
    """Handlers keep what they are given; the one that goes over the bound ends."""

    def keep(sender: StreamSender, payload: bytes) -> None:
        sender.hold(len(payload))

    service = tally(keep)

    with capture_logs() as logs:
        async with scene(service, max_connection_bytes=100 * KIB) as at, raw_peer(at.port) as peer:
            for n in range(1, 41, 2):
                await peer.send(request(n, PATH), data(n, message(b"x" * 8 * KIB)))
            await peer.settle()
            open_before, errors = service.open, at.errors
            for n in range(1, 41, 2):
                await peer.send(reset(n))
            await peer.settle()
            await peer.send(request(41, PATH), data(41, message(b"x" * 90 * KIB)[:16000]))
            await peer.settle()
            open_after = service.open

    assert open_before == 12
    assert errors == {"too much memory": 8}
    assert [line["event"] for line in logs] == ["stream ended by a limit"]
    assert open_after == 1


async def test_resets_within_bodies_do_not_leak_the_window(tally: Any) -> None:
    """Three times the connection's window in bodies of streams that the peer gives up on."""
    async with scene(tally(), connection_window_bytes=128 * KIB) as at, raw_peer(at.port) as peer:
        window, sent, stream_id = 65_535, 0, 1
        while sent < 400 * KIB:
            part = data(stream_id, b"\0\0\x10\0\0" + b"x" * 16_000)
            while window < 16_005:
                window += await _granted(peer)
            await peer.send(request(stream_id, PATH), part, reset(stream_id))
            window -= 16_005
            sent += 16_005
            stream_id += 2
        await at.until(lambda: not at.service.open)
        await peer.settle()

    assert stream_id > 40


async def _granted(peer: RawPeer) -> int:
    found = await peer.read_until(Kind.WINDOW_UPDATE, 0)
    return int.from_bytes(found.payload, "big")


async def test_two_big_answers_share_the_connection(tally: Any) -> None:
    service = tally(lambda sender, payload: sender.send(payload * MIB))
    eager = PREFACE + settings({4: 0x7FFFFFFF}) + window_update(0, 0x7FFF0000)

    async with scene(service) as at, raw_peer(at.port, greeting=eager) as peer:
        await peer.settle()
        await peer.send(*(request(n, PATH) + data(n, message(b"x" * 4), end=True) for n in (1, 3)))
        order: list[int] = []
        while len(order) < 2 * 4 * MIB // (16 * KIB) and (found := await peer.read()):
            if found.kind == Kind.DATA:
                order.append(found.stream_id)

    first_half = order[: len(order) // 2]
    assert 0.3 < first_half.count(1) / len(first_half) < 0.7


async def test_a_deadline_ends_its_stream(tally: Any) -> None:
    service = tally()

    async with scene(service) as at, raw_peer(at.port) as peer:
        await peer.send(request(1, PATH, extra=[(b"grpc-timeout", b"50m")]))
        await peer.send(request(3, PATH, extra=[(b"grpc-timeout", b"99999999H")]))
        await peer.read_until(Kind.HEADERS, 1)
        still_open = service.open

    assert still_open == 1
    assert service.ends[0] == [CloseReason.CANCELLED]


async def test_five_thousand_connections_may_be_idle(tally: Any) -> None:
    """As many as descriptors allow, if these are fewer."""
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = min(500, (soft - 200) // 2)
    async with scene(tally(), keepalive_seconds=0.2) as at:
        streams = []
        for _ in range(count):
            _, writer = await asyncio.open_connection("127.0.0.1", at.port)
            writer.write(PREFACE + settings())
            streams.append(writer)
        await at.until(lambda: at.server.open_connections == count + 1)
        await at.ask_bystander()
        for writer in streams:
            writer.transport.abort()
        await at.until(lambda: at.server.open_connections == 1)


async def test_a_connection_that_vanishes_within_a_message_ends_its_streams(tally: Any) -> None:
    service = tally()

    async with scene(service) as at:
        async with raw_peer(at.port) as peer:
            await peer.send(*(request(n, PATH) + data(n, b"\0\0\0\0\x09x") for n in (1, 3, 5)))
            await at.until(lambda: len(service.handlers) == 3)
            peer.abort()
            await at.until(lambda: not service.open)

    assert service.ends == [[CloseReason.CANCELLED]] * 3
