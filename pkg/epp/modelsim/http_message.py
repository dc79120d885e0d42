"""Values of the HTTP server: a request read whole, and the responder that answers it."""

import socket
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Protocol
from urllib.parse import parse_qs

Headers = tuple[tuple[str, str], ...]

_LAST_CHUNK = b"0\r\n\r\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpRequest:
    """A request.

    Attributes:
        method: Upper case.
        path: Without the query.
        query: After the question mark, still encoded.
        headers: In order, names in lower case, repeated ones kept.
        body: The whole body, chunks joined.
        keep_alive: Whether the client wants the connection to stay open.
        has_chunks: Whether the client understands a chunked reply (HTTP/1.1).
    """

    method: str
    path: str
    query: str = ""
    headers: Headers = ()
    body: bytes = b""
    keep_alive: bool = True
    has_chunks: bool = True

    def header(self, name: str) -> str | None:
        """Return the first header of a name, given in lower case."""
        return next((value for key, value in self.headers if key == name), None)

    def query_values(self, name: str) -> tuple[str, ...]:
        """Return every value of a query parameter."""
        return tuple(parse_qs(self.query).get(name, ())) if self.query else ()


class Wire(Protocol):
    """What a responder needs of its connection."""

    def write(self, data: bytes) -> None:
        """Send bytes; ignored after the connection was lost."""

    def reply_finished(self, *, keep_alive: bool) -> None:
        """Go on with the next request, or close."""

    def reset(self) -> None:
        """Close the connection with a TCP reset."""


class Responder:
    """Answers one request, whole or as a stream. Every method is a no-op once it is ``gone``.

    Attributes:
        gone: The reply is complete, or the client is no longer there.
        status: Status of the reply; 0 until it has begun.
        sent_bytes: Body bytes of a whole reply; 0 for a stream.
        on_disconnect: Called once when the client leaves before the reply is complete.
        on_finished: Called once when the reply is complete.
    """

    def __init__(self, wire: Wire, request: HttpRequest, headers: Headers) -> None:
        self._wire = wire
        self._headers = headers
        self._is_head = request.method == "HEAD"
        self._chunked = request.has_chunks
        self._keep_alive = request.keep_alive
        self.gone = False
        self.status = 0
        self.sent_bytes = 0
        self.on_disconnect: Callable[[], None] | None = None
        self.on_finished: Callable[[], None] | None = None

    def close_after(self) -> None:
        """Close the connection after this reply."""
        self._keep_alive = False

    def send(
        self,
        status: int,
        body: bytes,
        *,
        content_type: str = "application/json",
        headers: Iterable[tuple[str, str]] = (),
    ) -> None:
        """Send a whole reply."""
        if self.gone:
            return
        extra = (("content-length", str(len(body))), ("content-type", content_type), *headers)
        self.sent_bytes = len(body)
        self._wire.write(self._head(status, extra) + (b"" if self._is_head else body))
        self._end()

    def start_stream(self, status: int, *, content_type: str) -> None:
        """Send the head of a reply whose body follows in pieces."""
        if self.gone:
            return
        headers = [("content-type", content_type)]
        if self._chunked:
            headers.append(("transfer-encoding", "chunked"))
        else:
            self._keep_alive = False  # only the end of the connection ends the body
        self._wire.write(self._head(status, headers))

    def write(self, data: bytes) -> None:
        """Send a piece of the body."""
        if self.gone or not data:
            return
        self._wire.write(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    def finish(self) -> None:
        """End a stream."""
        if self.gone:
            return
        if self._chunked:
            self._wire.write(_LAST_CHUNK)
        self._end()

    def reset(self) -> None:
        """Reset the connection instead of answering, or in the middle of the answer."""
        if not self.gone:
            self._wire.reset()

    def disconnected(self) -> None:
        """Say that the client is gone; called by the connection."""
        if self.gone:
            return
        self.gone = True
        if self.on_disconnect is not None:
            self.on_disconnect()

    def _head(self, status: int, extra: Iterable[tuple[str, str]]) -> bytes:
        self.status = status
        lines = [f"HTTP/1.1 {status} {_phrase(status)}\r\n"]
        lines += [f"{name}: {value}\r\n" for name, value in (*extra, *self._headers)]
        if not self._keep_alive:
            lines.append("connection: close\r\n")
        elif not self._chunked:
            lines.append("connection: keep-alive\r\n")
        return ("".join(lines) + "\r\n").encode("latin-1")

    def _end(self) -> None:
        self.gone = True
        if self.on_finished is not None:
            self.on_finished()
        self._wire.reply_finished(keep_alive=self._keep_alive)


Handler = Callable[[HttpRequest, Responder], None]


def reset_on_close(connection: socket.socket) -> None:
    """Make the next close of a socket send a TCP reset."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""
