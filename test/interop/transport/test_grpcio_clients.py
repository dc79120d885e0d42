"""The official client's asyncio API against the native server, with and without TLS."""

import asyncio
import hashlib
from typing import Any

import grpc
import grpc.aio
import pytest

from epp.testing.talking import AUTHORITY, KEEP_ALIVE, LARGE, PATH, Pings, Service, serving, until
from epp.transport.stream import CloseReason, StatusCode
from epp.transport.tls_context import TlsContext

MIB = 1 << 20

pytestmark = pytest.mark.timeout(60)


def channel(
    port: int, tls: TlsContext | None = None, options: list[tuple[str, Any]] | None = None
) -> grpc.aio.Channel:
    chosen = [("grpc.use_local_subchannel_pool", 1), *LARGE, *(options or [])]
    if tls is None:
        return grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=chosen)
    credentials = grpc.ssl_channel_credentials(AUTHORITY.pem)
    return grpc.aio.secure_channel(f"localhost:{port}", credentials, options=chosen)


async def test_a_conversation_both_ways(tls: TlsContext | None) -> None:
    async with serving(Service(), tls) as (_, port), channel(port, tls) as there:
        call: Any = there.stream_stream(PATH)()
        answers = []
        for number in range(50):
            await call.write(b"%d" % number)
            answers.append(await call.read())
        await call.done_writing()
        end = await call.read()
        code = await call.code()

    assert answers == [b"%d" % number for number in range(50)]
    assert end is grpc.aio.EOF
    assert code is grpc.StatusCode.OK


async def test_metadata_goes_both_ways(tls: TlsContext | None) -> None:
    service = Service()
    service.trailers = [("reason", "because"), ("raw-bin", b"\x00\xff\x80")]
    sent = (("name", "value"), ("twice", "a"), ("twice", "b"), ("blob-bin", bytes(range(256))))

    async with serving(service, tls) as (_, port), channel(port, tls) as there:
        call: Any = there.stream_stream(PATH)(metadata=sent)
        await call.write(b"x")
        await call.read()
        received = service.talks[0].metadata
        await call.done_writing()
        await call.read()
        trailers = await call.trailing_metadata()

    assert tuple(received) == sent
    assert dict(trailers) == {"reason": "because", "raw-bin": b"\x00\xff\x80"}


async def test_status_details_of_any_text_arrive(tls: TlsContext | None) -> None:
    details = "50% süß \n 日本 \x7f end"
    service = Service(lambda talk, _: talk.sender.finish(StatusCode.UNAVAILABLE, details))

    async with serving(service, tls) as (_, port), channel(port, tls) as there:
        call: Any = there.stream_stream(PATH)()
        await call.write(b"x")
        code, found = await call.code(), await call.details()

    assert (code, found) == (grpc.StatusCode.UNAVAILABLE, details)


async def test_the_client_cancels(tls: TlsContext | None) -> None:
    service = Service()

    async with serving(service, tls) as (_, port), channel(port, tls) as there:
        call: Any = there.stream_stream(PATH)()
        await call.write(b"x")
        await call.read()
        call.cancel()
        await until(lambda: service.open == 0)

    assert service.talks[0].ends == [CloseReason.CANCELLED]


async def test_the_server_ends_a_stream_whose_client_goes_on_writing() -> None:
    service = Service(lambda talk, _: talk.sender.finish(StatusCode.CANCELLED, "no more"))

    async with serving(service) as (_, port), channel(port) as there:
        call: Any = there.stream_stream(PATH)()
        await call.write(b"x" * 1000)
        code = await call.code()
        with pytest.raises((grpc.aio.AioRpcError, asyncio.InvalidStateError)):
            await call.write(b"more")
        again: Any = there.stream_stream(PATH)()
        await again.write(b"x")
        next_code = await again.code()

    assert (code, next_code) == (grpc.StatusCode.CANCELLED, grpc.StatusCode.CANCELLED)
    assert service.talks[0].messages == [b"x" * 1000]


async def test_a_deadline_ends_the_call_on_both_sides(tls: TlsContext | None) -> None:
    service = Service(lambda _talk, _payload: None)

    async with serving(service, tls) as (_, port), channel(port, tls) as there:
        call: Any = there.stream_stream(PATH)(timeout=0.2)
        await call.write(b"x")
        code = await call.code()
        await until(lambda: service.open == 0)

    assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert service.talks[0].ends == [CloseReason.CANCELLED]


@pytest.mark.parametrize(
    "options",
    [
        pytest.param([], id="windows-of-the-client"),
        pytest.param(
            [("grpc.http2.lookahead_bytes", 65_535), ("grpc.http2.bdp_probe", 0)],
            id="64-kb-windows",
        ),
    ],
)
async def test_large_messages_go_both_ways(
    tls: TlsContext | None, options: list[tuple[str, Any]]
) -> None:
    payload = b"0123456789abcdef" * MIB

    async with serving(Service(), tls) as (_, port), channel(port, tls, options) as there:
        call: Any = there.stream_stream(PATH)()
        for _ in range(2):
            await call.write(payload)
            answer = await call.read()
            assert hashlib.sha256(answer).digest() == hashlib.sha256(payload).digest()
        await call.done_writing()
        code = await call.code()

    assert code is grpc.StatusCode.OK


