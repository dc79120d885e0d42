"""TLS of the native server: real handshakes on both event loops."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from structlog.testing import capture_logs

from epp.errors import TransportError
from epp.testing.authority import Authority
from epp.testing.raw_http2 import Kind, RawPeer, data, message, raw_peer, request
from epp.transport.limits import TransportLimits
from epp.transport.native_server import NativeServer
from epp.transport.tls_context import TlsContext

PATH = b"/test.Service/Talk"
SERVER_CA = Authority("server ca")
OTHER_CA = Authority("other ca")
PAIR = SERVER_CA.issue("epp", hosts=["localhost"])
OTHER_PAIR = OTHER_CA.issue("epp", hosts=["localhost"])
CLIENT_CA = Authority("client ca")


def context(**changes: Any) -> TlsContext:
    return TlsContext(**{"certificate": PAIR.certificate, "key": PAIR.key, **changes})


def client(authority: Authority = SERVER_CA, alpn: tuple[str, ...] = ("h2",)) -> ssl.SSLContext:
    trusting = ssl.create_default_context(cadata=authority.pem.decode())
    trusting.set_alpn_protocols(list(alpn))
    return trusting


@asynccontextmanager
async def serving(tls: TlsContext | None, service: Any, **limits: Any) -> AsyncIterator[Any]:
    server = NativeServer(
        {PATH.decode(): service}, host="127.0.0.1", tls=tls, limits=TransportLimits(**limits)
    )
    port = await server.start()
    try:
        yield server, port
    finally:
        await server.stop(0)


async def answered(peer: RawPeer, stream_id: int = 1) -> bool:
    await peer.send(request(stream_id, PATH), data(stream_id, message(b"x")))
    return await peer.read_body(stream_id, 6) == message(b"x")


def object_of(peer: RawPeer) -> Any:
    return peer._writer.get_extra_info("ssl_object")


async def counted(server: NativeServer, kind: str) -> None:
    async with asyncio.timeout(10):
        while not server.stats.errors[kind]:
            await asyncio.sleep(0.005)


async def test_a_connection_speaks_http2_over_tls(tally: Any) -> None:
    async with serving(context(), tally()) as (_, port), raw_peer(port, tls=client()) as peer:
        ok = await answered(peer)
        agreed = object_of(peer).selected_alpn_protocol()
        version = object_of(peer).version()

    assert ok
    assert agreed == "h2"
    assert version == "TLSv1.3"


async def test_a_large_conversation_survives_tls(tally: Any) -> None:
    service = tally(lambda sender, payload: sender.send(payload * (1 << 20)))

    async with serving(context(), service) as (_, port), raw_peer(port, tls=client()) as peer:
        await peer.send(
            b"\0\0\6\4\0\0\0\0\0\0\4\x7f\xff\xff\xff", b"\0\0\4\x08\0\0\0\0\0\x7f\xff\0\0"
        )
        await peer.send(request(1, PATH), data(1, message(b"abcd")))
        body = await peer.read_body(1, (4 << 20) + 5)

    assert body[5:] == b"abcd" * (1 << 20)


async def test_a_replaced_pair_is_for_new_connections_and_open_ones_stay(tally: Any) -> None:
    tls = context()

    async with serving(tls, tally()) as (_, port), raw_peer(port, tls=client()) as before:
        await answered(before)
        tls.replace(OTHER_PAIR.certificate, OTHER_PAIR.key)
        async with raw_peer(port, tls=client(OTHER_CA)) as after:
            new = await answered(after)
        with pytest.raises(ssl.SSLCertVerificationError):
            async with raw_peer(port, tls=client()):
                pass
        old = await answered(before, 3)

    assert (new, old) == (True, True)


async def test_a_pair_with_another_kind_of_key_leaves_nothing_of_the_old_one(tally: Any) -> None:
    certificate, key, trusted = rsa_pair()
    tls = context(certificate=certificate, key=key, minimum_version=ssl.TLSVersion.TLSv1_2)
    wants_rsa = client()
    wants_rsa.maximum_version = ssl.TLSVersion.TLSv1_2
    wants_rsa.set_ciphers("ECDHE-RSA-AES128-GCM-SHA256")
    wants_rsa.load_verify_locations(cadata=trusted)

    async with serving(tls, tally()) as (_, port):
        async with raw_peer(port, tls=wants_rsa) as peer:
            served = await answered(peer)
        tls.replace(PAIR.certificate, PAIR.key)
        with pytest.raises((ssl.SSLError, ConnectionError)):
            async with raw_peer(port, tls=wants_rsa):
                pass

    assert served


async def test_a_pair_that_cannot_be_served_changes_nothing(tally: Any) -> None:
    tls = context()

    with pytest.raises(TransportError, match="certificate"):
        tls.replace(PAIR.certificate, OTHER_PAIR.key)
    with pytest.raises(TransportError, match="client CA"):
        tls.replace(OTHER_PAIR.certificate, OTHER_PAIR.key, client_ca=b"nonsense")

    async with serving(tls, tally()) as (_, port), raw_peer(port, tls=client()) as peer:
        assert await answered(peer)


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        pytest.param({"certificate": b""}, "certificate", id="no-certificate"),
        pytest.param({"key": b"nonsense"}, "certificate", id="no-key"),
        pytest.param({"key": OTHER_PAIR.key}, "certificate", id="another-key"),
        pytest.param({"ciphers": "NONSENSE"}, "NONSENSE", id="no-cipher"),
        pytest.param({"client_ca": b"nonsense"}, "client CA", id="no-ca"),
    ],
)
def test_what_cannot_be_served_is_an_error_that_shows_no_key(
    changes: dict[str, Any], names: str
) -> None:
    with pytest.raises(TransportError, match=names) as caught:
        context(**changes)

    assert "PRIVATE" not in str(caught.value)


def test_a_key_with_a_password_is_refused_instead_of_asked_for() -> None:
    key = serialization.load_pem_private_key(PAIR.key, None)
    locked = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )

    with pytest.raises(TransportError, match="password"):
        context(key=locked)


async def test_clients_without_a_certificate_of_the_ca_are_refused(
    tally: Any, tmp_path: Path
) -> None:
    tls = context(client_ca=CLIENT_CA.pem)
    known, stranger = (with_pair(tmp_path, ca) for ca in (CLIENT_CA, OTHER_CA))

    async with serving(tls, tally()) as (server, port):
        async with raw_peer(port, tls=known) as peer:
            served = await answered(peer)
        for refused in (client(), stranger):
            async with raw_peer(port, tls=refused) as peer:  # TLS 1.3 tells the client later
                assert await peer.rest() == []
        await counted(server, "tls handshake")
        errors = dict(server.stats.errors)

    assert served
    assert errors == {"tls handshake": 2}


async def test_an_older_version_than_the_minimum_is_refused(tally: Any) -> None:
    old = client()
    old.maximum_version = ssl.TLSVersion.TLSv1_2

    async with serving(context(minimum_version=ssl.TLSVersion.TLSv1_3), tally()) as (_, port):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            async with raw_peer(port, tls=old):
                pass


def test_versions_before_1_2_can_be_allowed() -> None:
    tls = context(minimum_version=ssl.TLSVersion.TLSv1)

    assert tls._current.minimum_version == ssl.TLSVersion.TLSv1


async def test_ciphers_are_those_named(tally: Any) -> None:
    modern = client()
    modern.maximum_version = ssl.TLSVersion.TLSv1_2

    async with serving(context(ciphers="ECDHE-ECDSA-AES256-GCM-SHA384"), tally()) as (_, port):
        async with raw_peer(port, tls=modern) as peer:
            cipher = object_of(peer).cipher()[0]

    assert cipher == "ECDHE-ECDSA-AES256-GCM-SHA384"


@pytest.mark.usefixtures("debug_logs")
async def test_a_plaintext_client_on_a_tls_port_is_one_quiet_line(tally: Any) -> None:
    with capture_logs() as logs:
        async with serving(context(), tally()) as (server, port):
            async with raw_peer(port) as peer:
                await peer.rest()
            async with raw_peer(port, tls=client()) as peer:
                served = await answered(peer)
            errors = dict(server.stats.errors)

    assert served
    assert errors == {"tls handshake": 1}
    assert [(line["event"], line["log_level"]) for line in logs] == [
        ("tls handshake failed", "debug")
    ]


@pytest.mark.usefixtures("debug_logs")
async def test_a_tls_client_on_a_plaintext_port_is_one_quiet_line(tally: Any) -> None:
    with capture_logs() as logs:
        async with serving(None, tally()) as (server, port):
            with pytest.raises((ssl.SSLError, ConnectionError)):
                async with raw_peer(port, tls=client()):
                    pass
            errors = dict(server.stats.errors)

    assert errors == {"not http/2": 1}
    assert [(line["event"], line["log_level"]) for line in logs] == [("connection ended", "debug")]


async def test_a_handshake_that_does_not_come_is_cut(tally: Any) -> None:
    async with serving(context(), tally(), handshake_seconds=0.1) as (server, port):
        async with raw_peer(port, greeting=b"") as peer:
            await peer.rest()
        connections = server.stats.connections

    assert connections == 0


async def test_a_connection_whose_handshake_outlasts_the_server_is_closed(tally: Any) -> None:
    server = NativeServer({PATH.decode(): tally()}, host="127.0.0.1", tls=context())
    port = await server.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        await asyncio.sleep(0)
        await server.stop(0)
        upgrading = writer.start_tls(client(), server_hostname="localhost")
        with pytest.raises((ssl.SSLError, ConnectionError, TimeoutError)):
            async with asyncio.timeout(5):
                await upgrading
                frames = RawPeer(reader, writer)
                assert Kind.GOAWAY in {found.kind for found in await frames.rest()}
                raise ConnectionError
    finally:
        writer.transport.abort()

    async with asyncio.timeout(10):
        while server.open_connections:
            await asyncio.sleep(0.005)


def with_pair(directory: Path, authority: Authority) -> ssl.SSLContext:
    pair = authority.issue("gateway")
    path = directory / "client.pem"
    path.write_bytes(pair.certificate + pair.key)
    known = client()
    known.load_cert_chain(path)
    return known


def rsa_pair() -> tuple[bytes, bytes, str]:
    """Certificate, key and what to trust: the certificate itself."""
    import datetime as dt

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return pem, private, pem.decode()
