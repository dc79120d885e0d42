"""HTTP requests of the supervisor to its own children: few, small, a connection each.

Not for traffic: the demo, the readiness polls and the tests use it, nothing on a hot path. The
answer is read while the request is still being written, so an early refusal is not lost.
"""

import asyncio
import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httptools

from epp.errors import TransportError

_READ_BYTES = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An answer, read whole."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    def json(self) -> Any:
        """Return the body as JSON. Raises TransportError when it is none."""
        try:
            return json.loads(self.body)
        except ValueError as exc:
            raise TransportError(f"not JSON: {self.body[:80]!r}") from exc


async def request(
    host: str,
    port: int,
    method: str,
    path: str,
    *,
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
    deadline_seconds: float = 10.0,
) -> Reply:
    """Send one request and read the whole answer.

    Raises:
        TransportError: No answer, or none in time.
    """
    url = f"{method} http://{host}:{port}{path}"
    head = _head(host, port, method, path, headers or {}, body)
    try:
        async with asyncio.timeout(deadline_seconds):
            return await _exchange(host, port, head + (body or b""))
    except TimeoutError as exc:
        raise TransportError(f"{url}: no whole answer within {deadline_seconds:g} s") from exc
    except (OSError, httptools.HttpParserError) as exc:
        raise TransportError(f"{url}: {exc}") from exc


async def get_json(host: str, port: int, path: str, *, deadline_seconds: float = 2.0) -> Any:
    """GET a JSON document. Raises TransportError for anything but a 200 with JSON."""
    reply = await request(host, port, "GET", path, deadline_seconds=deadline_seconds)
    if reply.status != 200:
        raise TransportError(f"{path} answered {reply.status}")
    return reply.json()


async def answers(host: str, port: int, path: str) -> bool:
    """Tell whether a GET answers 200 within a second."""
    try:
        return (await request(host, port, "GET", path, deadline_seconds=1.0)).status == 200
    except TransportError:
        return False


async def listens(host: str, port: int) -> bool:
    """Tell whether something takes connections there."""
    try:
        async with asyncio.timeout(1.0):
            _, writer = await asyncio.open_connection(host, port)
    except OSError:  # TimeoutError is one
        return False
    writer.transport.abort()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True


class _ReplyParser:
    """Collects one response from httptools' callbacks."""

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}
        self.body = bytearray()
        self.complete = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; the last value wins."""
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, data: bytes) -> None:
        """Keep a piece of the body."""
        self.body += data

    def on_message_complete(self) -> None:
        """Note the end."""
        self.complete = True


async def _exchange(host: str, port: int, data: bytes) -> Reply:
    reader, writer = await asyncio.open_connection(host, port)
    sending = asyncio.create_task(_send(writer, data), name="local request")
    try:
        sink = _ReplyParser()
        parser = httptools.HttpResponseParser(sink)
        while not sink.complete:
            piece = await reader.read(_READ_BYTES)
            if not piece:
                break
            parser.feed_data(piece)
        by_close = "content-length" not in sink.headers and "transfer-encoding" not in sink.headers
        if not sink.complete and not (by_close and sink.headers):
            raise ConnectionError("the connection ended before the answer did")
        return Reply(status=parser.get_status_code(), headers=sink.headers, body=bytes(sink.body))
    finally:
        sending.cancel()
        with contextlib.suppress(asyncio.CancelledError, OSError):
            await sending
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def _send(writer: asyncio.StreamWriter, data: bytes) -> None:
    """Write everything; a peer that stops reading early has said why."""
    with contextlib.suppress(ConnectionError):
        writer.write(data)
        await writer.drain()


def _head(
    host: str,
    port: int,
    method: str,
    path: str,
    headers: Mapping[str, str],
    body: bytes | None,
) -> bytes:
    named = f"[{host}]" if ":" in host else host
    lines = [f"{method} {path} HTTP/1.1", f"host: {named}:{port}", "connection: close"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if body is not None:
        lines.append(f"content-length: {len(body)}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
