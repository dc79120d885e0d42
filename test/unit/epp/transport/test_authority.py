"""The mender of ``:authority``: what the engine sees, whatever the split into reads."""

import ngh2
import pytest
from hpack import Encoder
from hypothesis import given
from hypothesis import strategies as st

from epp.transport.authority import AuthorityMender

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
ISTIO = "outbound|9002||epp.demo.svc.cluster.local"


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    head = len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big")
    return head + payload


def request(
    encoder: Encoder, stream: int, authority: str, *, huffman: bool = True, padding: bytes = b""
) -> bytes:
    """A request's HEADERS and one DATA frame."""
    fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/a.B/C"),
        (":authority", authority),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ]
    block = encoder.encode(fields, huffman=huffman)
    flags = 0x4
    if padding:
        flags |= 0x8
        block = bytes((len(padding),)) + block + padding
    return frame(1, flags, stream, block) + frame(0, 1, stream, b"\x00\x00\x00\x00\x02|a")


def conversation(*authorities: str, huffman: bool = True, padding: bytes = b"") -> bytes:
    encoder = Encoder()
    return (
        PREFACE
        + SETTINGS
        + b"".join(
            request(encoder, 2 * number + 1, authority, huffman=huffman, padding=padding)
            for number, authority in enumerate(authorities)
        )
    )


def authorities_seen(data: bytes) -> list[bytes]:
    """What an engine makes of a peer's bytes."""
    engine = ngh2.Connection(ngh2.Role.SERVER, ngh2.Configuration())
    engine.initiate_connection({})
    engine.receive_data(data)
    events = engine.events()
    return [
        dict(event.headers)[b":authority"]
        for event in events
        if isinstance(event, ngh2.RequestReceived)
    ]


def fed(data: bytes, *cuts: int) -> bytes:
    """What a mender passes on of a peer's bytes, cut into reads."""
    mender, out = AuthorityMender(), b""
    edges = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
    for start, end in zip(edges, edges[1:], strict=False):
        out += mender.feed(data[start:end])
    return out


def test_the_engine_refuses_what_istio_says() -> None:
    assert authorities_seen(conversation(ISTIO)) == []


@pytest.mark.parametrize("huffman", [True, False])
@pytest.mark.parametrize("padding", [b"", b"\x00" * 7])
def test_a_cluster_name_becomes_a_host_name_on_every_stream(huffman: bool, padding: bytes) -> None:
    data = conversation(ISTIO, ISTIO, "other|1", huffman=huffman, padding=padding)

    seen = authorities_seen(fed(data))

    assert seen == [
        b"outbound-9002--epp.demo.svc.cluster.local",
        b"outbound-9002--epp.demo.svc.cluster.local",
        b"other-1",
    ]


@pytest.mark.parametrize("authority", ["epp.demo:9002", "[::1]:9002", "epp_1", "a%20b"])
def test_a_valid_first_value_ends_the_work(authority: str) -> None:
    data = conversation(authority, authority)
    mender = AuthorityMender()

    assert mender.feed(data) == data
    assert not mender.active
    assert authorities_seen(data) == [authority.encode()] * 2


def test_bodies_are_never_touched() -> None:
    out = fed(conversation(ISTIO, ISTIO))

    assert out.count(b"\x00\x00\x00\x00\x02|a") == 2


@given(st.lists(st.integers(min_value=1, max_value=600), max_size=30))
def test_any_split_into_reads_gives_the_same_bytes(cuts: list[int]) -> None:
    data = conversation(ISTIO, ISTIO, "b|c", ISTIO)

    assert fed(data, *cuts) == fed(data)


def test_every_byte_that_the_engine_takes_stays_and_every_other_is_replaced() -> None:
    for byte in range(0x21, 0x7F):
        authority = f"a{chr(byte)}b"
        data = conversation(authority)
        taken = authorities_seen(data)
        mended = authorities_seen(fed(data))

        assert mended in ([authority.encode()], [b"a-b"])
        if not taken:
            assert mended == [b"a-b"]


def test_long_values_keep_their_length() -> None:
    authority = "x|" * 200

    assert authorities_seen(fed(conversation(authority))) == [b"x-" * 200]


def test_a_frame_that_would_outgrow_the_engine_is_left_alone() -> None:
    """Its reset costs one stream, a frame that is too large the connection."""
    authority = "a|" + "e" * 20_000  # Huffman makes five bits of each
    data = conversation(authority)

    assert len(data) < 16_384
    assert fed(data) == data


def test_the_first_name_decides_for_its_connection() -> None:
    """To follow every connection would cost all of them what hardly one needs."""
    data = conversation("epp:9002", ISTIO)

    assert authorities_seen(fed(data)) == [b"epp:9002"]


@given(st.binary(max_size=300), st.lists(st.integers(min_value=1, max_value=300), max_size=5))
def test_no_bytes_make_it_raise_or_lose_any(garbage: bytes, cuts: list[int]) -> None:
    data = conversation(ISTIO) + garbage
    clean = fed(conversation(ISTIO))

    out = fed(data, *cuts)

    assert out.startswith(clean)


@given(st.binary(max_size=80))
def test_a_malformed_header_block_is_left_to_the_engine(block: bytes) -> None:
    data = PREFACE + SETTINGS + frame(1, 0x4, 1, block)

    out = fed(data)

    assert out[: len(PREFACE + SETTINGS)] == PREFACE + SETTINGS
