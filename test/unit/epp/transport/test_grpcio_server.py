"""What only the grpc.aio transport does: sends that fail later than the call that made them."""

import asyncio

import grpc
import grpc.aio

from epp.transport.grpcio_server import GrpcioServer
from epp.transport.stream import CloseReason, StreamSender

PATH = "/test.Service/Talk"


class Keeper:
    """A handler that keeps its sender and its calls."""

    def __init__(self, sender: StreamSender) -> None:
        self.sender = sender
        self.calls: list[object] = []
        self.opened, self.closed = asyncio.Event(), asyncio.Event()

    def on_message(self, payload: bytes) -> None:
        self.calls.append(payload)
        self.opened.set()

    def on_half_close(self) -> None:
        self.calls.append("half-close")

    def on_closed(self, reason: CloseReason) -> None:
        self.calls.append(reason)
        self.closed.set()


async def test_an_unsendable_answer_from_outside_a_call_is_our_error() -> None:
    handlers: list[Keeper] = []

    def factory(sender: StreamSender) -> Keeper:
        handlers.append(Keeper(sender))
        return handlers[-1]

    server = GrpcioServer({PATH: factory}, host="127.0.0.1")
    port = await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call: grpc.aio.StreamStreamCall[bytes, bytes] = channel.stream_stream(PATH)()
        await call.write(b"hello")
        while not handlers:
            await asyncio.sleep(0)
        await asyncio.wait_for(handlers[0].opened.wait(), 10)
        handlers[0].sender.send(object())  # type: ignore[arg-type] # what no handler should send
        code = await call.code()
        await asyncio.wait_for(handlers[0].closed.wait(), 10)
    await server.stop(0)

    assert code is grpc.StatusCode.INTERNAL
    assert handlers[0].calls == [b"hello", CloseReason.ERROR]
