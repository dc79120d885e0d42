"""The official client's synchronous API against the native server, with and without TLS.

The client has a thread of its own; the server runs on uvloop in the one of the test.
"""

import asyncio
import contextlib
import queue
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
import uvloop

from epp.testing.talking import AUTHORITY, KEEP_ALIVE, LARGE, PATH, Pings, Service, serving, until
from epp.transport.native_server import NativeServer
from epp.transport.stream import CloseReason
from epp.transport.tls_context import TlsContext

MIB = 1 << 20

pytestmark = pytest.mark.timeout(60)


Script = Callable[[int], None]


def play(script: Script, service: Service, tls: TlsContext | None, **limits: Any) -> NativeServer:
    """Run a client against a server."""

    async def serve() -> NativeServer:
        async with serving(service, tls, **limits) as (server, port):
            await asyncio.get_running_loop().run_in_executor(None, script, port)
            await until(lambda: service.open == 0)
        return server

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(serve())


class Feed:
    """What a synchronous call sends: whatever is put in, until it is closed."""

    def __init__(self, *payloads: bytes) -> None:
        self._queue: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        for payload in payloads:
            self._queue.put(payload)

    def put(self, payload: bytes) -> None:
        self._queue.put(payload)

    def close(self) -> None:
        self._queue.put(None)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._queue.get, None)


def test_the_synchronous_client(tls: TlsContext | None) -> None:
    service = Service()
    service.trailers = [("done", "yes")]
    found: dict[str, Any] = {}

    def talk(port: int) -> None:
        with synchronous_channel(port, tls) as there:
            feed = Feed(*(b"%d" % number for number in range(100)))
            feed.close()
            call = there.stream_stream(PATH)(iter(feed), metadata=(("from", "thread"),), timeout=20)
            found["answers"] = list(call)
            found["code"], found["trailers"] = call.code(), dict(call.trailing_metadata())
            forever = Feed(b"forever")
            cancelled: Any = there.stream_stream(PATH)(iter(forever))
            found["first"] = next(cancelled)
            cancelled.cancel()
            found["cancelled"] = cancelled.code()
            forever.close()

    play(talk, service, tls)

    assert found["answers"] == [b"%d" % n for n in range(100)]
    assert found["code"] is grpc.StatusCode.OK
    assert found["trailers"] == {"done": "yes"}
    assert found["first"] == b"forever"
    assert found["cancelled"] is grpc.StatusCode.CANCELLED
    assert service.talks[0].ends == [CloseReason.FINISHED]
    assert service.talks[1].ends == [CloseReason.CANCELLED]


def test_a_deadline_of_the_synchronous_client(tls: TlsContext | None) -> None:
    service = Service(lambda _talk, _payload: None)
    codes = []

    def wait_in_vain(port: int) -> None:
        with synchronous_channel(port, tls) as there:
            feed = Feed(b"x")
            call: Any = there.stream_stream(PATH)(iter(feed), timeout=0.3)
            codes.append(call.code())
            feed.close()

    play(wait_in_vain, service, tls)

    assert codes == [grpc.StatusCode.DEADLINE_EXCEEDED]
    assert service.talks[0].ends == [CloseReason.CANCELLED]


def test_large_messages_of_the_synchronous_client(tls: TlsContext | None) -> None:
    payload = b"0123456789abcdef" * MIB
    answers = []

    def send_and_read(port: int) -> None:
        with synchronous_channel(port, tls) as there:
            feed = Feed(payload, payload[1:])
            call: Any = there.stream_stream(PATH)(iter(feed), timeout=30)
            answers.extend([next(call), next(call)])
            feed.close()
            assert call.code() is grpc.StatusCode.OK

    play(send_and_read, Service(), tls)

    assert [len(answer) for answer in answers] == [16 * MIB, 16 * MIB - 1]
    assert answers == [payload, payload[1:]]


