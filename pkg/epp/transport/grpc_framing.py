"""gRPC on HTTP/2, sans-I/O: request heads, length-prefixed messages, status trailers.

Nothing here knows streams or sockets. What a peer does wrong is a ``GrpcError`` with the status
that the stream is answered with.
Reference: the gRPC over HTTP/2 protocol specification; a compressed message without a known
encoding is UNIMPLEMENTED.
"""

import base64
import binascii
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import quote_from_bytes

from epp.transport.http2 import Header
from epp.transport.stream import Metadata, StatusCode

PREFIX_BYTES = 5
"""A flag and the length."""

HEADER_OVERHEAD = 32
"""What RFC 9113 adds to the length of every header field."""

RESPONSE_HEADERS: Sequence[Header] = (
    (b":status", b"200"),
    (b"content-type", b"application/grpc"),
    (b"grpc-accept-encoding", b"identity,gzip"),
)
TRAILERS_ONLY_HEADERS: Sequence[Header] = RESPONSE_HEADERS[:2]
"""With the status, the whole answer of a stream without messages."""

UNSUPPORTED_MEDIA_TYPE_BODY = b"this port speaks gRPC\n"
UNSUPPORTED_MEDIA_TYPE: Sequence[Header] = (
    (b":status", b"415"),
    (b"content-type", b"text/plain"),
    (b"content-length", b"%d" % len(UNSUPPORTED_MEDIA_TYPE_BODY)),
)
"""For requests that are no gRPC, with the body."""

_OK_TRAILERS: Sequence[Header] = ((b"grpc-status", b"0"),)
_GRPC_KINDS = (b"application/grpc+", b"application/grpc;")
_ENCODINGS = frozenset({b"identity", b"gzip"})
_TIMEOUT_UNITS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_MAX_TIMEOUT_DIGITS = 8
_MESSAGE_SAFE = "".join(chr(c) for c in range(0x20, 0x7F) if chr(c) != "%")
_RESERVED = (b":", b"grpc-")
_NOT_METADATA = frozenset({b"content-type", b"te", b"user-agent", b"content-length"})
_GZIP_WINDOW = 16 + zlib.MAX_WBITS


class GrpcError(Exception):
    """A stream cannot go on.

    Attributes:
        code: Status for the peer.
        before: Messages that were complete before the one at fault.
    """

    def __init__(self, code: StatusCode, details: str) -> None:
        super().__init__(details)
        self.code = code
        self.before: Sequence[bytes] = ()


@dataclass(frozen=True, slots=True)
class RequestHead:
    """What the headers of a request say.

    Attributes:
        path: ``/package.Service/Method``.
        timeout_seconds: Until when the peer waits, None for ever.
        gzip: Messages may be compressed.
    """

    path: str
    timeout_seconds: float | None
    gzip: bool


def check_size(headers: Sequence[Header], max_bytes: int, max_count: int) -> None:
    """Refuse a header list that is too large, as RFC 9113 counts. Raises GrpcError."""
    size = sum([len(name) + len(value) + HEADER_OVERHEAD for name, value in headers])
    if size > max_bytes or len(headers) > max_count:
        raise GrpcError(StatusCode.RESOURCE_EXHAUSTED, "the request headers are too large")


def parse_head(headers: Sequence[Header]) -> RequestHead | None:
    """Read the headers of a request; None when it is not gRPC at all. Raises GrpcError."""
    fields = dict(headers)
    kind = fields.get(b"content-type", b"")
    if kind != b"application/grpc" and not kind.startswith(_GRPC_KINDS):
        return None
    if fields.get(b":method") != b"POST":
        return None
    encoding = fields.get(b"grpc-encoding", b"identity")
    if encoding not in _ENCODINGS:
        raise GrpcError(
            StatusCode.UNIMPLEMENTED, f"grpc-encoding {_shown(encoding)} is not supported"
        )
    timeout = fields.get(b"grpc-timeout")
    return RequestHead(
        fields.get(b":path", b"").decode("latin-1"),
        None if timeout is None else parse_timeout(timeout),
        encoding == b"gzip",
    )


def parse_timeout(value: bytes) -> float:
    """Seconds of a ``grpc-timeout``. Raises GrpcError naming the value."""
    digits, unit = value[:-1], _TIMEOUT_UNITS.get(value[-1:])
    if unit is None or not digits.isdigit() or len(digits) > _MAX_TIMEOUT_DIGITS:
        raise GrpcError(StatusCode.INVALID_ARGUMENT, f"grpc-timeout {_shown(value)} is malformed")
    return int(digits) * unit


def metadata_of(headers: Sequence[Header]) -> Metadata:
    """The caller's own metadata; names end in ``-bin`` for bytes."""
    return tuple(
        (name.decode("latin-1"), _decoded(name, value))
        for name, value in headers
        if not name.startswith(_RESERVED) and name not in _NOT_METADATA
    )


def metadata_headers(metadata: Metadata) -> Sequence[Header]:
    """Our metadata as header fields."""
    return [
        (
            name.encode("latin-1"),
            base64.b64encode(value).rstrip(b"=") if isinstance(value, bytes) else value.encode(),
        )
        for name, value in metadata
    ]


def status_trailers(
    code: StatusCode, details: str = "", metadata: Metadata = ()
) -> Sequence[Header]:
    """Trailers that end a stream."""
    if code is StatusCode.OK and not details and not metadata:
        return _OK_TRAILERS
    trailers = [(b"grpc-status", b"%d" % code.value)]
    if details:
        trailers.append((b"grpc-message", encode_details(details)))
    if metadata:
        trailers += metadata_headers(metadata)
    return trailers


