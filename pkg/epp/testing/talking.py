"""A service for the official clients to talk to, on the native server, and how they keep alive.

Every stream's handler is told of its end exactly once, or the test fails.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from epp.testing.authority import Authority
from epp.testing.stack import eventually
from epp.transport.http2 import Http2, PingReceived
from epp.transport.limits import TransportLimits
from epp.transport.native_server import NativeServer
from epp.transport.stream import CloseReason, StreamSender
from epp.transport.tls_context import TlsContext

PATH = "/test.Service/Talk"
LARGE = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
AUTHORITY = Authority()
PAIR = AUTHORITY.issue("epp", hosts=["localhost", "127.0.0.1"])

Answer = Callable[["Talk", bytes], None]


class Talk:
    """One stream: answers by the service's hook, remembers how it ended."""

    def __init__(self, service: "Service", sender: StreamSender) -> None:
        self.sender = sender
        self.metadata = sender.metadata
        self.messages: list[bytes] = []
        self.ends: list[CloseReason] = []
        self._service = service

    def on_message(self, payload: bytes) -> None:
        """Answer by the hook."""
        self.messages.append(payload)
        self._service.answer(self, payload)

    def on_half_close(self) -> None:
        """Finish."""
        self.sender.finish(metadata=self._service.trailers)

    def on_closed(self, reason: CloseReason) -> None:
        """Remember the end."""
        self.ends.append(reason)
        self._service.open -= 1


class Service:
    """Makes talks and remembers them.

    Args:
        answer: Called with the talk and each message.
    """

    def __init__(self, answer: Answer = lambda talk, payload: talk.sender.send(payload)) -> None:
        self.answer = answer
        self.trailers: list[tuple[str, str | bytes]] = []
        self.talks: list[Talk] = []
        self.open = 0

    def __call__(self, sender: StreamSender) -> Talk:
        """Make a talk."""
        self.open += 1
        self.talks.append(Talk(self, sender))
        return self.talks[-1]


async def until(fact: Callable[[], bool]) -> None:
    """Wait for a fact."""
    await eventually(fact, seconds=20)


@asynccontextmanager
async def serving(
    service: Service, tls: TlsContext | None = None, **limits: Any
) -> AsyncIterator[tuple[NativeServer, int]]:
    """A server with the service, and its port; the end checks every talk."""
    server = NativeServer(
        {PATH: service}, host="127.0.0.1", tls=tls, limits=TransportLimits(**limits)
    )
    port = await server.start()
    try:
        yield server, port
    finally:
        await server.stop(0)
    ends = [len(talk.ends) for talk in service.talks]
    if service.open or ends != [1] * len(ends):
        raise AssertionError(f"not every handler was told of its end once: {ends}")


KEEP_ALIVE = [
    ("grpc.keepalive_time_ms", 1000),  # the library's least
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
]


class Pings:
    """Counts what clients ask; they look at nothing else once a stream is quiet."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.heard = 0
        receive = Http2.receive

        def counting(engine: Http2, data: bytes) -> Any:
            events = receive(engine, data)
            self.heard += sum(isinstance(event, PingReceived) for event in events)
            return events

        monkeypatch.setattr(Http2, "receive", counting)
