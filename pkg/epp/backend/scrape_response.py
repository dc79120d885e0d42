"""ResponseReader: bytes of a connection in, complete HTTP/1.x responses out. No I/O.

Bounds what a peer can make us hold: the head, the body as sent, the body after decompression.
``httptools`` (llhttp) checks the grammar. One reader serves one connection, one response at a
time; 1xx answers are skipped.
"""

import zlib
from typing import NamedTuple

import httptools

from epp.backend.scrape_errors import ScrapeFailure

MAX_HEAD_BYTES = 64 * 1024
"""Longest status line and headers, interim answers included; other servers allow 8 to 64 KiB."""
_GZIP_WBITS = 31


class BadResponseError(Exception):
    """The bytes are not a response that we accept."""

    def __init__(self, reason: ScrapeFailure, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


class Response(NamedTuple):
    """A complete response.

    Attributes:
        status: HTTP status.
        body: Decompressed.
        location: Target of a redirect; empty without one.
        keep_alive: The connection may be used again.
    """

    status: int
    body: bytes
    location: str
    keep_alive: bool


class ResponseReader:
    """Reads the responses of one connection.

    Args:
        max_body_bytes: Longest body, before and after decompression.
    """

    __slots__ = (
        "_body",
        "_body_bytes",
        "_complete",
        "_encoding",
        "_framed",
        "_head_bytes",
        "_head_done",
        "_keep_alive",
        "_location",
        "_max_body_bytes",
        "_overrun",
        "_parser",
        "_problem",
    )

    def __init__(self, max_body_bytes: int) -> None:
        self._max_body_bytes = max_body_bytes
        self._parser = httptools.HttpResponseParser(self)
        self._reset()

    def _reset(self) -> None:
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._head_bytes = 0
        self._head_done = False
        self._complete = False
        self._framed = False
        self._keep_alive = False
        self._overrun = False
        self._encoding = b""
        self._location = b""
        self._problem: BadResponseError | None = None

    @property
    def started(self) -> bool:
        """At least one byte of a response has come."""
        return self._head_done or self._head_bytes > 0

    def feed(self, data: bytes) -> bool:
        """Take bytes.

        Returns:
            True when a response is complete.

        Raises:
            BadResponseError: The bytes break HTTP or a limit; the connection is of no more use.
        """
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as exc:
            if not self._complete and self._problem is None:
                self._fail(ScrapeFailure.PROTOCOL, f"not an HTTP/1.x response: {exc}")
            self._keep_alive = False
        if self._problem is not None:
            raise self._problem
        if not self._head_done:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                raise BadResponseError(ScrapeFailure.TOO_LARGE, "the response head is too long")
        return self._complete

    def finish(self) -> bool:
        """The peer closed in order: a body without a length is complete now."""
        if self._head_done and not self._framed and not self._complete:
            self._complete, self._keep_alive = True, False
        return self._complete

    def take(self) -> Response:
        """Hand out the complete response and get ready for the next one.

        Raises:
            BadResponseError: The body cannot be decompressed, or not within the limit.
        """
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        if self._encoding:
            body = _gunzip(body, self._max_body_bytes)
        response = Response(
            self._parser.get_status_code(),
            body,
            self._location.decode("latin-1"),
            self._keep_alive and not self._overrun,
        )
        self._reset()
        return response

    def on_message_begin(self) -> None:
        """Parser callback: a further response behind a complete one is nobody's."""
        if self._complete:
            self._overrun = True

    def on_header(self, name: bytes, value: bytes) -> None:
        """Parser callback; the headers of trailers and of unasked responses do not count."""
        if self._head_done:
            return
        match name.lower():
            case b"content-length":
                self._framed = True
                if int(value) > self._max_body_bytes:
                    self._fail_too_large()
            case b"transfer-encoding":
                self._framed = True
                if value.strip().lower() != b"chunked":
                    self._fail(ScrapeFailure.PROTOCOL, f"transfer-encoding {value!r}")
            case b"content-encoding":
                self._set_encoding(value.strip().lower())
            case b"location":
                self._location = value
            case _:
                pass

    def on_headers_complete(self) -> None:
        """Parser callback; the head of an interim answer is not the head."""
        if self._parser.get_status_code() >= 200:
            self._head_done = True
        elif not self._head_done:
            self._framed, self._encoding, self._location = False, b"", b""

    def on_body(self, data: bytes) -> None:
        """Parser callback."""
        if self._complete:
            return
        self._body_bytes += len(data)
        if self._body_bytes > self._max_body_bytes:
            self._body.clear()
            self._fail_too_large()
        else:
            self._body.append(data)

    def on_message_complete(self) -> None:
        """Parser callback."""
        if self._head_done and not self._complete:
            self._complete = True
            self._keep_alive = self._parser.should_keep_alive()

    def _set_encoding(self, encoding: bytes) -> None:
        if encoding in {b"gzip", b"x-gzip"}:
            self._encoding = encoding
        elif encoding not in {b"", b"identity"}:
            self._fail(ScrapeFailure.PROTOCOL, f"content-encoding {encoding!r}")

    def _fail_too_large(self) -> None:
        self._fail(ScrapeFailure.TOO_LARGE, f"the page exceeds {self._max_body_bytes} bytes")

    def _fail(self, reason: ScrapeFailure, detail: str) -> None:
        if self._problem is None:
            self._problem = BadResponseError(reason, detail)


def _gunzip(body: bytes, limit: int) -> bytes:
    """Decompress every member of a gzip body, never producing more than ``limit`` bytes."""
    pages: list[bytes] = []
    room = limit
    while body:
        member = zlib.decompressobj(_GZIP_WBITS)
        try:
            page = member.decompress(body, room + 1)
        except zlib.error as exc:
            raise BadResponseError(ScrapeFailure.PROTOCOL, f"broken gzip body: {exc}") from exc
        room -= len(page)
        if room < 0:
            raise BadResponseError(ScrapeFailure.TOO_LARGE, f"the page exceeds {limit} bytes")
        if not member.eof:
            raise BadResponseError(ScrapeFailure.PROTOCOL, "the gzip body is cut short")
        pages.append(page)
        body = member.unused_data
    return b"".join(pages)