def encode_details(details: str) -> bytes:
    """Percent-encode a status message: printable ASCII but ``%`` stays."""
    return quote_from_bytes(details.encode(), safe=_MESSAGE_SAFE).encode("ascii")


def frame(payload: bytes) -> bytes:
    """One message with its prefix."""
    return b"\x00" + len(payload).to_bytes(4, "big") + payload


class Deframer:
    """Cuts the body of one request into messages, some at a time.

    Args:
        max_bytes: Largest message, compressed or not.
        gzip: Messages may be compressed.
        max_inflated_bytes: Largest message that comes compressed, where that is less.
        on_inflated: Told how many bytes inflating has made at most, whatever became of them.
        at_once: Messages that one call returns, or one that had to be inflated; None is no bound.

    Attributes:
        more: Others may have their turn; then ``feed`` is to be called again, with nothing.
    """

    __slots__ = (
        "_at_once",
        "_buffer",
        "_gzip",
        "_max_bytes",
        "_max_inflated_bytes",
        "_on_inflated",
        "_wanted",
        "more",
    )

    def __init__(
        self,
        max_bytes: int,
        *,
        gzip: bool = False,
        max_inflated_bytes: int | None = None,
        on_inflated: Callable[[int], None] | None = None,
        at_once: int | None = None,
    ) -> None:
        self.more = False
        self._buffer = bytearray()
        self._wanted = 0
        self._max_bytes = max_bytes
        self._gzip = gzip
        self._max_inflated_bytes = min(max_bytes, max_inflated_bytes or max_bytes)
        self._on_inflated = on_inflated
        self._at_once = at_once

    @property
    def buffered_bytes(self) -> int:
        """Bytes of a message that is not complete, or not yet cut."""
        return len(self._buffer)

    def feed(self, data: bytes) -> Sequence[bytes]:
        """Take body bytes, return the messages that are complete now, if so many are wanted.

        Raises:
            GrpcError: With the messages before the one at fault; nothing can be fed after it.
        """
        buffer = self._buffer
        if not buffer and len(data) >= PREFIX_BYTES:
            length = int.from_bytes(data[1:PREFIX_BYTES], "big")
            if len(data) == length + PREFIX_BYTES and length <= self._max_bytes:
                payload = data[PREFIX_BYTES:]
                return (payload,) if data[0] == 0 else (self._inflated(data[0], payload),)
        buffer += data
        if len(buffer) < self._wanted:
            return ()
        return self._cut(buffer)

    def _cut(self, buffer: bytearray) -> Sequence[bytes]:
        messages: list[bytes] = []
        try:
            start = self._cut_into(messages, buffer)
        except GrpcError as exc:
            exc.before = messages
            raise
        if start:
            del buffer[:start]
        return messages

    def _cut_into(self, messages: list[bytes], buffer: bytearray) -> int:
        """Append complete messages; return where the rest begins."""
        start = 0
        self._wanted = 0
        self.more = False
        with memoryview(buffer) as view:
            while len(buffer) - start >= PREFIX_BYTES:
                length = int.from_bytes(view[start + 1 : start + PREFIX_BYTES], "big")
                if length > self._max_bytes:
                    raise _too_large(length, self._max_bytes)
                end = start + PREFIX_BYTES + length
                if end > len(buffer):
                    self._wanted = end - start
                    break
                payload = bytes(view[start + PREFIX_BYTES : end])
                flag = buffer[start]
                messages.append(payload if flag == 0 else self._inflated(flag, payload))
                start = end
                if self.more or len(messages) == self._at_once:
                    self.more = True
                    break
        return start

    def _inflated(self, flag: int, payload: bytes) -> bytes:
        if flag != 1:
            raise GrpcError(StatusCode.INTERNAL, f"the compression flag {flag} is unknown")
        if not self._gzip:
            raise GrpcError(
                StatusCode.UNIMPLEMENTED, "a message is compressed, but no grpc-encoding says how"
            )
        most = self._max_inflated_bytes
        if len(payload) > most:
            raise _too_large(len(payload), most)
        self.more = self._at_once is not None
        inflater = zlib.decompressobj(_GZIP_WINDOW)
        try:
            plain = inflater.decompress(payload, most + 1)
            made = len(plain)
        except zlib.error as exc:
            made = most  # it does not tell
            raise GrpcError(StatusCode.INTERNAL, f"a message is not valid gzip: {exc}") from exc
        finally:
            if self._on_inflated is not None:
                self._on_inflated(made)
        if made > most:
            raise _too_large_inflated(most)
        if not inflater.eof:
            raise GrpcError(StatusCode.INTERNAL, "a message is truncated gzip")
        return plain


def _too_large(length: int, limit: int) -> GrpcError:
    return GrpcError(
        StatusCode.RESOURCE_EXHAUSTED, f"a message of {length} bytes is larger than {limit}"
    )


def _too_large_inflated(limit: int) -> GrpcError:
    return GrpcError(
        StatusCode.RESOURCE_EXHAUSTED, f"a compressed message is larger than {limit} bytes inflated"
    )


def _decoded(name: bytes, value: bytes) -> str | bytes:
    if not name.endswith(b"-bin"):
        return value.decode("latin-1")
    try:
        return base64.b64decode(value + b"=" * (-len(value) % 4), validate=True)
    except binascii.Error:
        return b""


def _shown(value: bytes, limit: int = 64) -> str:
    return repr(value[:limit].decode("latin-1"))
