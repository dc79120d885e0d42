"""TLS of ``epp serve`` as a gateway sees it: self-signed, from files, and replaced while it runs."""

import asyncio
import contextlib
import datetime as dt
import json
import ssl
from functools import partial

import grpc
import grpc.aio
import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from grpc_health.v1 import health_pb2

from epp.server.tls import CertificatePair, self_signed_pair
from epp.standalone import local_http
from epp.standalone.envoy_bootstrap import BootstrapSettings, render_bootstrap
from epp.standalone.plan import find_envoy
from epp.testing.serve import Serve
from epp.testing.stack import Sims, eventually, free_port

pytestmark = [pytest.mark.envoy]

BODY = json.dumps({"model": "tiny", "prompt": "x", "max_tokens": 1}).encode()
JSON = {"content-type": "application/json"}
AES128, AES256 = "ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384"


def new_pair():
    return self_signed_pair(names=("epp.test", "127.0.0.1"), now=dt.datetime.now(dt.UTC))


def client_pair():
    """A certificate that is its own CA, for clients: unlike a server's it names no use."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "prometheus")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    form = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return CertificatePair(
        certificate=certificate.public_bytes(Encoding.PEM), key=key.private_bytes(*form)
    )


def write(directory, pair):
    """Replace both files by renaming, as tools that rotate certificates do."""
    directory.mkdir(exist_ok=True)
    for name, content in (("tls.crt", pair.certificate), ("tls.key", pair.key)):
        draft = directory / f".{name}"
        draft.write_bytes(content)
        draft.replace(directory / name)
    return directory


def publish(directory, version, pair):
    """Replace both files at once by a swap of links, as the kubelet does."""
    directory.mkdir(exist_ok=True)
    write(directory / f"..{version}", pair)
    draft = directory / "..data_tmp"
    draft.symlink_to(f"..{version}")
    draft.rename(directory / "..data")
    for name in ("tls.crt", "tls.key"):
        with contextlib.suppress(FileExistsError):
            (directory / name).symlink_to(f"..data/{name}")
    return directory


@pytest.fixture
async def pod():
    async with Sims(1, first="127.0.42.1", arguments=["--model", "tiny", "--speed", "50"]) as sims:
        yield f"{sims.addresses[0]}:{sims.port}"


class Envoy:
    """A gateway that talks TLS to an EPP and fails closed: without the EPP nothing is served."""

    def __init__(self, directory, epp, path, *, trusts=None):
        self.port, self.admin_port = free_port(), free_port()
        settings = BootstrapSettings(
            path=path,
            listen_port=self.port,
            admin_port=self.admin_port,
            epp_port=epp.grpc_port,
            epp_health_port=epp.health_port,
            epp_tls=True,
            eds_file=str(directory / "endpoints.yaml"),
            fail_open=False,
        )
        bootstrap = yaml.safe_load(render_bootstrap(settings))
        if trusts is not None:
            clusters = {c["name"]: c for c in bootstrap["static_resources"]["clusters"]}
            tls = clusters["epp"]["transport_socket"]["typed_config"]["common_tls_context"]
            authority = {"inline_string": trusts.decode()}
            tls["validation_context"] = {"trusted_ca": authority}
        self._config = directory / "envoy.yaml"
        self._config.write_text(yaml.safe_dump(bootstrap))

    async def __aenter__(self):
        argv = [find_envoy(None), "-c", str(self._config), "--disable-hot-restart"]
        quiet = asyncio.subprocess.DEVNULL
        self._process = await asyncio.create_subprocess_exec(
            *(*argv, "--concurrency", "1", "--log-level", "error"), stdout=quiet, stderr=quiet
        )
        ready = lambda: local_http.answers("127.0.0.1", self.admin_port, "/ready")  # noqa: E731
        await eventually(ready, seconds=30, what="envoy")
        return self

    async def __aexit__(self, *_):
        self._process.terminate()
        await self._process.wait()

    async def status(self):
        reply = await local_http.request(
            "127.0.0.1", self.port, "POST", "/v1/completions", headers=JSON, body=BODY
        )
        return reply.status

    async def serves(self):
        return await self.status() == 200


@pytest.fixture(params=["native", "grpcio"])
def serve(request, tmp_path, pod):
    """Makes an EPP, on either transport."""
    common = ["--endpoint", pod, "--eds-file", str(tmp_path / "endpoints.yaml")]
    return lambda *arguments: Serve(tmp_path, *common, "--transport", request.param, *arguments)


async def routed(epp):
    view = await local_http.get_json("127.0.0.1", epp.metrics_port, "/debug/pool")
    return view["totals"]["routed"]


def client_context(**settings):
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    for name, value in settings.items():
        setattr(context, name, value)
    return context


async def shown(port, context=None):
    """The certificate of a port, PEM."""
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context or client_context())
    found = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return ssl.DER_cert_to_PEM_cert(found).encode()


async def shows(port, pair):
    return await shown(port) == pair.certificate


@pytest.mark.parametrize("path", ["lean", "gateway"])
async def test_the_certificate_made_at_start_serves_a_gateway(serve, tmp_path, path):
    async with serve() as epp, Envoy(tmp_path, epp, path) as envoy:
        await eventually(envoy.serves, what="a served request")
        before = await routed(epp)

        statuses = [await envoy.status() for _ in range(10)]

        assert statuses == [200] * 10
        assert await routed(epp) == before + 10
        certificate = x509.load_pem_x509_certificate(await shown(epp.grpc_port))
        assert "Inference Ext" in certificate.issuer.rfc4514_string()


@pytest.mark.parametrize("path", ["lean", "gateway"])
async def test_a_gateway_that_trusts_only_the_new_pair_is_served_once_it_is_there(
    serve, tmp_path, path
):
    old, new = new_pair(), new_pair()
    certificates = publish(tmp_path / "certs", "1", old)
    arguments = ["--cert-path", str(certificates)]

    async with (
        serve(*arguments) as epp,
        Envoy(tmp_path, epp, path, trusts=new.certificate) as envoy,
    ):
        refused = await envoy.status()
        publish(certificates, "2", new)
        await eventually(envoy.serves, what="a request over the new certificate")

        assert refused in {500, 503}
        assert await shows(epp.grpc_port, new)
        assert epp.log_text().count("certificate reloaded") == 1


async def test_no_request_fails_while_certificates_change(serve, tmp_path):
    pairs = [new_pair() for _ in range(4)]
    certificates = write(tmp_path / "certs", pairs[0])
    arguments = ["--cert-path", str(certificates)]

    async with serve(*arguments) as epp, Envoy(tmp_path, epp, "lean") as envoy:
        await eventually(envoy.serves, what="a served request")
        statuses, done = [], asyncio.Event()

        async def traffic():
            while not done.is_set():
                statuses.append(await envoy.status())

        running = [asyncio.create_task(traffic()) for _ in range(4)]
        for pair in pairs[1:]:
            write(certificates, pair)
            await eventually(partial(shows, epp.grpc_port, pair), what="the next pair")
        done.set()
        await asyncio.gather(*running)

    assert len(statuses) > 50
    assert set(statuses) == {200}


async def test_a_pair_that_does_not_fit_leaves_the_old_one_and_one_log_line(serve, tmp_path):
    old, stranger, new = new_pair(), new_pair(), new_pair()
    certificates = write(tmp_path / "certs", old)

    async with serve("--cert-path", str(certificates)) as epp:
        (certificates / "tls.key").write_bytes(stranger.key)
        await eventually(lambda: "the previous one stays" in epp.log_text(), what="the complaint")
        kept = await shows(epp.grpc_port, old)
        write(certificates, new)
        await eventually(lambda: shows(epp.grpc_port, new), what="the new pair")

        assert kept
        assert epp.log_text().count("the previous one stays") == 1
        assert "PRIVATE KEY" not in epp.log_text()


async def test_reloading_can_be_switched_off(serve, tmp_path):
    old, new = new_pair(), new_pair()
    certificates = write(tmp_path / "certs", old)
    arguments = ["--cert-path", str(certificates), "--enable-cert-reload=false"]
    followed = write(tmp_path / "followed", old)
    more = ["--cert-path", str(followed)]

    async with serve(*arguments) as epp, serve(*more) as other:
        for directory in (certificates, followed):
            write(directory, new)
        await eventually(lambda: shows(other.grpc_port, new), what="the one that follows")

        assert await shows(epp.grpc_port, old)


async def test_chosen_cipher_suites_are_the_only_ones(serve):
    suites = "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"

    async with serve("--tls-cipher-suites", suites) as epp:
        found = {}
        for suite in (AES128, AES256):
            context = client_context(maximum_version=ssl.TLSVersion.TLSv1_2)
            context.set_ciphers(suite)
            try:
                await shown(epp.grpc_port, context)
                found[suite] = True
            except OSError:
                found[suite] = False

    assert found == {AES128: False, AES256: True}


async def test_health_checking_serves_health_beside_ext_proc(serve, tmp_path):
    pair = new_pair()
    certificates = write(tmp_path / "certs", pair)
    arguments = ["--cert-path", str(certificates), "--health-checking"]
    request = health_pb2.HealthCheckRequest(service="envoy.service.ext_proc.v3.ExternalProcessor")

    async with serve(*arguments) as epp:
        credentials = grpc.ssl_channel_credentials(pair.certificate)
        async with grpc.aio.secure_channel(f"127.0.0.1:{epp.grpc_port}", credentials) as channel:
            check = channel.unary_unary(
                "/grpc.health.v1.Health/Check",
                request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
                response_deserializer=health_pb2.HealthCheckResponse.FromString,
            )
            answer = await check(request, timeout=10)

    assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_the_metrics_port_takes_clients_of_the_ca_and_follows_its_files(serve, tmp_path):
    old, new = new_pair(), new_pair()
    certificates = write(tmp_path / "metrics", old)
    ours = write(tmp_path / "client", client_pair())
    arguments = ["--metrics-cert-dir", str(certificates)]
    arguments += ["--metrics-client-ca-file", str(ours / "tls.crt")]

    async with serve(*arguments) as epp:
        friend = client_context()
        friend.load_cert_chain(ours / "tls.crt", ours / "tls.key")
        page = await scrape(epp.metrics_port, friend)
        stranger = await scrape(epp.metrics_port, client_context())
        write(certificates, new)

        async def is_new():
            return await shown(epp.metrics_port, friend) == new.certificate

        await eventually(is_new, what="the new certificate")
        page_after = await scrape(epp.metrics_port, friend)

    assert b"inference_pool_ready_pods" in page
    assert b"inference_pool_ready_pods" in page_after
    assert stranger == b""


async def scrape(port, context):
    """The metrics page; nothing when TLS refuses us."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        page = await asyncio.wait_for(reader.read(), 10)
        writer.close()
    except OSError:
        return b""
    return page
