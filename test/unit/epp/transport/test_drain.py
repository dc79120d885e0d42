"""How the native transport sends its peers away: a notice, their last streams, the end."""

import asyncio
from typing import Any

import grpc
import grpc.aio
import pytest

from epp.testing.raw_http2 import ACK, Frame, Kind, RawPeer, data, frame, message, raw_peer, request
from epp.transport import native_server
from epp.transport.native_server import NativeServer
from epp.transport.stream import CloseReason

PATH = b"/test.Service/Talk"
EVERY_STREAM = 2**31 - 1


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer may take its time to acknowledge the notice."""
    monkeypatch.setattr(native_server, "NOTICE_SECONDS", 20.0)


@pytest.fixture
def service(tally: Any) -> Any:
    return tally()


@pytest.fixture
async def server(service: Any) -> Any:
    server = NativeServer({PATH.decode(): service}, host="127.0.0.1")
    server.port = await server.start()  # type: ignore[attr-defined]  # for the tests
    yield server
    await server.stop(0)


def last_stream(goaway: Frame) -> int:
    return int.from_bytes(goaway.payload[:4], "big")


async def ask(peer: RawPeer, stream_id: int, *, is_new: bool = True) -> None:
    """Be served on a stream."""
    await peer.send(*([request(stream_id, PATH)] if is_new else []), data(stream_id, message(b"x")))
    assert await peer.read_body(stream_id, 6) == message(b"x")


async def test_who_is_told_to_go_elsewhere_is_still_served(server: Any) -> None:
    async with raw_peer(server.port) as peer:
        await ask(peer, 1)

        server.announce_shutdown()
        told = await peer.read_until(Kind.GOAWAY)
        await ask(peer, 1, is_new=False)
        await ask(peer, 3)

    assert (last_stream(told), told.code) == (EVERY_STREAM, 0)


async def test_everybody_is_told_once_and_who_comes_later_the_next_time(server: Any) -> None:
    async with raw_peer(server.port) as early:
        await early.settle()
        server.announce_shutdown()
        await early.read_until(Kind.GOAWAY)
        async with raw_peer(server.port) as late:
            await late.settle()

            server.announce_shutdown()
            told = await late.read_until(Kind.GOAWAY)
            await early.send(frame(Kind.PING, 0, 0, b"anything"))
            heard = []
            while (found := await early.read()) is not None:
                heard.append(found)
                if found.payload == b"anything":
                    break

    assert last_stream(told) == EVERY_STREAM
    assert Kind.GOAWAY not in {found.kind for found in heard}


async def test_a_stop_waits_until_the_notice_was_heard(server: Any, service: Any) -> None:
    async with raw_peer(server.port) as peer:
        await ask(peer, 1)
        stopping = asyncio.create_task(server.stop(60))
        first = await peer.read_until(Kind.GOAWAY)
        notice = await peer.read_until(Kind.PING)
        await ask(peer, 3)  # was on its way
        await peer.send(frame(Kind.PING, ACK, 0, notice.payload))
        second = await peer.read_until(Kind.GOAWAY)
        for stream_id in (1, 3):
            await peer.send(data(stream_id, b"", end=True))
        await peer.rest()
        await asyncio.wait_for(stopping, 20)

    assert [last_stream(first), last_stream(second)] == [EVERY_STREAM, 3]
    assert service.ends == [[CloseReason.FINISHED]] * 2


async def test_open_streams_go_on_after_the_last_number(server: Any, service: Any) -> None:
    async with raw_peer(server.port) as peer:
        await ask(peer, 1)
        stopping = asyncio.create_task(server.stop(60))
        notice = await peer.read_until(Kind.PING)
        await peer.send(frame(Kind.PING, ACK, 0, notice.payload))
        await peer.read_until(Kind.GOAWAY)

        for _ in range(20):
            await ask(peer, 1, is_new=False)
            await asyncio.sleep(native_server.POLL_SECONDS / 4)  # several looks of the server
        waits = not stopping.done()
        await peer.send(data(1, b"", end=True))
        await peer.rest()
        await asyncio.wait_for(stopping, 20)

    assert waits
    assert service.ends == [[CloseReason.FINISHED]]


async def test_streams_that_are_cut_fail_as_unavailable(server: Any, service: Any) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        call: Any = channel.stream_stream(PATH.decode())()
        await call.write(b"x")
        await call.read()

        await server.stop(0.05)
        code = await call.code()

    assert code is grpc.StatusCode.UNAVAILABLE
    assert service.ends == [[CloseReason.SHUTDOWN]]