def test_keep_alive_pings_of_the_synchronous_client(monkeypatch: pytest.MonkeyPatch) -> None:
    pings, service, answers = Pings(monkeypatch), Service(), []

    def stay(port: int) -> None:
        with synchronous_channel(port, None, KEEP_ALIVE) as there:
            feed = Feed(b"x")
            call: Any = there.stream_stream(PATH)(iter(feed), timeout=30)
            answers.append(next(call))
            before = pings.heard
            deadline = time.monotonic() + 20
            while pings.heard < before + 2 and time.monotonic() < deadline:
                time.sleep(0.01)
            feed.put(b"%d" % (pings.heard >= before + 2))
            answers.append(next(call))
            feed.close()
            assert call.code() is grpc.StatusCode.OK

    server = play(stay, service, None)

    assert answers == [b"x", b"1"]
    assert server.stats.connections == 1


def test_a_thousand_streams_of_the_synchronous_client_at_once(tls: TlsContext | None) -> None:
    """Each is answered while all the others are open; a thread writes for each, as it does."""
    service = Service()
    answers: list[bytes] = []
    at_once: list[int] = []
    codes: set[grpc.StatusCode] = set()

    def talk(port: int) -> None:
        with synchronous_channel(port, tls) as there:
            feeds = [Feed(b"%d" % number) for number in range(1000)]
            calls: list[Any] = [there.stream_stream(PATH)(iter(f), timeout=50) for f in feeds]
            answers.extend(next(call) for call in calls)
            at_once.append(service.open)
            for feed in feeds:
                feed.close()
            codes.update(call.code() for call in calls)

    server = play(talk, service, tls)

    assert answers == [b"%d" % number for number in range(1000)]
    assert (at_once, server.stats.connections) == ([1000], 1)
    assert codes == {grpc.StatusCode.OK}


def test_a_drain_with_a_stream_of_the_synchronous_client_open(tls: TlsContext | None) -> None:
    """It goes on until it is done; the next one finds nobody."""
    service = Service()
    found: dict[str, Any] = {}

    async def serve() -> None:
        async with serving(service, tls) as (server, port):
            loop = asyncio.get_running_loop()

            def talk() -> None:
                with synchronous_channel(port, tls) as there:
                    feed = Feed(b"before")
                    call: Any = there.stream_stream(PATH)(iter(feed), timeout=30)
                    answers = [next(call)]
                    stopping = asyncio.run_coroutine_threadsafe(server.stop(20), loop)
                    while status_of(there) is grpc.StatusCode.OK:  # it has not heard yet
                        pass
                    found["late"] = status_of(there)
                    feed.put(b"during")
                    answers.append(next(call))
                    found["stopped"] = stopping.done()
                    feed.close()
                    found["code"], found["answers"] = call.code(), answers
                    stopping.result(20)

            await loop.run_in_executor(None, talk)
            found["left"] = server.open_connections

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())

    assert found == {
        "answers": [b"before", b"during"],
        "code": grpc.StatusCode.OK,
        "late": grpc.StatusCode.UNAVAILABLE,
        "stopped": False,
        "left": 0,
    }
    assert {tuple(talk.ends) for talk in service.talks} == {(CloseReason.FINISHED,)}


def status_of(there: Any) -> grpc.StatusCode:
    """How a short conversation ends."""
    call = there.stream_stream(PATH)(iter([b"late"]), timeout=10)
    with contextlib.suppress(grpc.RpcError):
        list(call)
    code: grpc.StatusCode = call.code()
    return code


def synchronous_channel(
    port: int, tls: TlsContext | None, options: list[tuple[str, Any]] | None = None
) -> Any:
    chosen = [("grpc.use_local_subchannel_pool", 1), *LARGE, *(options or [])]
    if tls is None:
        return grpc.insecure_channel(f"127.0.0.1:{port}", options=chosen)
    credentials = grpc.ssl_channel_credentials(AUTHORITY.pem)
    return grpc.secure_channel(f"localhost:{port}", credentials, options=chosen)
