"""Fetching pages from real servers: framings, failures, connections, TLS."""

import asyncio
import gzip
import ipaddress
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from epp.backend.metrics_client import ClientSettings, MetricsClient
from epp.backend.scrape_errors import ScrapeError, ScrapeFailure
from epp.errors import ConfigError, TransportError

OK = b"HTTP/1.1 200 OK\r\n"
PAGE = b"m 1\n"
Answer = Callable[[str, asyncio.StreamWriter], Awaitable[None]]
Result = bytes | ScrapeError


def page(body: bytes = PAGE, head: bytes = b"") -> bytes:
    return OK + head + b"Content-Length: %d\r\n\r\n" % len(body) + body


def replies(*answers: bytes) -> Answer:
    """Answers in turn, the last one for ever."""
    left = list(answers)

    async def answer(_target: str, writer: asyncio.StreamWriter) -> None:
        writer.write(left.pop(0) if len(left) > 1 else left[0])

    return answer


def closes_after(data: bytes) -> Answer:
    async def answer(_target: str, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        writer.close()

    return answer


async def hangs(_target: str, _writer: asyncio.StreamWriter) -> None:
    """Says nothing."""


async def resets(_target: str, writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


class Scrape:
    """A fetcher and what it reported."""

    def __init__(self, client: MetricsClient, port: int, address: str = "127.0.0.1") -> None:
        self.results: asyncio.Queue[Result] = asyncio.Queue()
        self.lost = asyncio.Event()
        self.fetcher = client.fetcher(address, port, self)

    async def get(self, query: str = "") -> Result:
        self.fetcher.get(query)
        return await self.results.get()

    def page_arrived(self, page: bytes) -> None:
        self.results.put_nowait(page)

    def fetch_failed(self, error: ScrapeError) -> None:
        self.results.put_nowait(error)

    def connection_lost(self) -> None:
        self.lost.set()


@pytest.fixture
async def make_client() -> AsyncIterator[Callable[..., MetricsClient]]:
    """Clients that must leave no connection behind."""
    clients: list[MetricsClient] = []

    def make(**settings: Any) -> MetricsClient:
        client = MetricsClient(ClientSettings(**settings))
        clients.append(client)
        return client

    yield make
    for client in clients:
        await client.close()
        assert client.open_connections == 0


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(page(), id="content-length"),
        pytest.param(
            OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\nm\r\n3\r\n 1\n\r\n0\r\n\r\n", id="chunked"
        ),
        pytest.param(page(gzip.compress(PAGE), b"Content-Encoding: gzip\r\n"), id="gzip"),
        pytest.param(
            page(head=b"Content-Type: application/openmetrics-text; version=1.0.0\r\n"),
            id="openmetrics",
        ),
    ],
)
async def test_pages_come_over_one_connection(
    scripted_server: Any, make_client: Any, data: bytes
) -> None:
    server = await scripted_server(replies(data))
    scrape = Scrape(make_client(), server.port)

    results = [await scrape.get() for _ in range(3)]

    assert results == [PAGE] * 3
    assert server.accepted == 1


async def test_a_large_page_arrives_whole(
    scripted_server: Any, make_client: Any, recorded_page: Callable[[str], bytes]
) -> None:
    body = recorded_page("load-a") * 20
    server = await scripted_server(replies(page(body)))

    assert await Scrape(make_client(), server.port).get() == body


async def test_the_question_is_a_plain_get(scripted_server: Any, make_client: Any) -> None:
    server = await scripted_server(replies(page()))
    scrape = Scrape(make_client(path="/x/metrics"), server.port)

    await scrape.get("name%5B%5D=m")
    await scrape.get()

    assert server.targets == ["/x/metrics?name%5B%5D=m", "/x/metrics"]
    assert f"Host: 127.0.0.1:{server.port}\r\n".encode() in server.heads[0]
    assert b"Accept:" not in server.heads[0]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(page(head=b"Connection: close\r\n"), id="announced"),
        pytest.param(b"HTTP/1.0 200 OK\r\n\r\n" + PAGE, id="http-1.0-without-length"),
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\n" + PAGE, id="http-1.1-without-length"),
    ],
)
async def test_a_server_that_closes_after_each_page_gets_a_new_connection(
    scripted_server: Any, make_client: Any, data: bytes
) -> None:
    server = await scripted_server(closes_after(data))
    scrape = Scrape(make_client(), server.port)

    results = [await scrape.get() for _ in range(3)]

    assert results == [PAGE] * 3
    assert server.accepted == 3
    assert not scrape.lost.is_set()


