"""One HTTP/1.1 connection of the metrics server: requests in, responses out, all bounded.

Only what scrapers, probes and people with curl need: GET and HEAD, keep-alive, pipelining, no
request bodies. Limits: bytes of a request head, time to send one, time to take a response. A
client that breaks a rule gets a plain error and the connection is closed.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

import httptools

from epp.logs import get_logger

log = get_logger(__name__)

MAX_REQUEST_BYTES = 16 * 1024
"""A request line with headers; what common servers allow."""

READ_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpLimits:
    """Patience with clients.

    Attributes:
        idle_seconds: For a whole request head to arrive, counted from the last response.
        write_seconds: For the client to take one piece of a response.
    """

    idle_seconds: float = 75.0
    write_seconds: float = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpRequest:
    """A request without a body.

    Attributes:
        method: As sent.
        path: Decoded, without query.
        query: Values by name.
        headers: Lower-case names; repeated ones joined with commas.
        keep_alive: The client wants to go on.
        chunked: The client understands chunked responses (HTTP/1.1).
    """

    method: str
    path: str
    query: Mapping[str, list[str]] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    keep_alive: bool = True
    chunked: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpResponse:
    """A response.

    Attributes:
        status: Code and phrase.
        content_type: Of the body.
        body: Whole, or a generator of pieces that are made while they are sent.
        headers: Further headers.
    """

    status: HTTPStatus = HTTPStatus.OK
    content_type: str = "text/plain; charset=utf-8"
    body: bytes | AsyncGenerator[bytes, None] = b""
    headers: Mapping[str, str] = field(default_factory=dict)


Responder = Callable[[HttpRequest], Awaitable[HttpResponse]]


def plain(status: HTTPStatus, text: str = "", **headers: str) -> HttpResponse:
    """A line of text; underscores in header names become dashes."""
    body = f"{text or status.phrase}\n".encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return HttpResponse(status=status, body=body, headers=named)


class BadHttpError(Exception):
    """The client sent something that ends the connection, after this status."""

    def __init__(self, status: HTTPStatus) -> None:
        super().__init__(status.phrase)
        self.status = status


class RequestReader:
    """Bytes in, requests out."""

    def __init__(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self._requests: deque[HttpRequest] = deque()
        self._url = b""
        self._headers: dict[str, str] = {}
        self._bytes = 0

    def feed(self, data: bytes) -> None:
        """Take bytes as they arrive. Raises BadHttpError."""
        self._bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._decline_upgrade()
        except httptools.HttpParserCallbackError as exc:
            cause = exc.__context__
            raise cause if isinstance(cause, BadHttpError) else _bad_request() from exc
        except httptools.HttpParserError as exc:
            raise _bad_request() from exc
        if not self._requests and self._bytes > MAX_REQUEST_BYTES:
            raise BadHttpError(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)

    def _decline_upgrade(self) -> None:
        """Answer an offer to switch protocols as a plain request, the last of its connection."""
        if self._requests:
            self._requests[-1] = replace(self._requests[-1], keep_alive=False)

    def next_request(self) -> HttpRequest | None:
        """The oldest complete request; None while there is none."""
        return self._requests.popleft() if self._requests else None

    def on_message_begin(self) -> None:
        """Called by the parser."""
        self._url, self._headers = b"", {}

    def on_url(self, url: bytes) -> None:
        """Called by the parser, possibly with a piece."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by the parser."""
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        self._headers[key] = f"{self._headers[key]},{text}" if key in self._headers else text

    def on_body(self, body: bytes) -> None:
        """Called by the parser: nothing that is served here takes a body."""
        if body:
            raise BadHttpError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)

    def on_message_complete(self) -> None:
        """Called by the parser."""
        self._bytes = 0
        target = _split_target(self._url)
        version = self._parser.get_http_version()
        self._requests.append(
            HttpRequest(
                method=self._parser.get_method().decode("latin-1"),
                path=unquote(target.path),
                query=parse_qs(target.query, max_num_fields=1000),
                headers=self._headers,
                keep_alive=self._parser.should_keep_alive(),
                chunked=version == "1.1",
            )
        )


