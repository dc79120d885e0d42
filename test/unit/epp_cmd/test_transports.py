"""TLS of the gRPC port: what cannot be served names flag and file, at start and later."""

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
        build_grpc_port(options(f"--grpc-client-ca-file={file}"), {})

    assert str(caught.value) == (
        f"--grpc-client-ca-file: holds no PEM certificate of a CA (got {str(file)!r})"
    )


def test_cipher_suites_that_openssl_lacks_name_the_flag() -> None:
    suite = "TLS_RSA_WITH_RC4_128_SHA"

    with pytest.raises(ConfigError, match=f"^--tls-cipher-suites: no cipher suite .*got '{suite}'"):
        build_grpc_port(options(f"--tls-cipher-suites={suite}"), {})


def test_a_pair_that_openssl_refuses_names_flag_and_directory(tmp_path: Path) -> None:
    write(tmp_path, short_key())

    with pytest.raises(ConfigError, match=f"^--cert-path: .*KEY_TOO_SMALL.*got '{tmp_path}'"):
        build_grpc_port(options(f"--cert-path={tmp_path}"), {})


def test_a_new_pair_that_openssl_refuses_is_an_error_each_time_until_it_is_repaired(
    tmp_path: Path,
) -> None:
    write(tmp_path, issued("first"))
    port = build_grpc_port(options(f"--cert-path={tmp_path}"), {})
    assert port.reload is not None
    write(tmp_path, short_key())

    for _ in range(2):
        with pytest.raises(ConfigError, match="^--cert-path: "):
            port.reload(tmp_path)
    write(tmp_path, issued("second"))

    assert port.reload(tmp_path)
    assert not port.reload(tmp_path)
