"""One HTTP/1.1 connection: bytes in, requests to the handler, replies out.

Owner of the parser, of the request that is being read and of those that wait for their turn.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import cast

import httptools

from epp.logs import get_logger
from epp.modelsim.http_message import Handler, Headers, HttpRequest, Responder, reset_on_close

log = get_logger(__name__)

_MAX_PIPELINED = 32
"""Complete requests waiting behind the one in work before reading stops."""
_MAX_HEAD_BYTES = 256 * 1024
"""Request line and headers; four times what a proxy lets through by default."""
_LINGER_SECONDS = 2.0
"""How long a client may go on sending after a refusal, so that it gets to read it."""


class HttpConnection(asyncio.Protocol):
    """A protocol of asyncio; see the module."""

    def __init__(
        self,
        handler: Handler,
        *,
        max_body_bytes: int,
        response_headers: Headers,
        opened: Callable[["HttpConnection"], None],
        lost: Callable[["HttpConnection"], None],
    ) -> None:
        self._handler = handler
        self._max_body_bytes = max_body_bytes
        self._response_headers = response_headers
        self._opened = opened
        self._lost = lost
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._ready: deque[HttpRequest] = deque()
        self._responder: Responder | None = None
        self._closing = False
        self._refused = False
        self._linger: asyncio.TimerHandle | None = None
        self._url = b""
        self._headers: list[tuple[str, str]] = []
        self._head_bytes = 0
        self._body: list[bytes] = []
        self._body_bytes = 0

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the transport."""
        self._transport = cast("asyncio.Transport", transport)
        self._opened(self)

    def data_received(self, data: bytes) -> None:
        """Feed the parser, then start what is complete."""
        if self._refused:
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._closing = True  # what follows is another protocol; the request itself is answered
        except httptools.HttpParserError:
            self._refuse(400, b"Invalid HTTP request received.")
        self._next()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Tell the request in work."""
        self._transport = None
        self._closing = True
        if self._linger is not None:
            self._linger.cancel()
        self._ready.clear()
        responder, self._responder = self._responder, None
        self._lost(self)
        if responder is not None:
            responder.disconnected()

    # What the parser calls

    def on_message_begin(self) -> None:
        """Start a request."""
        self._url = b""
        self._headers = []
        self._head_bytes = 0
        self._body = []
        self._body_bytes = 0

    def on_url(self, url: bytes) -> None:
        """Collect the target."""
        self._url += url
        self._count_head(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect a header."""
        text = value.decode("latin-1")
        self._headers.append((name.decode("latin-1").lower(), text))
        self._count_head(len(name) + len(value))

    def on_headers_complete(self) -> None:
        """Refuse a body that is announced too long; let a waiting client send its body."""
        for name, value in self._headers:
            if name == "content-length" and int(value) > self._max_body_bytes:
                self._refuse_body()
            elif name == "expect" and value.lower() == "100-continue" and not self._refused:
                self.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        """Collect a piece of the body."""
        self._body_bytes += len(body)
        if self._body_bytes > self._max_body_bytes:
            self._refuse_body()
        else:
            self._body.append(body)

    def on_message_complete(self) -> None:
        """Queue the request."""
        if self._refused:
            return
        path, _, query = _origin_form(self._url).partition("?")
        self._ready.append(
            HttpRequest(
                method=self._parser.get_method().decode("latin-1"),
                path=path,
                query=query,
                headers=tuple(self._headers),
                body=b"".join(self._body),
                keep_alive=self._parser.should_keep_alive(),
                has_chunks=self._parser.get_http_version() != "1.0",
            )
        )
        self._body = []

    # What a responder calls

    def write(self, data: bytes) -> None:
        """Send bytes."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def reply_finished(self, *, keep_alive: bool) -> None:
        """Go on with the next request, or close."""
        self._responder = None
        if self._transport is None:
            return
        if not keep_alive or self._closing:
            self._closing = True
            self._transport.close()
        elif self._ready:
            # Through the loop: a hundred pipelined requests must not nest a hundred calls.
            asyncio.get_running_loop().call_soon(self._next)

    def reset(self) -> None:
        """Close with a TCP reset."""
        if self._transport is not None:
            connection = self._transport.get_extra_info("socket")
            if connection is not None:
                reset_on_close(connection)
            self._transport.abort()

    # What the server calls

    def close_when_idle(self) -> None:
        """Close now, or after the reply in work."""
        self._closing = True
        self._ready.clear()
        if self._responder is not None:
            self._responder.close_after()
        elif self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    def _next(self) -> None:
        """Start the next request if none is in work, and keep reading in step with the queue."""
        if self._transport is None or self._transport.is_closing():
            return
        if self._responder is None and self._ready:
            request = self._ready.popleft()
            self._responder = responder = Responder(self, request, self._response_headers)
            if self._closing:
                responder.close_after()
            self._handle(request, responder)
        if len(self._ready) > _MAX_PIPELINED:
            self._transport.pause_reading()
        elif not self._transport.is_reading():
            self._transport.resume_reading()

    def _handle(self, request: HttpRequest, responder: Responder) -> None:
        # A defect must cost one request, neither the connection's next ones nor a silent client.
        try:
            self._handler(request, responder)
        except Exception as exc:
            log.error("request failed", path=request.path, error=exc)
            if responder.status:
                responder.reset()
            else:
                responder.send(500, b"Internal Server Error", content_type="text/plain")

    def _count_head(self, length: int) -> None:
        self._head_bytes += length
        if self._head_bytes > _MAX_HEAD_BYTES:
            self._refuse(431, b"Request headers are too long.")

    def _refuse_body(self) -> None:
        limit = self._max_body_bytes
        self._refuse(413, b"Request body is longer than %d bytes." % limit)

    def _refuse(self, status: int, text: bytes) -> None:
        """Answer outside the queue and close, after the client has had time to read it."""
        if self._refused or self._transport is None:
            return
        self._refused = self._closing = True
        self._ready.clear()
        if self._responder is not None:
            self._responder.close_after()
            return
        request = HttpRequest(method="", path="", keep_alive=True)
        refusal = Responder(_Discard(self), request, self._response_headers)
        refusal.close_after()
        refusal.send(status, text, content_type="text/plain; charset=utf-8")
        loop = asyncio.get_running_loop()
        self._linger = loop.call_later(_LINGER_SECONDS, self.abort)


class _Discard:
    """The wire of a refusal: the connection stays open for reading until the client closes it."""

    def __init__(self, connection: HttpConnection) -> None:
        self._connection = connection

    def write(self, data: bytes) -> None:
        self._connection.write(data)

    def reply_finished(self, *, keep_alive: bool) -> None:
        pass

    def reset(self) -> None:
        self._connection.reset()


def _origin_form(url: bytes) -> str:
    """Return path and query of a request target, which may be a whole URL."""
    if url.startswith(b"/"):
        return url.decode("latin-1")
    parsed = httptools.parse_url(url)
    query = b"?" + parsed.query if parsed.query else b""
    return ((parsed.path or b"/") + query).decode("latin-1")