async def test_a_server_that_closes_in_silence_is_reported_and_reconnected(
    scripted_server: Any, make_client: Any
) -> None:
    server = await scripted_server(closes_after(page()))
    scrape = Scrape(make_client(), server.port)

    first = await scrape.get()
    await scrape.lost.wait()
    second = await scrape.get()

    assert (first, second) == (PAGE, PAGE)
    assert server.accepted == 2


async def test_a_request_that_meets_a_closing_connection_is_sent_again(
    scripted_server: Any, make_client: Any
) -> None:
    server = await scripted_server(replies(page()))
    scrape = Scrape(make_client(), server.port)
    await scrape.get()
    answers = iter([resets, replies(page(b"m 2\n"))])

    async def answer(target: str, writer: asyncio.StreamWriter) -> None:
        await next(answers)(target, writer)

    server.answer = answer

    assert await scrape.get() == b"m 2\n"
    assert server.accepted == 2


async def test_a_fresh_connection_that_is_reset_is_not_tried_again(
    scripted_server: Any, make_client: Any
) -> None:
    server = await scripted_server(resets)

    error = await Scrape(make_client(), server.port).get()

    assert isinstance(error, ScrapeError)
    assert error.reason is ScrapeFailure.CLOSED
    assert server.accepted == 1


async def test_a_page_cut_short_is_not_asked_for_again(
    scripted_server: Any, make_client: Any
) -> None:
    server = await scripted_server(replies(page()))
    scrape = Scrape(make_client(), server.port)
    await scrape.get()
    server.answer = closes_after(OK + b"Content-Length: 9\r\n\r\nm")

    error = await scrape.get()

    assert isinstance(error, ScrapeError)
    assert error.reason is ScrapeFailure.CLOSED
    assert server.accepted == 1


@pytest.mark.parametrize(
    ("answer", "reason", "detail"),
    [
        pytest.param(
            replies(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"),
            ScrapeFailure.STATUS,
            "unexpected status code 503",
            id="S7-503",
        ),
        pytest.param(
            replies(b"HTTP/1.1 204 No Content\r\n\r\n"), ScrapeFailure.STATUS, "204", id="204"
        ),
        pytest.param(
            replies(b"SMTP ready\r\n"), ScrapeFailure.PROTOCOL, "not an HTTP/1.x", id="garbage"
        ),
        pytest.param(
            replies(OK + b"Content-Length: 2000\r\n\r\n"),
            ScrapeFailure.TOO_LARGE,
            "exceeds 1000 bytes",
            id="oversize",
        ),
        pytest.param(
            replies(page(gzip.compress(b"x" * 5000), b"Content-Encoding: gzip\r\n")),
            ScrapeFailure.TOO_LARGE,
            "exceeds 1000 bytes",
            id="gzip-bomb",
        ),
        pytest.param(
            closes_after(b"HTTP/1.0 200 OK\r\nContent-Encoding: gzip\r\n\r\nxx"),
            ScrapeFailure.PROTOCOL,
            "broken gzip",
            id="broken-gzip-without-length",
        ),
        pytest.param(closes_after(b""), ScrapeFailure.CLOSED, "connection lost", id="closed"),
    ],
)
async def test_a_failure_names_endpoint_and_cause(
    scripted_server: Any, make_client: Any, answer: Answer, reason: ScrapeFailure, detail: str
) -> None:
    server = await scripted_server(answer)

    error = await Scrape(make_client(max_page_bytes=1000), server.port).get()

    assert isinstance(error, TransportError)
    assert isinstance(error, ScrapeError)
    assert error.reason is reason
    assert detail in error.detail
    assert f"127.0.0.1:{server.port}" in str(error)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(hangs, id="no-answer"),
        pytest.param(replies(OK + b"Content-Length: 9\r\n\r\nm"), id="half-an-answer"),
    ],
)
async def test_a_slow_server_meets_the_deadline_and_the_connection_is_dropped(
    scripted_server: Any, make_client: Any, answer: Answer
) -> None:
    server = await scripted_server(answer)
    scrape = Scrape(make_client(timeout_seconds=0.05), server.port)

    error = await scrape.get()
    server.answer = replies(page())
    after = await scrape.get()

    assert isinstance(error, ScrapeError)
    assert error.reason is ScrapeFailure.TIMEOUT
    assert "0.05 s" in error.detail
    assert after == PAGE
    assert server.accepted == 2


