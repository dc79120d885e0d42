"""Names of TLS versions and cipher suites, and that gRPC really obeys them."""

import datetime as dt
import json
import subprocess
import sys
from pathlib import Path

import pytest

from epp.server.tls import self_signed_pair
from epp.server.tls_settings import (
    CIPHER_SUITES,
    TLS13_SUITES,
    UNKNOWN_TO_GRPCIO,
    CipherSuites,
    grpc_environment,
    grpcio_refuses,
    parse_cipher_suites,
)

AES128 = "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"
AES256 = "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"
CHACHA = "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"


@pytest.mark.parametrize(
    "text, want",
    [
        pytest.param("", CipherSuites(), id="empty"),
        pytest.param(f"{AES256},{AES128}", CipherSuites((AES256, AES128)), id="order-is-kept"),
        pytest.param(f" {AES128} ,, {AES128}", CipherSuites((AES128,)), id="spaces-and-repeats"),
        pytest.param(
            f"TLS_AES_128_GCM_SHA256,{AES128}",
            CipherSuites((AES128,), ("TLS_AES_128_GCM_SHA256",)),
            id="tls-1.3-apart",
        ),
    ],
)
def test_go_names_are_read(text: str, want: CipherSuites) -> None:
    assert parse_cipher_suites(text) == want


@pytest.mark.parametrize(
    "text, message",
    [
        pytest.param("ECDHE-RSA-AES128-SHA", "named ECDHE-RSA-AES128-SHA", id="openssl-name"),
        pytest.param(f"{AES128},x", "named x", id="unknown"),
        pytest.param(AES128.lower(), "named tls_ecdhe", id="case"),
        pytest.param("TLS_AES_128_GCM_SHA256", "TLS 1.3 suites only", id="tls-1.3-only"),
    ],
)
def test_other_names_are_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_cipher_suites(text)


def test_the_tables_of_names_fit_together() -> None:
    assert set(CIPHER_SUITES) >= UNKNOWN_TO_GRPCIO
    assert not set(CIPHER_SUITES) & TLS13_SUITES
    assert len(set(CIPHER_SUITES.values())) == len(CIPHER_SUITES)


@pytest.mark.parametrize(
    "version, suites, refused",
    [
        pytest.param("VersionTLS12", (AES128,), None, id="fine"),
        pytest.param("VersionTLS13", (), "VersionTLS13", id="version"),
        pytest.param(
            "VersionTLS12", (AES128, "TLS_RSA_WITH_RC4_128_SHA"), "TLS_RSA_WITH_RC4_128_SHA",
            id="suite",
        ),
    ],
)  # fmt: skip
def test_grpcio_refuses_what_it_cannot_do(
    version: str, suites: tuple[str, ...], refused: str | None
) -> None:
    answer = grpcio_refuses(version, suites)

    assert (answer and answer[0]) == refused


HANDSHAKES = """
import asyncio, json, os, ssl, sys
from pathlib import Path
os.environ.update(json.loads(sys.argv[1]))
from epp.server.tls import ServingCertificate, load_pair
from epp.transport.grpcio_server import GrpcioServer

async def agreed(port, version, cipher):
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = version
    if cipher:
        context.set_ciphers(cipher)
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    except OSError:
        return None
    agreed = writer.get_extra_info("cipher")[0]
    writer.close()
    return agreed

async def main():
    credentials = ServingCertificate(load_pair(Path(sys.argv[2]))).credentials()
    server = GrpcioServer({}, host="127.0.0.1", credentials=credentials)
    port = await server.start()
    old, new = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
    found = {cipher: await agreed(port, old, cipher) for cipher in sys.argv[3:]}
    found["TLS 1.3"] = await agreed(port, new, None) is not None
    await server.stop(0)
    print(json.dumps(found))

asyncio.run(main())
"""


def handshakes(directory: Path, suites: CipherSuites) -> dict[str, object]:
    """What a fresh process agrees to that offers these suites, by suite of the client."""
    pair = self_signed_pair(names=("localhost",), now=dt.datetime.now(dt.UTC))
    (directory / "tls.crt").write_bytes(pair.certificate)
    (directory / "tls.key").write_bytes(pair.key)
    clients = [CIPHER_SUITES[name] for name in (AES128, AES256, CHACHA)]
    ran = subprocess.run(
        [
            *(sys.executable, "-c", HANDSHAKES),
            *(json.dumps(grpc_environment(suites)), str(directory), *clients),
        ],
        capture_output=True,
        check=True,
        timeout=60,
    )
    return dict(json.loads(ran.stdout))


def test_grpc_shakes_hands_with_the_chosen_suites_only(tmp_path: Path) -> None:
    found = handshakes(tmp_path, parse_cipher_suites(f"{AES256},{CHACHA}"))

    assert found == {
        "ECDHE-ECDSA-AES128-GCM-SHA256": None,
        "ECDHE-ECDSA-AES256-GCM-SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
        "ECDHE-ECDSA-CHACHA20-POLY1305": "ECDHE-ECDSA-CHACHA20-POLY1305",
        "TLS 1.3": True,
    }


def test_without_a_choice_grpc_makes_its_own(tmp_path: Path) -> None:
    found = handshakes(tmp_path, CipherSuites())

    assert found["ECDHE-ECDSA-AES128-GCM-SHA256"] == "ECDHE-ECDSA-AES128-GCM-SHA256"


def test_options_leave_grpc_alone_so_that_its_environment_can_be_set_first() -> None:
    probe = "import sys, epp.server.options; sys.exit('grpc' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", probe], timeout=60, check=False).returncode == 0
