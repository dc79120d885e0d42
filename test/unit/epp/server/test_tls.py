"""Certificates: made, loaded, refused, served and replaced."""

import asyncio
import datetime as dt
import socket
import ssl
from pathlib import Path

import pytest
from cryptography import x509

from epp.errors import ConfigError
from epp.server.tls import (
    CertificatePair,
    ServingCertificate,
    load_pair,
    self_signed_pair,
    serving_certificate,
)
from epp.transport.grpcio_server import GrpcioServer

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def pair() -> CertificatePair:
    return self_signed_pair(names=("localhost",), now=dt.datetime.now(dt.UTC))


def write(directory: Path, certificate: bytes | None, key: bytes | None) -> None:
    for name, content in (("tls.crt", certificate), ("tls.key", key)):
        if content is not None:
            (directory / name).write_bytes(content)


def test_a_self_signed_certificate_names_its_hosts_and_lasts_ten_years() -> None:
    made = serving_certificate(None, now=NOW).pair

    certificate = x509.load_pem_x509_certificate(made.certificate)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert set(names.get_values_for_type(x509.DNSName)) == {"localhost", socket.gethostname()}
    assert {str(ip) for ip in names.get_values_for_type(x509.IPAddress)} == {"127.0.0.1", "::1"}
    assert certificate.not_valid_before_utc == NOW - dt.timedelta(hours=1)
    assert certificate.not_valid_after_utc == NOW + dt.timedelta(days=3650)


def test_the_operators_pair_is_loaded_as_it_is(tmp_path: Path) -> None:
    mine = pair()
    write(tmp_path, mine.certificate, mine.key)

    assert serving_certificate(tmp_path).pair == mine


ONE, OTHER = pair(), pair()


@pytest.mark.parametrize(
    ("certificate", "key", "message"),
    [
        pytest.param(None, ONE.key, "tls.crt cannot be read: No such file", id="no-certificate"),
        pytest.param(ONE.certificate, None, "tls.key cannot be read: No such file", id="no-key"),
        pytest.param(b"junk", ONE.key, "tls.crt is not a PEM certificate", id="junk-certificate"),
        pytest.param(b"", ONE.key, "tls.crt is not a PEM certificate", id="empty-certificate"),
        pytest.param(ONE.certificate, b"junk", "tls.key is not a PEM private key", id="junk-key"),
        pytest.param(
            ONE.certificate, OTHER.key, "tls.key does not belong to tls.crt", id="strangers"
        ),
    ],
)
def test_a_pair_that_cannot_be_served_is_refused_by_file(
    tmp_path: Path, certificate: bytes | None, key: bytes | None, message: str
) -> None:
    write(tmp_path, certificate, key)

    with pytest.raises(ConfigError, match=message) as caught:
        load_pair(tmp_path)

    assert caught.value.source == "--cert-path"
    assert str(tmp_path) in str(caught.value)


async def served_certificate(port: int) -> tuple[bytes, str | None]:
    """Return the certificate that a port shows now, and the protocol it agrees to."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    tls = writer.get_extra_info("ssl_object")
    shown = ssl.DER_cert_to_PEM_cert(tls.getpeercert(binary_form=True)).encode()
    protocol = tls.selected_alpn_protocol()
    writer.close()
    return shown, protocol


async def test_new_connections_get_the_replaced_pair() -> None:
    first, second = pair(), pair()
    certificate = ServingCertificate(first)
    server = GrpcioServer({}, host="127.0.0.1", credentials=certificate.credentials())
    port = await server.start()

    before = await served_certificate(port)
    certificate.replace(second)
    after = await served_certificate(port)
    await server.stop(0)

    assert before == (first.certificate, "h2")
    assert after == (second.certificate, "h2")


def test_reload_tells_whether_the_pair_is_another(tmp_path: Path) -> None:
    write(tmp_path, ONE.certificate, ONE.key)
    certificate = serving_certificate(tmp_path)

    same = certificate.reload(tmp_path)
    write(tmp_path, OTHER.certificate, OTHER.key)
    other = certificate.reload(tmp_path)

    assert (same, other, certificate.pair) == (False, True, OTHER)


def test_a_pair_that_cannot_be_served_leaves_the_one_in_use(tmp_path: Path) -> None:
    write(tmp_path, ONE.certificate, ONE.key)
    certificate = serving_certificate(tmp_path)
    write(tmp_path, None, OTHER.key)

    with pytest.raises(ConfigError, match="does not belong"):
        certificate.reload(tmp_path)

    assert certificate.pair == ONE


def test_the_flag_at_fault_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="^--metrics-cert-dir: tls.crt cannot be read"):
        load_pair(tmp_path, flag="--metrics-cert-dir")
