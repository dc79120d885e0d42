"""TLS of the gRPC port: what cannot be served names flag and file, at start and later."""

import asyncio
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from epp.errors import ConfigError
from epp.server.options import Options, parse
from epp.server.tls import CertificatePair
from epp.testing.authority import Authority
from epp_cmd.transports import build_grpc_port

AUTHORITY = Authority()


def options(*argv: str) -> Options:
    return parse(["--endpoint=127.0.0.1:9", "--bind-address=127.0.0.1", *argv], {})


def write(directory: Path, pair: CertificatePair) -> None:
    (directory / "tls.crt").write_bytes(pair.certificate)
    (directory / "tls.key").write_bytes(pair.key)


def issued(name: str) -> CertificatePair:
    made = AUTHORITY.issue(name, hosts=["localhost"])
    return CertificatePair(certificate=made.certificate, key=made.key)


def short_key() -> CertificatePair:
    """A pair that is consistent, and too weak for OpenSSL."""
    key = rsa.generate_private_key(65537, 1024)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "weak")])
    template = x509.load_pem_x509_certificate(AUTHORITY.pem)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(template.not_valid_before_utc)
        .not_valid_after(template.not_valid_after_utc)
        .sign(key, hashes.SHA256())
    )
    return CertificatePair(
        certificate=certificate.public_bytes(Encoding.PEM),
        key=key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    )


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"hello", id="text"),
        pytest.param(b"\xff", id="bytes"),
        pytest.param(issued("x").key, id="a-key"),
    ],
)
def test_a_client_ca_that_is_none_names_flag_and_file(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "ca.pem"
    file.write_bytes(content)

    with pytest.raises(ConfigError) as caught:
        build_grpc_port(options(f"--grpc-client-ca-file={file}"), {}, descriptors=20_000)

    assert str(caught.value) == (
        f"--grpc-client-ca-file: holds no PEM certificate of a CA (got {str(file)!r})"
    )


def test_cipher_suites_that_openssl_lacks_name_the_flag() -> None:
    suite = "TLS_RSA_WITH_RC4_128_SHA"

    with pytest.raises(ConfigError, match=f"^--tls-cipher-suites: no cipher suite .*got '{suite}'"):
        build_grpc_port(options(f"--tls-cipher-suites={suite}"), {}, descriptors=20_000)


def test_a_pair_that_openssl_refuses_names_flag_and_directory(tmp_path: Path) -> None:
    write(tmp_path, short_key())

    with pytest.raises(ConfigError, match=f"^--cert-path: .*KEY_TOO_SMALL.*got '{tmp_path}'"):
        build_grpc_port(options(f"--cert-path={tmp_path}"), {}, descriptors=20_000)


def test_a_new_pair_that_openssl_refuses_is_an_error_each_time_until_it_is_repaired(
    tmp_path: Path,
) -> None:
    write(tmp_path, issued("first"))
    port = build_grpc_port(options(f"--cert-path={tmp_path}"), {}, descriptors=20_000)
    write(tmp_path, short_key())

    for _ in range(2):
        with pytest.raises(ConfigError, match="^--cert-path: "):
            port.reload()
    write(tmp_path, issued("second"))

    assert port.reload()
    assert not port.reload()


async def reached(port: int, context: ssl.SSLContext) -> bool:
    """A client gets through the handshake, and hears from the server."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        try:
            return bool(await reader.read(1))
        finally:
            writer.transport.abort()
    except (ssl.SSLError, ConnectionError):
        return False


def client_of(authority: Authority) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=AUTHORITY.pem.decode())
    context.set_alpn_protocols(["h2"])
    context.check_hostname = False
    authority.issue("gateway").load_into(context)
    return context


@pytest.mark.parametrize("with_pair", [True, False], ids=["own-pair", "pair-made-at-start"])
async def test_the_ca_of_clients_is_followed(tmp_path: Path, with_pair: bool) -> None:
    old, new = Authority(), Authority()
    authority_file = tmp_path / "clients" / "ca.crt"
    authority_file.parent.mkdir()
    authority_file.write_bytes(old.pem)
    argv = [f"--grpc-client-ca-file={authority_file}", "--grpc-port=0"]
    watched = [authority_file.parent]
    clients = [client_of(old), client_of(new)]
    if with_pair:
        write(tmp_path, issued("server"))
        argv.append(f"--cert-path={tmp_path}")
        watched.insert(0, tmp_path)
    else:
        for client in clients:
            client.verify_mode = ssl.CERT_NONE
    chosen = options(*argv)
    port = build_grpc_port(chosen, {}, descriptors=20_000)
    number = await port.transport.start()
    try:
        before = [await reached(number, client) for client in clients]
        unchanged = port.reload()
        authority_file.write_bytes(new.pem)
        changed = port.reload()
        after = [await reached(number, client) for client in clients]
        authority_file.write_bytes(b"none")
        with pytest.raises(ConfigError, match="^--grpc-client-ca-file: holds no PEM"):
            port.reload()
        still = await reached(number, clients[1])
    finally:
        await port.transport.stop(0)

    assert (before, after) == ([True, False], [False, True])
    assert (unchanged, changed, still) == (False, True, True)
    assert list(port.watched) == watched
    assert chosen.cert_reload