async def test_the_deadline_covers_connecting(make_client: Any) -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        fillers = [socket.socket() for _ in range(3)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))

        error = await Scrape(make_client(timeout_seconds=0.05), port).get()

        for filler in fillers:
            filler.close()
    assert isinstance(error, ScrapeError)
    assert error.reason is ScrapeFailure.TIMEOUT


async def test_a_refused_connection_says_so(make_client: Any) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))

        error = await Scrape(make_client(), taken.getsockname()[1]).get()

    assert isinstance(error, ScrapeError)
    assert error.reason is ScrapeFailure.CONNECT
    assert "Connect call failed" in error.detail or "refused" in error.detail


async def test_an_ipv6_endpoint_is_named_in_brackets(
    scripted_server: Any, make_client: Any
) -> None:
    server = await scripted_server(replies(page()), host="::1")

    result = await Scrape(make_client(), server.port, "::1").get()

    assert result == PAGE
    assert f"Host: [::1]:{server.port}\r\n".encode() in server.heads[0]


def _redirect(location: str) -> bytes:
    return f"HTTP/1.1 307 Go\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()


@pytest.mark.parametrize(
    ("location", "target"),
    [
        pytest.param("/metrics/?name%5B%5D=m", "/metrics/?name%5B%5D=m", id="path"),
        pytest.param("other", "/other", id="relative"),
        pytest.param("http://127.0.0.1:{port}/metrics/", "/metrics/", id="same-host"),
    ],
)
async def test_one_redirect_on_the_same_host_is_followed(
    scripted_server: Any, make_client: Any, location: str, target: str
) -> None:
    server = await scripted_server(replies(b""))
    server.answer = replies(_redirect(location.format(port=server.port)), page())

    result = await Scrape(make_client(), server.port).get("name%5B%5D=m")

    assert result == PAGE
    assert server.targets == ["/metrics?name%5B%5D=m", target]
    assert server.accepted == 1


@pytest.mark.parametrize(
    "location",
    [
        pytest.param("http://10.9.9.9/metrics", id="other-host"),
        pytest.param("http://127.0.0.1:1/metrics", id="other-port"),
        pytest.param("https://127.0.0.1/metrics", id="other-scheme"),
        pytest.param("//[bad/metrics", id="not-a-url"),
        pytest.param("/a b", id="not-a-path"),
    ],
)
async def test_a_redirect_elsewhere_is_refused(
    scripted_server: Any, make_client: Any, location: str
) -> None:
    server = await scripted_server(replies(_redirect(location)))

    error = await Scrape(make_client(), server.port).get()

    assert isinstance(error, ScrapeError)
    assert "not on the same host" in error.detail
    assert len(server.targets) == 1


async def test_a_second_redirect_is_a_status(scripted_server: Any, make_client: Any) -> None:
    server = await scripted_server(replies(_redirect("/loop")))

    error = await Scrape(make_client(), server.port).get()

    assert isinstance(error, ScrapeError)
    assert error.status == 307
    assert len(server.targets) == 2


