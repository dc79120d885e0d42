"""RawPeer: an HTTP/2 client that does what no library would, frame by frame.

It knows no flow control and no header compression but what a test writes. Frames of the server
are read as they are; header blocks stay packed.
"""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

END_STREAM = 0x1
ACK = 0x1
END_HEADERS = 0x4

ENHANCE_YOUR_CALM = 0xB
CANCEL = 0x8
PROTOCOL_ERROR = 0x1

GRPC_HEADERS = (
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":authority", b"test"),
    (b"content-type", b"application/grpc"),
    (b"te", b"trailers"),
)

READ_SECONDS = 20.0


class Kind(IntEnum):
    """Frame types."""

    DATA = 0
    HEADERS = 1
    PRIORITY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9
    PRIORITY_UPDATE = 16


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame, as it came."""

    kind: int
    flags: int
    stream_id: int
    payload: bytes

    @property
    def code(self) -> int:
        """Error code of RST_STREAM and GOAWAY."""
        at = 4 if self.kind == Kind.GOAWAY else 0
        return int.from_bytes(self.payload[at : at + 4], "big")


def frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    """Any frame."""
    head = len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream_id.to_bytes(4, "big")
    return head + payload


def settings(values: Mapping[int, int] | None = None) -> bytes:
    """SETTINGS."""
    pairs = (values or {}).items()
    payload = b"".join(k.to_bytes(2, "big") + v.to_bytes(4, "big") for k, v in pairs)
    return frame(Kind.SETTINGS, 0, 0, payload)


def request(
    stream_id: int,
    path: bytes,
    *,
    end: bool = False,
    extra: Iterable[tuple[bytes, bytes]] = (),
) -> bytes:
    """HEADERS of a gRPC request."""
    fields = (*GRPC_HEADERS, (b":path", path))
    block = hpack(sorted((*fields, *extra), key=lambda field: not field[0].startswith(b":")))
    return frame(Kind.HEADERS, END_HEADERS | (END_STREAM if end else 0), stream_id, block)


def data(stream_id: int, payload: bytes, *, end: bool = False) -> bytes:
    """DATA."""
    return frame(Kind.DATA, END_STREAM if end else 0, stream_id, payload)


def message(payload: bytes) -> bytes:
    """One gRPC message, to be put into DATA."""
    return b"\x00" + len(payload).to_bytes(4, "big") + payload


def window_update(stream_id: int, increment: int) -> bytes:
    """WINDOW_UPDATE."""
    return frame(Kind.WINDOW_UPDATE, 0, stream_id, increment.to_bytes(4, "big"))


def reset(stream_id: int, code: int = CANCEL) -> bytes:
    """RST_STREAM."""
    return frame(Kind.RST_STREAM, 0, stream_id, code.to_bytes(4, "big"))


def hpack(fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Header fields without any compression."""
    return b"".join(b"\x00" + _text(name) + _text(value) for name, value in fields)


def hpack_indexed(name: bytes, value: bytes) -> bytes:
    """A field that the decoder remembers; the byte ``0xBE`` repeats the latest of these."""
    return b"\x40" + _text(name) + _text(value)


def _text(value: bytes) -> bytes:
    length = len(value)
    if length < 0x7F:
        return bytes((length,)) + value
    length -= 0x7F
    out = bytearray(b"\x7f")
    while length >= 0x80:
        out.append(0x80 | (length & 0x7F))
        length >>= 7
    out.append(length)
    return bytes(out) + value


class RawPeer:
    """One connection.

    Args:
        reader: Of the connection.
        writer: Of the connection.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, *parts: bytes) -> None:
        """Write, and wait until the socket takes it; a connection that is gone is no error."""
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            self._writer.write(b"".join(parts))
            await self._writer.drain()

    async def read(self) -> Frame | None:
        """Next frame; None when the connection is over."""
        try:
            async with asyncio.timeout(READ_SECONDS):
                head = await self._reader.readexactly(9)
                payload = await self._reader.readexactly(int.from_bytes(head[:3], "big"))
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            return None
        return Frame(head[3], head[4], int.from_bytes(head[5:9], "big"), payload)

    async def read_until(self, kind: Kind, stream_id: int | None = None) -> Frame:
        """Next frame of this kind; the others are dropped. Raises ConnectionError at the end."""
        while (found := await self.read()) is not None:
            if found.kind == kind and stream_id in {None, found.stream_id}:
                return found
        raise ConnectionError(f"the connection ended without {kind.name}")

    async def read_body(self, stream_id: int, length: int) -> bytes:
        """This much body of a stream; other frames are dropped."""
        body = b""
        while len(body) < length:
            body += (await self.read_until(Kind.DATA, stream_id)).payload
        return body

    async def read_ends(self, count: int) -> None:
        """So many ends of streams; other frames are dropped."""
        while count and (found := await self.read()) is not None:
            ends = found.kind in {Kind.HEADERS, Kind.DATA} and found.flags & END_STREAM
            count -= bool(ends or found.kind == Kind.RST_STREAM)

    async def rest(self) -> list[Frame]:
        """Everything until the connection is over."""
        frames = []
        while (found := await self.read()) is not None:
            frames.append(found)
        return frames

    async def settle(self) -> None:
        """Return when the server has heard everything sent so far."""
        await self.send(frame(Kind.PING, 0, 0, b"settled?"))
        while (await self.read_until(Kind.PING)).payload != b"settled?":
            pass

    def close(self) -> None:
        """Leave."""
        self._writer.close()

    def abort(self) -> None:
        """Leave without a word."""
        self._writer.transport.abort()


@contextlib.asynccontextmanager
async def raw_peer(
    port: int,
    *,
    greeting: bytes = PREFACE + settings(),
    tls: ssl.SSLContext | None = None,
    receive_buffer: int | None = None,
) -> AsyncIterator[RawPeer]:
    """Connect to a port of this machine.

    Args:
        port: Where.
        greeting: What to begin with.
        tls: TLS; None is plain text.
        receive_buffer: Size of the socket's buffer, for slow readers.
    """
    client = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    if receive_buffer is not None:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    client.setblocking(False)
    loop = asyncio.get_running_loop()
    try:
        await loop.sock_connect(client, ("127.0.0.1", port))
    except BaseException:
        client.close()
        raise
    limit = receive_buffer or 1 << 20
    name = None if tls is None else "localhost"
    reader, writer = await asyncio.open_connection(
        sock=client, ssl=tls, server_hostname=name, limit=limit
    )
    peer = RawPeer(reader, writer)
    try:
        await peer.send(greeting)
        yield peer
    finally:
        writer.transport.abort()
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await writer.wait_closed()