async def test_small_windows_of_our_own_carry_large_messages() -> None:
    small: dict[str, Any] = {"stream_window_bytes": 65_535, "connection_window_bytes": 65_535}
    payload = b"x" * MIB

    async with serving(Service(), **small) as (_, port), channel(port) as there:
        calls: list[Any] = [there.stream_stream(PATH)() for _ in range(4)]
        await asyncio.gather(*(call.write(payload) for call in calls))
        answers = await asyncio.gather(*(call.read() for call in calls))
        for call in calls:
            call.cancel()

    assert [len(answer) for answer in answers] == [MIB] * 4


async def test_a_thousand_streams_at_once_on_one_connection(tls: TlsContext | None) -> None:
    service = Service()

    async with serving(service, tls) as (server, port), channel(port, tls) as there:
        calls: list[Any] = [there.stream_stream(PATH)() for _ in range(1000)]
        await asyncio.gather(*(call.write(b"%d" % n) for n, call in enumerate(calls)))
        answers = [await call.read() for call in calls]
        at_once, connections = server.open_streams, server.open_connections
        await asyncio.gather(*(call.done_writing() for call in calls))
        codes = {await call.code() for call in calls}

    assert answers == [b"%d" % n for n in range(1000)]
    assert (at_once, connections) == (1000, 1)
    assert codes == {grpc.StatusCode.OK}


async def test_gzip_is_understood(tls: TlsContext | None) -> None:
    payload = b"compress me " * 10_000

    async with serving(Service(), tls) as (server, port), channel(port, tls) as there:
        call: Any = there.stream_stream(PATH)(compression=grpc.Compression.Gzip)
        await call.write(payload)
        answer = await call.read()
        await call.write(b"tiny")
        tiny = await call.read()
        call.cancel()

    assert answer == payload
    assert tiny == b"tiny"


async def test_deflate_which_we_do_not_announce_is_refused() -> None:
    async with serving(Service()) as (_, port), channel(port) as there:
        call: Any = there.stream_stream(PATH)(compression=grpc.Compression.Deflate)
        code, details = await call.code(), await call.details()

    assert code is grpc.StatusCode.UNIMPLEMENTED
    assert "deflate" in details


async def test_keep_alive_pings_of_the_client_are_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two pings the first must have been answered: the library has one on its way."""
    pings = Pings(monkeypatch)

    async with serving(Service()) as (server, port), channel(port, options=KEEP_ALIVE) as there:
        call: Any = there.stream_stream(PATH)()
        await call.write(b"x")
        await call.read()
        before = pings.heard
        await until(lambda: pings.heard >= before + 2)
        await call.write(b"y")
        answer = await call.read()
        connections = server.stats.connections
        call.cancel()

    assert answer == b"y"
    assert connections == 1


async def test_keep_alive_pings_of_ours_are_answered() -> None:
    limits: dict[str, Any] = {
        "keepalive_seconds": 0.1,
        "keepalive_timeout_seconds": 5,
        "check_seconds": 0.02,
    }

    async with serving(Service(), **limits) as (server, port), channel(port) as there:
        call: Any = there.stream_stream(PATH)()
        await call.write(b"x")
        await call.read()
        (protocol,) = server._protocols
        await until(lambda: protocol.connection.control.answered_pings >= 2)
        await call.write(b"y")
        answer = await call.read()
        call.cancel()

    assert answer == b"y"
    assert dict(server.stats.errors) == {}


async def test_a_drain_under_load_loses_nothing(tls: TlsContext | None) -> None:
    """Callers come all the time; each gets its answer, or UNAVAILABLE before it was served."""
    service = Service()
    outcomes: list[str] = []

    async with serving(service, tls) as (server, port), channel(port, tls) as there:
        stopping = asyncio.Event()

        async def caller() -> None:
            while not stopping.is_set():
                call: Any = there.stream_stream(PATH)()
                try:
                    await call.write(b"x")
                    answer = await call.read()
                    await asyncio.sleep(0.001)
                    await call.write(b"y")
                    assert (answer, await call.read()) == (b"x", b"y")
                    await call.done_writing()
                    outcomes.append((await call.code()).name)
                except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
                    outcomes.append((await call.code()).name)
                    return

        callers = [asyncio.create_task(caller()) for _ in range(20)]
        await until(lambda: len(outcomes) > 50)
        await asyncio.wait_for(server.stop(10), 20)
        left = server.open_connections
        stopping.set()
        await asyncio.gather(*callers)

    assert left == 0
    assert set(outcomes) <= {"OK", "UNAVAILABLE"}
    assert {tuple(talk.ends) for talk in service.talks} == {(CloseReason.FINISHED,)}