async def test_an_unasked_answer_ends_the_connection(
    scripted_server: Any, make_client: Any
) -> None:
    pushed = asyncio.Event()

    async def pushes(_target: str, writer: asyncio.StreamWriter) -> None:
        writer.write(page())
        await writer.drain()
        await pushed.wait()
        writer.write(page(b"m 666\n"))

    server = await scripted_server(pushes)
    scrape = Scrape(make_client(), server.port)
    await scrape.get()
    pushed.set()
    await scrape.lost.wait()
    server.answer = replies(page(b"m 2\n"))

    assert await scrape.get() == b"m 2\n"


async def test_a_closed_fetcher_reports_nothing_more(
    scripted_server: Any, make_client: Any
) -> None:
    server = await scripted_server(hangs)
    client = make_client(timeout_seconds=0.05)
    closed, other = Scrape(client, server.port), Scrape(client, server.port)
    closed.fetcher.get("")

    closed.fetcher.close()
    await other.get()

    assert closed.results.empty()


async def test_stopping_ends_connecting_and_connected_alike(
    scripted_server: Any, make_client: Any
) -> None:
    server = await scripted_server(replies(page()))
    client = make_client()
    idle, busy, connecting = (Scrape(client, server.port) for _ in range(3))
    await idle.get()
    await busy.get()
    server.answer = hangs
    busy.fetcher.get("")
    connecting.fetcher.get("")
    for scrape in (idle, busy, connecting):
        scrape.fetcher.close()

    await client.close()
    await server.all_closed.wait()

    assert client.open_connections == 0
    assert all(scrape.results.empty() for scrape in (idle, busy, connecting))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate of 127.0.0.1 with its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "pod")])
    now = datetime.now(UTC)
    cert = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = tmp_path_factory.mktemp("tls") / "pod.pem"
    pem.write_bytes(
        cert.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return pem


def _server_tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


@pytest.mark.parametrize(
    "verified", [pytest.param(False, id="unverified"), pytest.param(True, id="own-authority")]
)
async def test_https(
    scripted_server: Any, make_client: Any, certificate: Path, verified: bool
) -> None:
    server = await scripted_server(replies(page()), tls=_server_tls(certificate))
    trust = {"insecure_skip_verify": False, "ca_file": str(certificate)} if verified else {}
    scrape = Scrape(make_client(scheme="https", **trust), server.port)

    results = [await scrape.get() for _ in range(2)]

    assert results == [PAGE, PAGE]
    assert server.accepted == 1


async def test_https_refuses_a_certificate_it_does_not_trust(
    scripted_server: Any, make_client: Any, certificate: Path
) -> None:
    server = await scripted_server(replies(page()), tls=_server_tls(certificate))
    client = make_client(scheme="https", insecure_skip_verify=False)

    error = await Scrape(client, server.port).get()

    assert isinstance(error, ScrapeError)
    assert error.reason is ScrapeFailure.CONNECT
    assert "CERTIFICATE_VERIFY_FAILED" in error.detail.upper().replace(" ", "_")


async def test_https_to_a_server_that_speaks_http_fails_to_connect(make_client: Any) -> None:
    def refuses(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(refuses, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        error = await Scrape(make_client(scheme="https"), port).get()

    assert isinstance(error, ScrapeError)
    assert error.reason is ScrapeFailure.CONNECT


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        pytest.param({"scheme": "ftp"}, "--model-server-metrics-scheme.*'ftp'", id="scheme"),
        pytest.param({"path": "metrics"}, "--model-server-metrics-path.*'metrics'", id="path"),
        pytest.param({"path": "/a b"}, "--model-server-metrics-path", id="space-in-path"),
        pytest.param({"path": "/a\r\nX: y"}, "--model-server-metrics-path", id="line-in-path"),
        pytest.param({"timeout_seconds": 0.0}, "scrape timeout.*0.0", id="timeout"),
        pytest.param({"client_cert_file": "x"}, "clientKeyPath", id="certificate-without-key"),
        pytest.param(
            {"scheme": "https", "ca_file": "/nowhere.pem"}, "/nowhere.pem", id="authority-file"
        ),
    ],
)
def test_bad_settings_are_refused_by_name(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        MetricsClient(ClientSettings(**settings))
