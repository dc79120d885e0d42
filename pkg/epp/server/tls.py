"""The certificate of the gRPC port: the operator's, or one made at start.

``ServingCertificate`` owns the pair in use. Connections made after ``replace`` get the new pair;
those that are open keep theirs.
Reference: llm-d-router pkg/epp/server/runserver.go; the key is P-256 instead of RSA-4096, which
takes a second of CPU to make.
"""

import datetime as dt
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from epp.errors import ConfigError

CERTIFICATE_FILE = "tls.crt"
KEY_FILE = "tls.key"
SELF_SIGNED_DAYS = 3650
CLOCK_SKEW_ALLOWED = dt.timedelta(hours=1)
"""A self-signed certificate is valid this long before it was made."""

ORGANISATION = "Inference Ext"


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificatePair:
    """A certificate chain and its key, both PEM."""

    certificate: bytes
    key: bytes


class ServingCertificate:
    """The pair in use and the credentials that follow it."""

    def __init__(self, pair: CertificatePair) -> None:
        self._pair = pair

    @property
    def pair(self) -> CertificatePair:
        """The pair that new connections get."""
        return self._pair

    def replace(self, pair: CertificatePair) -> None:
        """Use another pair for new connections."""
        self._pair = pair

    def reload(self, directory: Path) -> bool:
        """Use what a directory holds now; tell whether that is another pair.

        Raises:
            ConfigError: It cannot be served; the pair in use stays.
        """
        before, self._pair = self._pair, load_pair(directory)
        return self._pair != before

    def credentials(self) -> grpc.ServerCredentials:
        """Return credentials for a port; the pair is looked up at every handshake.

        gRPC speaks TLS 1.2 and 1.3 and offers ALPN ``h2``.
        """
        return grpc.dynamic_ssl_server_credentials(
            _configuration(self._pair), lambda: _configuration(self._pair)
        )


def serving_certificate(
    cert_path: Path | None, *, now: dt.datetime | None = None
) -> ServingCertificate:
    """Load the operator's pair, or make one when no directory is given.

    Raises:
        ConfigError: A file is missing or unreadable, or the two do not belong together.
    """
    if cert_path is not None:
        return ServingCertificate(load_pair(cert_path))
    moment = now or dt.datetime.now(dt.UTC)
    names = ("localhost", "127.0.0.1", "::1", socket.gethostname())
    return ServingCertificate(self_signed_pair(names=names, now=moment))


def load_pair(directory: Path, *, flag: str = "--cert-path") -> CertificatePair:
    """Read ``tls.crt`` and ``tls.key`` and check that they can be served.

    Raises:
        ConfigError: Names the flag and the file at fault; never shows its content.
    """
    certificate_file, key_file = directory / CERTIFICATE_FILE, directory / KEY_FILE
    certificate, key = _read(certificate_file, flag), _read(key_file, flag)
    try:
        parsed = x509.load_pem_x509_certificates(certificate)[0]
    except ValueError as error:
        raise _unusable(certificate_file, "is not a PEM certificate", flag) from error
    try:
        private = serialization.load_pem_private_key(key, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise _unusable(key_file, "is not a PEM private key without password", flag) from error
    if _public_bytes(parsed.public_key()) != _public_bytes(private.public_key()):
        raise _unusable(key_file, f"does not belong to {CERTIFICATE_FILE}", flag)
    return CertificatePair(certificate=certificate, key=key)


def load_client_ca(path: Path, *, flag: str) -> bytes:
    """Read the CA whose certificates clients must show, and check that it is one.

    Raises:
        ConfigError: Names flag and file; never shows its content.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        text = f"cannot be read: {error.strerror}"
        raise ConfigError(text, source=flag, value=str(path)) from error
    try:
        trying = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        trying.load_verify_locations(cadata=content.decode("ascii"))
    except (ssl.SSLError, ValueError) as error:
        text = "holds no PEM certificate of a CA"
        raise ConfigError(text, source=flag, value=str(path)) from error
    return content


def self_signed_pair(*, names: Sequence[str], now: dt.datetime) -> CertificatePair:
    """Make a certificate for host names and IP addresses, valid for ten years."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, ORGANISATION)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW_ALLOWED)
        .not_valid_after(now + dt.timedelta(days=SELF_SIGNED_DAYS))
        .add_extension(
            x509.SubjectAlternativeName([_general_name(n) for n in names]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return CertificatePair(
        certificate=certificate.public_bytes(Encoding.PEM),
        key=key.private_bytes(
            Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    )


def _configuration(pair: CertificatePair) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(pair.key, pair.certificate)])


def _read(path: Path, flag: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unusable(path, f"cannot be read: {error.strerror}", flag) from error


def _unusable(path: Path, why: str, flag: str) -> ConfigError:
    return ConfigError(f"{path.name} {why}", source=flag, value=str(path))


def _public_bytes(key: object) -> bytes:
    public_bytes = key.public_bytes  # type: ignore[attr-defined] # every kind of public key has it
    return bytes(public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)
