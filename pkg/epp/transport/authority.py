"""AuthorityMender: lets the engine take ``:authority`` values that are no host names.

A proxy names its cluster there, and in Istio that is ``outbound|9002||epp.demo.svc``. The engine
checks the field as RFC 3986 has it and ends the stream. Nothing here reads the field, so the
offending characters are replaced before the engine sees them; everything else passes as it came,
byte for byte.

A proxy says the same on every stream of a connection, because it has connections per cluster, and
the name is the cluster's unless it is set for all of its services. The first request decides: if
its value is valid, the mender has nothing to do and costs nothing from then on; a later stream with
another name is ended by the engine, and counted as such. Otherwise it follows the frames, and looks
for the field in each header block, where it stands once; encoders refer to it afterwards.
Reference: RFC 9113 section 4.1 and 6.2, RFC 7541 section 5 and 6.
"""

from hpack.exceptions import HPACKError
from hpack.hpack import decode_integer
from hpack.huffman_table import decode_huffman

PREFACE_BYTES = 24
FRAME_HEAD_BYTES = 9
MAX_HEADERS_BYTES = 16_384
"""The largest frame that the engine takes; a header block that is longer is left alone."""

_HEADERS = 1
_PADDED, _PRIORITY = 0x8, 0x20
_PRIORITY_BYTES = 5

_AUTHORITY = b":authority"
_AUTHORITY_INDEX = 1
"""Of the static table."""

_ALLOWED = frozenset(
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~!$&'()*+,;=:[]%"
)
_MENDED = bytes(byte if byte in _ALLOWED else ord("-") for byte in range(256))


class AuthorityMender:
    """Follows the bytes of one connection, from its first one.

    Attributes:
        active: It has something to do; once it has not, ``feed`` need not be called any more.
    """

    __slots__ = ("_held", "_seen", "_skip", "active")

    def __init__(self) -> None:
        self.active = True
        self._skip = PREFACE_BYTES
        self._held = b""
        self._seen = False

    def feed(self, data: bytes) -> bytes:
        """Take what the peer sent; return what the engine is to see of it now.

        A header frame is held until it is complete. Never raises: what cannot be understood is
        passed on, and the engine's to refuse.
        """
        if self._held:
            data, self._held = self._held + data, b""
        parts: list[bytes] = []
        start, at, size = 0, self._skip, len(data)
        while self.active and at < size:
            head_end = at + FRAME_HEAD_BYTES
            if head_end > size:
                break
            end = head_end + int.from_bytes(data[at : at + 3], "big")
            if data[at + 3] != _HEADERS or end - head_end > MAX_HEADERS_BYTES:
                at = end
                continue
            if end > size:
                break
            mended = self._mended(data[at:end])
            if mended is not None:
                parts += (data[start:at], mended)
                start = end
            at = end
        if self.active and at < size:
            self._held, self._skip = data[at:], 0
            data = data[:at]
        else:
            self._skip = at - size
        if not parts:
            return data
        parts.append(data[start:])
        return b"".join(parts)

    def _mended(self, frame: bytes) -> bytes | None:
        """The frame with a valid authority; None when it may stay as it is."""
        first, self._seen = not self._seen, True
        try:
            found = _find_authority(frame)
        except (HPACKError, IndexError):
            found = None
        if found is not None:
            start, end, value = found
            valid = value.translate(_MENDED)
            if valid != value:
                mended = _replaced(frame, start, end, valid)
                return mended if len(mended) <= FRAME_HEAD_BYTES + MAX_HEADERS_BYTES else None
        if first:
            self.active = False
        return None


def _find_authority(frame: bytes) -> tuple[int, int, bytes] | None:
    """Where the literal value of ``:authority`` stands in a HEADERS frame, and what it says.

    Raises:
        HPACKError: The header block is malformed. IndexError: It is cut short.
    """
    flags = frame[4]
    at, end = FRAME_HEAD_BYTES, len(frame)
    if flags & _PADDED:
        end -= frame[at]
        at += 1
    if flags & _PRIORITY:
        at += _PRIORITY_BYTES
    while at < end:
        kind = frame[at]
        if kind & 0x80:
            at += _integer(frame, at, 7)[1]
            continue
        if kind & 0xE0 == 0x20:
            at += _integer(frame, at, 5)[1]
            continue
        index, used = _integer(frame, at, 6 if kind & 0x40 else 4)
        at += used
        is_authority = index == _AUTHORITY_INDEX
        if index == 0:
            name, at = _string(frame, at)
            is_authority = name == _AUTHORITY
        start = at
        length, used = _integer(frame, at, 7)
        at += used + length
        if is_authority:
            return start, at, _string(frame, start)[0]
    return None


def _replaced(frame: bytes, start: int, end: int, value: bytes) -> bytes:
    """The frame with another literal between two positions, and its length put right."""
    literal = _plain_string(value)
    length = len(frame) - FRAME_HEAD_BYTES - (end - start) + len(literal)
    return length.to_bytes(3, "big") + frame[3:start] + literal + frame[end:]


def _plain_string(value: bytes) -> bytes:
    """A string literal without Huffman coding."""
    length = len(value)
    if length < 0x7F:
        return bytes((length,)) + value
    rest, digits = length - 0x7F, bytearray(b"\x7f")
    while rest >= 0x80:
        digits.append(rest & 0x7F | 0x80)
        rest >>= 7
    digits.append(rest)
    return bytes(digits) + value


def _string(frame: bytes, at: int) -> tuple[bytes, int]:
    length, used = _integer(frame, at, 7)
    start = at + used
    raw = frame[start : start + length]
    if len(raw) < length:
        raise IndexError
    return (decode_huffman(raw) if frame[at] & 0x80 else raw), start + length


def _integer(frame: bytes, at: int, prefix_bits: int) -> tuple[int, int]:
    """A number and how many bytes it takes."""
    low = (1 << prefix_bits) - 1
    value = frame[at] & low
    if value < low:
        return value, 1
    return decode_integer(frame[at : at + 8], prefix_bits)
