"""TLS of the metrics port: real handshakes, clients with and without certificates."""

import asyncio
import datetime as dt
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from prometheus_client import CollectorRegistry

from epp.errors import ConfigError
from epp.server.metrics_server import MetricsServer
from epp.server.metrics_tls import MetricsTls
from epp.server.tls import CertificatePair, self_signed_pair

NOW = dt.datetime.now(dt.UTC)


def serving_pair() -> CertificatePair:
    return self_signed_pair(names=("localhost",), now=NOW)


def write(directory: Path, pair: CertificatePair) -> Path:
    directory.mkdir(exist_ok=True)
    (directory / "tls.crt").write_bytes(pair.certificate)
    (directory / "tls.key").write_bytes(pair.key)
    return directory


class Authority:
    """A CA of clients."""

    def __init__(self, name: str) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        basic = x509.BasicConstraints(ca=True, path_length=None)
        self.pem = self._sign(self._name, self._key, basic).public_bytes(serialization.Encoding.PEM)

    def client(self, directory: Path) -> Path:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "prometheus")])
        basic = x509.BasicConstraints(ca=False, path_length=None)
        certificate = self._sign(subject, key, basic)
        pair = CertificatePair(
            certificate=certificate.public_bytes(serialization.Encoding.PEM),
            key=key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            ),
        )
        return write(directory, pair)

    def _sign(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        basic: x509.BasicConstraints,
    ) -> x509.Certificate:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW - dt.timedelta(hours=1))
            .not_valid_after(NOW + dt.timedelta(hours=1))
            .add_extension(basic, critical=True)
            .sign(self._key, hashes.SHA256())
        )


@asynccontextmanager
async def served(tls: MetricsTls) -> AsyncIterator[int]:
    server = MetricsServer(
        CollectorRegistry(), port=0, host="127.0.0.1", not_ready_reasons=list, tls=tls
    )
    try:
        yield await server.start()
    finally:
        await server.stop()


async def get(
    port: int, *, client: Path | None = None, version: ssl.TLSVersion | None = None
) -> tuple[bytes, bytes]:
    """The answer to a probe, and the certificate that was shown."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if version is not None:
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.maximum_version = version
        context.minimum_version = version
    if client is not None:
        context.load_cert_chain(client / "tls.crt", client / "tls.key")
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    try:
        answer = await asyncio.wait_for(reader.read(), 10)
    finally:
        writer.close()
    return answer, ssl.DER_cert_to_PEM_cert(shown).encode()


async def test_the_port_speaks_tls_with_the_pair_of_the_directory(tmp_path: Path) -> None:
    pair = serving_pair()

    async with served(MetricsTls(write(tmp_path, pair), None)) as port:
        answer, shown = await get(port)

    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert shown == pair.certificate


async def test_plain_http_gets_nothing_and_the_server_goes_on(tmp_path: Path) -> None:
    async with served(MetricsTls(write(tmp_path, serving_pair()), None)) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        received = await asyncio.wait_for(reader.read(), 10)
        writer.close()
        answer, _ = await get(port)

    assert b"HTTP" not in received
    assert answer.startswith(b"HTTP/1.1 200 OK")


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@pytest.mark.parametrize(
    "version, accepted",
    [
        pytest.param(ssl.TLSVersion.TLSv1_1, False, id="tls-1.1"),
        pytest.param(ssl.TLSVersion.TLSv1_2, True, id="tls-1.2"),
        pytest.param(ssl.TLSVersion.TLSv1_3, True, id="tls-1.3"),
    ],
)
async def test_tls_starts_at_1_2(tmp_path: Path, version: ssl.TLSVersion, accepted: bool) -> None:
    async with served(MetricsTls(write(tmp_path, serving_pair()), None)) as port:
        try:
            answer, _ = await get(port, version=version)
        except OSError:
            answer = b""

    assert answer.startswith(b"HTTP/1.1 200 OK") is accepted


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize(
    "who, accepted",
    [
        pytest.param("ours", True, id="of-the-ca"),
        pytest.param("strangers", False, id="of-another-ca"),
        pytest.param(None, False, id="without-certificate"),
    ],
)
async def test_clients_need_a_certificate_of_the_ca(
    tmp_path: Path, version: ssl.TLSVersion, who: str | None, accepted: bool
) -> None:
    authorities = {name: Authority(name) for name in ("ours", "strangers")}
    ca_file = tmp_path / "ca.crt"
    ca_file.write_bytes(authorities["ours"].pem)
    client = None if who is None else authorities[who].client(tmp_path / "client")

    async with served(MetricsTls(write(tmp_path, serving_pair()), ca_file)) as port:
        try:
            answer, _ = await get(port, client=client, version=version)
        except OSError:
            answer = b""

    assert answer.startswith(b"HTTP/1.1 200 OK") is accepted


async def test_new_connections_get_what_was_loaded_last(tmp_path: Path) -> None:
    second = serving_pair()
    tls = MetricsTls(write(tmp_path, serving_pair()), None)

    async with served(tls) as port:
        write(tmp_path, second)
        changed, unchanged = tls.reload(), tls.reload()
        _, shown = await get(port)

    assert (changed, unchanged, shown) == (True, False, second.certificate)


async def test_a_new_client_ca_counts_for_new_connections(tmp_path: Path) -> None:
    old, new = Authority("old"), Authority("new")
    ca_file = tmp_path / "ca.crt"
    ca_file.write_bytes(old.pem)
    tls = MetricsTls(write(tmp_path, serving_pair()), ca_file)
    client = new.client(tmp_path / "client")

    async with served(tls) as port:
        ca_file.write_bytes(new.pem)
        changed = tls.reload()
        answer, _ = await get(port, client=client)

    assert changed
    assert answer.startswith(b"HTTP/1.1 200 OK")


async def test_what_cannot_be_loaded_leaves_the_previous_pair_in_use(tmp_path: Path) -> None:
    pair = serving_pair()
    tls = MetricsTls(write(tmp_path, pair), None)

    async with served(tls) as port:
        (tmp_path / "tls.key").write_bytes(serving_pair().key)
        with pytest.raises(ConfigError, match="--metrics-cert-dir: tls.key does not belong"):
            tls.reload()
        _, shown = await get(port)

    assert shown == pair.certificate


@pytest.mark.parametrize(
    "content, message",
    [
        pytest.param(None, "--metrics-client-ca-file: cannot be read: No such file", id="missing"),
        pytest.param(b"", "holds no PEM certificate", id="empty"),
        pytest.param(b"junk", "holds no PEM certificate", id="junk"),
        pytest.param(b"\xff\xfe", "holds no PEM certificate", id="binary"),
    ],
)
def test_a_ca_file_that_cannot_be_used_is_refused(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    ca_file = tmp_path / "ca.crt"
    if content is not None:
        ca_file.write_bytes(content)

    with pytest.raises(ConfigError, match=message):
        MetricsTls(write(tmp_path, serving_pair()), ca_file)


def test_a_key_that_openssl_finds_too_weak_is_refused_and_named(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "weak")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOW)
        .not_valid_after(NOW + dt.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    pair = CertificatePair(
        certificate=certificate.public_bytes(serialization.Encoding.PEM),
        key=key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    )

    with pytest.raises(ConfigError, match="--metrics-cert-dir: cannot be served: .*SMALL"):
        MetricsTls(write(tmp_path, pair), None)
