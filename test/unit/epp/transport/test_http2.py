"""The engine holds every limit that it is given, and its own defaults hold nobody."""

from collections.abc import Callable
from typing import Any

import pytest

from epp.testing.raw_http2 import (
    END_HEADERS,
    ENHANCE_YOUR_CALM,
    GRPC_HEADERS,
    PREFACE,
    Frame,
    Kind,
    data,
    frame,
    hpack,
    message,
    request,
    reset,
    settings,
)
from epp.transport.grpc_framing import RESPONSE_HEADERS
from epp.transport.http2 import Http2, Http2Error, RequestReceived
from epp.transport.limits import Rate, TransportLimits

PATH = b"/test.Service/Talk"
FIELDS = [(b":path", PATH), *GRPC_HEADERS]
REFUSED_STREAM, INTERNAL_ERROR = 0x7, 0x2
MAX_FRAME = 16_384


class Peer:
    """An engine and what it says, frame by frame."""

    def __init__(self, **limits: Any) -> None:
        self.engine = Http2(TransportLimits(**limits))
        self.greeting = self.tell(PREFACE, settings())

    def tell(self, *parts: bytes) -> list[Frame]:
        """What the engine says to this."""
        self.engine.receive(b"".join(parts))
        return self.heard()

    def heard(self) -> list[Frame]:
        out, frames, at = self.engine.data_to_send(), [], 0
        while at < len(out):
            end = at + 9 + int.from_bytes(out[at : at + 3], "big")
            stream_id = int.from_bytes(out[at + 5 : at + 9], "big")
            frames.append(Frame(out[at + 3], out[at + 4], stream_id, out[at + 9 : end]))
            at = end
        return frames

    def end_of(self, *parts: bytes) -> int | None:
        """The error code that the connection ends with; None when it lives on."""
        try:
            found = [said.code for said in self.tell(*parts) if said.kind == Kind.GOAWAY]
        except Http2Error as exc:
            return exc.code
        return found[0] if found else None


def pings(count: int) -> bytes:
    return frame(Kind.PING, 0, 0, b"12345678") * count


def entries(count: int) -> bytes:
    return settings(dict.fromkeys(range(100, 100 + count), 1))


def continuations(count: int) -> bytes:
    between = frame(Kind.CONTINUATION, 0, 1) * (count - 1)
    return (
        frame(Kind.HEADERS, 0, 1, hpack(FIELDS))
        + between
        + frame(Kind.CONTINUATION, END_HEADERS, 1)
    )


def resets(count: int) -> bytes:
    ids = range(1, 2 * count + 1, 2)
    return b"".join(request(n, PATH) + reset(n) for n in ids)


def pointless(count: int) -> bytes:
    return frame(Kind.PRIORITY, 0, 1, b"\0\0\0\3\1") * count


def long_list(size: int) -> bytes:
    """A header list of so many bytes, as RFC 9113 counts."""
    rest = size - sum(len(name) + len(value) + 32 for name, value in FIELDS)
    whole, last = divmod(rest, 1_000)
    lengths = [1_000] * (whole - 1) + [1_000 + last]
    block = hpack([*FIELDS, *((b"a", b"x" * (length - 33)) for length in lengths)])
    parts = [block[at : at + MAX_FRAME] for at in range(0, len(block), MAX_FRAME)]
    kinds = [Kind.HEADERS] + [Kind.CONTINUATION] * (len(parts) - 1)
    ends = [0] * (len(parts) - 1) + [END_HEADERS]
    return b"".join(map(frame, kinds, ends, [1] * len(parts), parts))


def many_fields(count: int) -> bytes:
    extra = [(b"h%d" % n, b"") for n in range(count - len(GRPC_HEADERS) - 1)]
    return request(1, PATH, extra=extra)


FIVE = Rate(burst=5, per_second=0)


