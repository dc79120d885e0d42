"""ScrapeConnection: one TCP or TLS connection to a model server, a response at a time.

Everything happens in the event loop's callbacks: no task, future or queue per scrape. The owner
hears of each response, of each breach of protocol (the connection is closed then) and of the end.
"""

import asyncio
from collections.abc import Callable
from typing import Protocol, cast

from epp.backend.scrape_response import BadResponseError, Response, ResponseReader


class ConnectionOwner(Protocol):
    """Who is told what a connection does."""

    def connection_ready(self, connection: "ScrapeConnection") -> None:
        """It stands, the TLS handshake included: time to send."""
        ...

    def response_arrived(self, connection: "ScrapeConnection", response: Response) -> None:
        """A complete response; the connection is closed when it cannot be used again."""
        ...

    def response_failed(self, connection: "ScrapeConnection", problem: BadResponseError) -> None:
        """The peer broke HTTP or a limit; the connection is closed."""
        ...

    def connection_closed(self, connection: "ScrapeConnection", error: Exception | None) -> None:
        """The peer closed it. Not called after ``close``."""
        ...


class ScrapeConnection(asyncio.Protocol):
    """A keep-alive connection.

    Args:
        owner: Hears of everything until ``close``.
        max_page_bytes: Longest page.
        opened: Called when the connection stands.
        closed: Called once when it is gone, whoever closed it.
    """

    __slots__ = ("_closed", "_dead", "_opened", "_owner", "_reader", "_transport", "waiting")

    def __init__(
        self,
        owner: ConnectionOwner,
        max_page_bytes: int,
        *,
        opened: Callable[["ScrapeConnection"], None],
        closed: Callable[["ScrapeConnection"], None],
    ) -> None:
        self._owner = owner
        self._opened = opened
        self._closed = closed
        self._reader = ResponseReader(max_page_bytes)
        self._transport: asyncio.WriteTransport | None = None
        self._dead = False
        self.waiting = False

    @property
    def made(self) -> bool:
        """The connection stood at some time: its end is reported to the owner."""
        return self._transport is not None

    @property
    def answer_started(self) -> bool:
        """Bytes of the awaited response have come."""
        return self._reader.started

    def send(self, request: bytes) -> None:
        """Write a request; its response will be reported."""
        if self._transport is not None:
            self.waiting = True
            self._transport.write(request)

    def close(self) -> None:
        """End the connection at once; the owner hears no more of it."""
        self._dead = True
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Event loop callback."""
        self._transport = cast("asyncio.WriteTransport", transport)
        self._opened(self)
        if self._dead:
            self._transport.abort()
        else:
            self._owner.connection_ready(self)

    def data_received(self, data: bytes) -> None:
        """Event loop callback."""
        if self._dead:
            return
        try:
            if not self.waiting:
                self.close()
                self._owner.connection_closed(self, None)
            elif self._reader.feed(data):
                self._deliver()
        except BadResponseError as exc:
            self.close()
            self._owner.response_failed(self, exc)

    def connection_lost(self, exc: Exception | None) -> None:
        """Event loop callback."""
        self._closed(self)
        if self._dead:
            return
        self._dead = True
        try:
            if exc is None and self.waiting and self._reader.finish():
                self._deliver()
            else:
                self._owner.connection_closed(self, exc)
        except BadResponseError as problem:
            self._owner.response_failed(self, problem)

    def _deliver(self) -> None:
        response = self._reader.take()
        self.waiting = False
        if not response.keep_alive:
            self.close()
        self._owner.response_arrived(self, response)
