"""A small HTTP/1.1 server: asyncio protocols around the httptools parser, no tasks.

Owner of the listening socket and of every connection. A handler gets a whole request and a
``Responder``; it answers then or later, from any callback. Requests of one connection are handled
one after the other, pipelined ones wait.

Invariants: a connection has at most one request in work; when it is lost, the responder in work is
told once; nothing is timed while a connection idles.
"""

import asyncio
from contextlib import suppress

from epp.modelsim.http_connection import HttpConnection
from epp.modelsim.http_message import Handler, Headers


class HttpServer:
    """Listens on one address."""

    def __init__(self, handler: Handler, *, max_body_bytes: int, response_headers: Headers) -> None:
        self._handler = handler
        self._max_body_bytes = max_body_bytes
        self._response_headers = response_headers
        self._connections: set[HttpConnection] = set()
        self._server: asyncio.Server | None = None
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def connections(self) -> int:
        """Open connections."""
        return len(self._connections)

    async def start(self, host: str, port: int) -> tuple[str, int]:
        """Listen; returns the address, with the port that was chosen for 0.

        Raises:
            OSError: The address cannot be used.
        """
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._connection, host, port, backlog=1024)
        address = self._server.sockets[0].getsockname()
        return str(address[0]), int(address[1])

    async def stop(self, drain_seconds: float = 0.0) -> None:
        """Stop listening, let requests in work finish for a while, then close what is left."""
        if self._server is None:
            return
        self._server.close()
        for connection in list(self._connections):
            connection.close_when_idle()
        if drain_seconds > 0:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._empty.wait(), drain_seconds)
        for connection in list(self._connections):
            connection.abort()
        await self._empty.wait()
        await self._server.wait_closed()
        self._server = None

    def _connection(self) -> HttpConnection:
        return HttpConnection(
            self._handler,
            max_body_bytes=self._max_body_bytes,
            response_headers=self._response_headers,
            opened=self._opened,
            lost=self._lost,
        )

    def _opened(self, connection: HttpConnection) -> None:
        self._connections.add(connection)
        self._empty.clear()

    def _lost(self, connection: HttpConnection) -> None:
        self._connections.discard(connection)
        if not self._connections:
            self._empty.set()
