"""What both transports do, shown with a real client on the loopback interface."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any

import grpc
import grpc.aio
import pytest
from structlog.testing import capture_logs

from epp.transport.grpcio_server import GrpcioServer
from epp.transport.limits import TransportLimits
from epp.transport.listening import ListenError
from epp.transport.native_server import NativeServer
from epp.transport.stream import CloseReason, Services, StatusCode, StreamFactory, StreamSender

PATH = "/test.Service/Talk"


@dataclass
class Recorder:
    """A handler that records its calls and behaves as its hooks say."""

    sender: StreamSender
    message_hook: Callable[["Recorder", bytes], None] = lambda _self, _payload: None
    half_close_hook: Callable[["Recorder"], None] = lambda self: self.sender.finish()
    close_hook: Callable[["Recorder"], None] = lambda _self: None
    calls: list[object] = field(default_factory=list)
    opened: asyncio.Event = field(default_factory=asyncio.Event)
    half_closed: asyncio.Event = field(default_factory=asyncio.Event)
    closed: asyncio.Event = field(default_factory=asyncio.Event)

    def on_message(self, payload: bytes) -> None:
        self.calls.append(payload)
        self.opened.set()
        self.message_hook(self, payload)

    def on_half_close(self) -> None:
        self.calls.append("half-close")
        self.half_closed.set()
        self.half_close_hook(self)

    def on_closed(self, reason: CloseReason) -> None:
        self.calls.append(reason)
        self.closed.set()
        self.close_hook(self)


Hooks = dict[str, Any]
Call = grpc.aio.StreamStreamCall[bytes, bytes]


@dataclass
class Service:
    """Factory that keeps the handlers it made."""

    hooks: Hooks
    handlers: list[Recorder] = field(default_factory=list)

    def __call__(self, sender: StreamSender) -> Recorder:
        self.handlers.append(Recorder(sender, **self.hooks))
        return self.handlers[-1]

    @property
    def only(self) -> Recorder:
        (handler,) = self.handlers
        return handler


Server = GrpcioServer | NativeServer


def native(
    services: Services,
    *,
    max_receive_bytes: int | None = None,
    max_send_bytes: int | None = None,
    **options: Any,
) -> NativeServer:
    """The native transport, with the options of the other one."""
    limits = TransportLimits(max_send_bytes=max_send_bytes)
    if max_receive_bytes is not None:
        limits = replace(limits, max_message_bytes=max_receive_bytes)
    return NativeServer(services, limits=limits, **options)


TRANSPORTS: dict[str, Callable[..., Server]] = {"native": native, "grpcio": GrpcioServer}
_transport: ContextVar[Callable[..., Server]] = ContextVar("transport")


@pytest.fixture(params=sorted(TRANSPORTS), autouse=True)
def transport(request: pytest.FixtureRequest) -> Iterator[Callable[..., Server]]:
    """Every test of this file runs on both."""
    chosen = TRANSPORTS[request.param]
    token = _transport.set(chosen)
    yield chosen
    _transport.reset(token)


@asynccontextmanager
async def serving(factory: StreamFactory, **options: Any) -> AsyncIterator[tuple[Server, int]]:
    server = _transport.get()({PATH: factory}, host="127.0.0.1", **options)
    port = await server.start()
    try:
        yield server, port
    finally:
        await server.stop(0)


@asynccontextmanager
async def talking(port: int, path: str = PATH) -> AsyncIterator["Call"]:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call: Call = channel.stream_stream(path)()
        yield call


@asynccontextmanager
async def stream(service: Service, **options: Any) -> AsyncIterator[tuple[Server, "Call"]]:
    """A server with this service, and an open stream to it."""
    async with serving(service, **options) as (server, port), talking(port) as call:
        yield server, call


async def soon(event: asyncio.Event) -> None:
    await asyncio.wait_for(event.wait(), 10)


async def read(call: "Call") -> object:
    """Return the next answer, or EOF, which the stubs leave out."""
    return await call.read()


async def remaining(call: "Call") -> list[bytes]:
    answers: list[bytes] = []
    async with asyncio.timeout(10):
        while isinstance(answer := await read(call), bytes):
            answers.append(answer)
    return answers


def echo(self: Recorder, payload: bytes) -> None:
    self.sender.send(b"re:" + payload)


async def test_messages_are_answered_in_order_and_the_half_close_ends_the_stream() -> None:
    service = Service({"message_hook": echo})

    async with stream(service) as (_, call):
        for number in range(20):
            await call.write(b"%d" % number)
        await call.done_writing()
        answers = await remaining(call)
        code = await call.code()

    assert answers == [b"re:%d" % number for number in range(20)]
    assert code is grpc.StatusCode.OK
    assert service.only.calls == [
        *(b"%d" % number for number in range(20)),
        "half-close",
        CloseReason.FINISHED,
    ]


async def test_many_answers_to_one_message_keep_their_order() -> None:
    def burst(self: Recorder, _payload: bytes) -> None:
        for number in range(100):
            self.sender.send(b"%d" % number)

    async with stream(Service({"message_hook": burst})) as (_, call):
        await call.write(b"go")
        await call.done_writing()
        answers = await remaining(call)

    assert answers == [b"%d" % number for number in range(100)]


async def test_an_empty_message_is_a_message_and_no_half_close() -> None:
    service = Service({"message_hook": echo})

    async with stream(service) as (_, call):
        await call.write(b"")
        await call.done_writing()
        answers = await remaining(call)

    assert answers == [b"re:"]
    assert service.only.calls == [b"", "half-close", CloseReason.FINISHED]


async def test_a_send_from_outside_a_call_reaches_the_peer() -> None:
    service = Service({})

    async with stream(service) as (_, call):
        await call.write(b"queue me")
        await wait_for_handler(service)
        service.only.sender.send(b"first")
        service.only.sender.send(b"second")
        answers = [await call.read(), await call.read()]
        await call.write(b"more")
        await call.done_writing()
        rest = await remaining(call)

    assert answers == [b"first", b"second"]
    assert rest == []
    assert service.only.calls == [b"queue me", b"more", "half-close", CloseReason.FINISHED]


async def wait_for_handler(service: Service) -> None:
    async with asyncio.timeout(10):
        while not service.handlers:
            await asyncio.sleep(0.001)
    await soon(service.only.opened)


async def test_a_finish_from_outside_a_call_ends_the_stream_after_what_was_sent() -> None:
    service = Service({})

    async with stream(service) as (server, call):
        await call.write(b"queue me")
        await wait_for_handler(service)
        service.only.sender.send(b"answer")
        service.only.sender.finish(StatusCode.INVALID_ARGUMENT, "enough")
        service.only.sender.send(b"ignored")
        answers = [await call.read()]
        code, details = await call.code(), await call.details()
        await soon(service.only.closed)
        left = server.open_streams

    assert answers == [b"answer"]
    assert (code, details) == (grpc.StatusCode.INVALID_ARGUMENT, "enough")
    assert service.only.calls == [b"queue me", CloseReason.FINISHED]
    assert left == 0


async def test_the_stream_stays_open_after_the_half_close_until_finish() -> None:
    service = Service({"half_close_hook": lambda _self: None})

    async with stream(service) as (server, call):
        await call.done_writing()
        async with asyncio.timeout(10):
            while not service.handlers:
                await asyncio.sleep(0.001)
        await soon(service.only.half_closed)
        still_open = server.open_streams
        service.only.sender.send(b"late")
        service.only.sender.finish()
        answers = await remaining(call)
        code = await call.code()

    assert still_open == 1
    assert answers == [b"late"]
    assert code is grpc.StatusCode.OK
    assert service.only.calls == ["half-close", CloseReason.FINISHED]


async def test_a_finish_inside_a_call_sends_what_was_sent_before_it_and_reads_no_more() -> None:
    def refuse(self: Recorder, _payload: bytes) -> None:
        self.sender.send(b"no")
        self.sender.finish(StatusCode.UNIMPLEMENTED, "mode")
        self.sender.finish(StatusCode.OK)

    service = Service({"message_hook": refuse})

    async with stream(service) as (_, call):
        await call.write(b"hello")
        answer = await call.read()
        code, details = await call.code(), await call.details()

    assert answer == b"no"
    assert (code, details) == (grpc.StatusCode.UNIMPLEMENTED, "mode")
    assert service.only.calls == [b"hello", CloseReason.FINISHED]


async def test_a_factory_may_answer_before_the_first_message() -> None:
    def greet(sender: StreamSender) -> Recorder:
        sender.send(b"welcome")
        return Recorder(sender)

    async with serving(greet) as (_, port), talking(port) as call:
        answer = await call.read()

    assert answer == b"welcome"


async def test_a_reset_by_the_peer_is_a_cancellation_and_no_half_close() -> None:
    service = Service({"message_hook": echo})

    async with stream(service) as (server, call):
        await call.write(b"hello")
        await call.read()
        call.cancel()
        await soon(service.only.closed)
        async with asyncio.timeout(10):
            while server.open_streams:
                await asyncio.sleep(0.001)

    assert service.only.calls == [b"hello", CloseReason.CANCELLED]


async def test_many_resets_are_never_taken_for_half_closes() -> None:
    service = Service({"message_hook": echo})

    async with serving(service) as (_, port):
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:

            async def one() -> None:
                call: Call = channel.stream_stream(PATH)()
                await call.write(b"x")
                await call.read()
                call.cancel()

            for _ in range(10):
                await asyncio.gather(*(one() for _ in range(20)))
            for handler in service.handlers:
                await soon(handler.closed)

    assert len(service.handlers) == 200
    assert [handler.calls for handler in service.handlers] == [[b"x", CloseReason.CANCELLED]] * 200


async def test_a_lost_connection_is_a_cancellation() -> None:
    service = Service({"message_hook": echo})

    async with serving(service) as (_, port):
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
        call: Call = channel.stream_stream(PATH)()
        await call.write(b"hello")
        await call.read()
        await channel.close(grace=None)
        await soon(service.only.closed)

    assert service.only.calls == [b"hello", CloseReason.CANCELLED]


async def test_a_send_after_the_peer_left_is_ignored() -> None:
    service = Service({"message_hook": echo})

    async with stream(service) as (_, call):
        await call.write(b"hello")
        await call.read()
        call.cancel()
        await soon(service.only.closed)
        service.only.sender.send(b"nobody")
        service.only.sender.finish()
        await asyncio.sleep(0)

    assert service.only.calls == [b"hello", CloseReason.CANCELLED]


@pytest.mark.parametrize(
    "hooks",
    [
        pytest.param({"message_hook": lambda self, _: 1 / 0}, id="on-message"),
        pytest.param({"half_close_hook": lambda self: 1 / 0}, id="on-half-close"),
    ],
)
async def test_a_handler_that_raises_gets_internal_without_details(hooks: Hooks) -> None:
    service = Service(hooks)

    with capture_logs() as logs:
        async with stream(service) as (_, call):
            await call.write(b"hello")
            await call.done_writing()
            code, details = await call.code(), await call.details()
            await soon(service.only.closed)

    assert (code, details) == (grpc.StatusCode.INTERNAL, "internal error")
    assert service.only.calls[-1] is CloseReason.ERROR
    assert service.only.calls.count(CloseReason.ERROR) == 1
    assert [line["event"] for line in logs] == ["stream handler failed"]


async def test_a_factory_that_raises_gets_internal() -> None:
    def broken(_sender: StreamSender) -> Recorder:
        raise LookupError

    async with serving(broken) as (server, port), talking(port) as call:
        code = await call.code()
        left = server.open_streams

    assert code is grpc.StatusCode.INTERNAL
    assert left == 0


async def test_an_error_in_on_closed_harms_nobody() -> None:
    def fall(_self: Recorder) -> None:
        raise LookupError

    service = Service({"message_hook": echo, "close_hook": fall})

    async with serving(service) as (server, port):
        codes = []
        for _ in range(2):
            async with talking(port) as call:
                await call.write(b"x")
                await call.done_writing()
                await remaining(call)
                codes.append(await call.code())
        left = server.open_streams

    assert codes == [grpc.StatusCode.OK] * 2
    assert left == 0


async def test_an_unknown_method_is_unimplemented() -> None:
    async with serving(Service({})) as (_, port), talking(port, "/test.Service/Other") as call:
        code = await call.code()

    assert code is grpc.StatusCode.UNIMPLEMENTED


async def test_a_message_above_the_limit_ends_its_stream_only() -> None:
    service = Service(
        {"message_hook": lambda self, payload: self.sender.send(b"%d" % len(payload))}
    )

    async with serving(service, max_receive_bytes=6 << 20) as (_, port):
        async with talking(port) as call:
            await call.write(b"x" * (6 << 20))
            fits = await call.read()
        async with talking(port) as call:
            await call.write(b"x" * (6 << 20) + b"y")
            code = await call.code()
        await soon(service.handlers[1].closed)

    assert fits == b"%d" % (6 << 20)
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert service.handlers[1].calls == [CloseReason.CANCELLED]


async def test_a_peer_that_does_not_read_blocks_only_its_own_stream() -> None:
    flood = b"x" * (1 << 20)
    flooding = asyncio.Event()

    def answer_hook(self: Recorder, payload: bytes) -> None:
        if payload != b"flood":
            echo(self, payload)
            return
        for _ in range(64):
            self.sender.send(flood)
        flooding.set()

    service = Service({"message_hook": answer_hook})

    async with serving(service) as (_, port), talking(port) as slow, talking(port) as other:
        await slow.write(b"flood")
        await soon(flooding)
        await other.write(b"hi")
        answer = await asyncio.wait_for(other.read(), 10)
        slow.cancel()
        (blocked,) = (handler for handler in service.handlers if handler.calls == [b"flood"])
        await soon(blocked.closed)

    assert answer == b"re:hi"
    assert blocked.calls == [b"flood", CloseReason.CANCELLED]


async def test_stop_lets_an_open_stream_finish_and_refuses_new_ones() -> None:
    service = Service({"message_hook": echo})
    server = _transport.get()({PATH: service}, host="127.0.0.1")
    port = await server.start()

    async with talking(port) as call:
        await call.write(b"one")
        await call.read()
        stopping = asyncio.create_task(server.stop(20))
        await asyncio.sleep(0)
        async with grpc.aio.insecure_channel(
            f"127.0.0.1:{port}", options=[("grpc.use_local_subchannel_pool", 1)]
        ) as other_connection:
            late: Call = other_connection.stream_stream(PATH)()
            refused = await late.code()
        await call.write(b"two")
        answer = await call.read()
        await call.done_writing()
        await remaining(call)
        code = await call.code()
        await asyncio.wait_for(stopping, 10)

    assert refused is grpc.StatusCode.UNAVAILABLE
    assert answer == b"re:two"
    assert code is grpc.StatusCode.OK
    assert service.only.calls == [b"one", b"two", "half-close", CloseReason.FINISHED]


@pytest.mark.parametrize("grace", [pytest.param(0, id="no-grace"), pytest.param(0.05, id="grace")])
async def test_streams_open_after_the_grace_time_end_with_shutdown(grace: float) -> None:
    service = Service({"message_hook": echo})
    server = _transport.get()({PATH: service}, host="127.0.0.1")
    port = await server.start()

    async with talking(port) as call:
        await call.write(b"one")
        await call.read()
        await asyncio.wait_for(server.stop(grace), 10)
        code = await call.code()
        left = server.open_streams

    assert code is grpc.StatusCode.UNAVAILABLE
    assert service.only.calls == [b"one", CloseReason.SHUTDOWN]
    assert left == 0


async def test_stop_before_start_and_a_second_stop_do_nothing() -> None:
    server = _transport.get()({}, host="127.0.0.1")

    await server.stop(0)
    await server.start()
    await server.stop(0)
    await server.stop(0)


async def test_a_port_in_use_is_an_error_that_names_the_address() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ListenError, match=f"127.0.0.1:{port}: Address already in use$"):
            await _transport.get()({}, host="127.0.0.1", port=port).start()


async def test_a_second_server_on_the_port_is_an_error() -> None:
    async with serving(Service({})) as (_, port):
        with pytest.raises(ListenError, match=str(port)):
            await _transport.get()({}, host="127.0.0.1", port=port).start()


async def test_an_address_that_is_not_ours_is_an_error_that_says_so() -> None:
    with pytest.raises(ListenError, match="192.0.2.1:0: Cannot assign requested address$"):
        await _transport.get()({}, host="192.0.2.1").start()


@pytest.mark.parametrize(
    ("host", "target"),
    [
        pytest.param("", "127.0.0.1", id="every-address-serves-ipv4"),
        pytest.param("127.0.0.1", "127.0.0.1", id="ipv4"),
        pytest.param("localhost", "localhost", id="name"),
    ],
)
async def test_the_host_decides_where_it_listens(host: str, target: str) -> None:
    server = _transport.get()({PATH: Service({"message_hook": echo})}, host=host)
    port = await server.start()

    async with grpc.aio.insecure_channel(f"{target}:{port}") as channel:
        call: Call = channel.stream_stream(PATH)()
        await call.write(b"x")
        answer = await call.read()
    await server.stop(0)

    assert answer == b"re:x"