@pytest.mark.parametrize(
    ("limits", "build", "most", "code"),
    [
        pytest.param({"max_unsent_acks": 20}, pings, 20, ENHANCE_YOUR_CALM, id="unsent-acks"),
        pytest.param({"max_settings": 4}, entries, 4, ENHANCE_YOUR_CALM, id="settings"),
        pytest.param({"max_settings": 50}, entries, 50, ENHANCE_YOUR_CALM, id="more-settings"),
        pytest.param(
            {"max_continuations": 2}, continuations, 2, ENHANCE_YOUR_CALM, id="continuations"
        ),
        pytest.param({"glitches": FIVE}, pointless, 5, ENHANCE_YOUR_CALM, id="glitches"),
        pytest.param({"resets": FIVE}, resets, 10, INTERNAL_ERROR, id="twice-the-resets"),
        pytest.param(
            {"fatal_header_bytes": 2_000}, long_list, 2_000, ENHANCE_YOUR_CALM, id="header-bytes"
        ),
        pytest.param(
            {"fatal_header_bytes": 99_000}, long_list, 99_000, ENHANCE_YOUR_CALM, id="long-headers"
        ),
        pytest.param(
            {"fatal_header_count": 20}, many_fields, 20, ENHANCE_YOUR_CALM, id="header-count"
        ),
    ],
)
def test_a_limit_holds_to_the_last_one(
    limits: dict[str, Any], build: Callable[[int], bytes], most: int, code: int
) -> None:
    within, beyond = Peer(**limits), Peer(**limits)

    assert within.end_of(build(most)) is None
    assert beyond.end_of(build(most + 1)) == code


def test_the_limits_that_a_peer_can_keep_to_are_announced() -> None:
    limits = {"max_streams": 77, "stream_window_bytes": 1 << 20, "max_header_bytes": 5_000}
    greeting = Peer(connection_window_bytes=3 << 20, **limits).greeting
    said = next(found for found in greeting if found.kind == Kind.SETTINGS and not found.flags)
    window = next(found for found in greeting if found.kind == Kind.WINDOW_UPDATE)
    pairs = [said.payload[at : at + 6] for at in range(0, len(said.payload), 6)]

    announced = {int.from_bytes(p[:2], "big"): int.from_bytes(p[2:], "big") for p in pairs}

    assert (
        announced
        | {
            3: 77,  # MAX_CONCURRENT_STREAMS
            4: 1 << 20,  # INITIAL_WINDOW_SIZE
            6: 5_000,  # MAX_HEADER_LIST_SIZE
            9: 1,  # NO_RFC7540_PRIORITIES
        }
        == announced
    )
    assert int.from_bytes(window.payload, "big") == (3 << 20) - 65_535


def test_a_stream_above_the_number_is_refused_and_hurts_no_other() -> None:
    peer = Peer(max_streams=3)

    said = peer.tell(*(request(n, PATH) for n in (1, 3, 5, 7)))
    peer.tell(reset(3))
    events = peer.engine.receive(request(9, PATH))

    assert [(f.kind, f.stream_id, f.code) for f in said] == [(Kind.RST_STREAM, 7, REFUSED_STREAM)]
    assert [type(event) for event in events] == [RequestReceived]


def test_a_gateway_may_reset_each_of_many_streams_after_its_answer() -> None:
    """Envoy does; the engine's own limit is 1,000 of them, and 33 more a second."""
    peer = Peer()

    for stream_id in range(1, 10_001, 2):
        peer.tell(request(stream_id, PATH), data(stream_id, message(b"x")))
        answered = peer.engine.respond(stream_id, RESPONSE_HEADERS, end_stream=False)
        assert answered and peer.engine.send(stream_id, message(b"y"))
        assert [said.kind for said in peer.heard()] == [Kind.HEADERS, Kind.DATA]
        assert peer.tell(reset(stream_id)) == []

    assert peer.engine.usable


def test_a_gateway_may_send_many_pointless_frames() -> None:
    """The engine's own limit is 10,000, and 330 more a second; ours is well above."""
    assert Peer().end_of(pointless(40_000)) is None