def _bad_request() -> BadHttpError:
    return BadHttpError(HTTPStatus.BAD_REQUEST)


def _split_target(url: bytes) -> SplitResult:
    try:
        return urlsplit(url.decode("ascii"))
    except ValueError as exc:
        raise _bad_request() from exc


async def serve_connection(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    respond: Responder,
    limits: HttpLimits,
    is_stopping: Callable[[], bool],
    set_busy: Callable[[bool], None],
) -> None:
    """Answer requests until the client is done, breaks a rule or takes too long.

    Args:
        reader: Of the connection.
        writer: Of the connection; closed at the end.
        respond: Makes a response; must not raise.
        limits: Patience.
        is_stopping: True ends the connection after the response at hand.
        set_busy: Told True while a response is made and sent.
    """
    requests = RequestReader()
    try:
        while True:
            request = await _next_request(reader, requests, limits.idle_seconds)
            if request is None:
                return
            set_busy(True)
            keep = request.keep_alive and not is_stopping()
            await _send(writer, request, await respond(request), limits, keep_alive=keep)
            set_busy(False)
            if not keep or is_stopping():
                return
    except BadHttpError as exc:
        with contextlib.suppress(OSError, TimeoutError):
            goodbye = HttpRequest(method="GET", path="", keep_alive=False)
            await _send(writer, goodbye, plain(exc.status), limits, keep_alive=False)
    except (OSError, TimeoutError) as exc:
        log.debug("metrics client went away", error=exc)
    finally:
        await _close(writer, limits)


async def _close(writer: asyncio.StreamWriter, limits: HttpLimits) -> None:
    writer.close()
    try:
        with contextlib.suppress(OSError, TimeoutError):
            await asyncio.wait_for(writer.wait_closed(), limits.write_seconds)
    finally:
        writer.transport.abort()


async def _next_request(
    reader: asyncio.StreamReader, requests: RequestReader, idle_seconds: float
) -> HttpRequest | None:
    request = requests.next_request()
    if request is not None:
        return request
    began = False
    try:
        async with asyncio.timeout(idle_seconds):
            while request is None:
                data = await reader.read(READ_BYTES)
                if not data:
                    return None
                began = True
                requests.feed(data)
                request = requests.next_request()
    except TimeoutError:
        if began:
            raise BadHttpError(HTTPStatus.REQUEST_TIMEOUT) from None
        return None
    return request


async def _send(
    writer: asyncio.StreamWriter,
    request: HttpRequest,
    response: HttpResponse,
    limits: HttpLimits,
    *,
    keep_alive: bool,
) -> None:
    body = response.body
    headers = {"Content-Type": response.content_type, **response.headers}
    until_close = not isinstance(body, bytes) and not request.chunked
    if isinstance(body, bytes):
        headers["Content-Length"] = str(len(body))
    elif request.chunked:
        headers["Transfer-Encoding"] = "chunked"
    headers["Connection"] = "keep-alive" if keep_alive and not until_close else "close"
    lines = [f"HTTP/1.1 {response.status.value} {response.status.phrase}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    writer.write("\r\n".join([*lines, "", ""]).encode("latin-1"))
    if request.method != "HEAD":
        await _send_body(writer, body, limits, chunked=request.chunked)
    await _drain(writer, limits)


async def _send_body(
    writer: asyncio.StreamWriter,
    body: bytes | AsyncGenerator[bytes, None],
    limits: HttpLimits,
    *,
    chunked: bool,
) -> None:
    if isinstance(body, bytes):
        writer.write(body)
        return
    async with contextlib.aclosing(body):
        async for piece in body:
            if piece:
                writer.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
                await _drain(writer, limits)
    if chunked:
        writer.write(b"0\r\n\r\n")


async def _drain(writer: asyncio.StreamWriter, limits: HttpLimits) -> None:
    async with asyncio.timeout(limits.write_seconds):
        await writer.drain()
