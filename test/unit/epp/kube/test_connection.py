"""TLS on both sides, proxies, and what errors say about them."""

import asyncio
import socket
import ssl
from typing import Any

import orjson
import pytest
from aiohttp import web

from epp.kube.client import KubeClient
from epp.kube.client_certificate import ClientCertificate
from epp.kube.connection_settings import ConnectionSettings
from epp.kube.errors import UnreachableError
from epp.testing.authority import Authority

AUTHORITY = Authority()
SERVER = AUTHORITY.issue("server", ["kubernetes.default.svc"])
SECRET = "s3cr3t"


class Server:
    """Answers with the name in the client's certificate; records what it was asked for."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.url = ""

    async def start(self, context: ssl.SSLContext | None = None) -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=context).start()
        scheme = "http" if context is None else "https"
        self.url = f"{scheme}://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        assert request.transport is not None
        certificate = request.transport.get_extra_info("peercert") or {}
        names = [value for ((key, value),) in certificate.get("subject", ()) if key == "commonName"]
        self.seen.append(request.raw_path)
        self.authorization = request.headers.get("Proxy-Authorization", "")
        return web.json_response({"client": names, "agent": request.headers["User-Agent"]})


@pytest.fixture
async def tls_server():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    SERVER.load_into(context)
    context.load_verify_locations(cadata=AUTHORITY.pem.decode())
    context.verify_mode = ssl.CERT_OPTIONAL
    server = Server()
    await server.start(context)
    yield server
    await server.stop()


@pytest.fixture
async def plain_server():
    server = Server()
    await server.start()
    yield server
    await server.stop()


async def ask(settings: ConnectionSettings, **options) -> Any:
    client = KubeClient(settings, **options)
    try:
        return orjson.loads(await client.request("GET", "/version", what="get version"))
    finally:
        await client.close()


def trusting(server: Server, **more) -> ConnectionSettings:
    return ConnectionSettings(
        server=server.url,
        ca_data=AUTHORITY.pem.decode(),
        tls_server_name="kubernetes.default.svc",
        **more,
    )


async def test_the_server_may_have_another_name_than_its_url(tls_server) -> None:
    answer = await ask(trusting(tls_server), user_agent="me/1")

    assert answer == {"client": [], "agent": "me/1"}


async def test_a_client_certificate_says_who_we_are(tls_server) -> None:
    settings = trusting(tls_server, client_certificate=AUTHORITY.issue("alice"))

    assert (await ask(settings))["client"] == ["alice"]


async def test_insecure_trusts_whoever_answers(tls_server) -> None:
    settings = ConnectionSettings(server=tls_server.url, insecure_skip_tls_verify=True)

    assert (await ask(settings))["client"] == []


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"ca_data": AUTHORITY.pem.decode()}, id="wrong-name"),
        pytest.param(
            {
                "ca_data": Authority("other").pem.decode(),
                "tls_server_name": "kubernetes.default.svc",
            },
            id="other-authority",
        ),
        pytest.param({}, id="system-authorities"),
    ],
)
async def test_a_server_that_is_not_trusted_is_named(tls_server, settings: dict[str, Any]) -> None:
    with pytest.raises(UnreachableError, match=r"get version: the certificate of 127.0.0.1 is not"):
        await ask(ConnectionSettings(server=tls_server.url, **settings))


class Certificates:
    """Credentials that bring a new certificate each time."""

    def __init__(self) -> None:
        self.certificate: ClientCertificate | None = None
        self._names = ["first", "second"]

    async def authorization(self) -> str:
        self.certificate = AUTHORITY.issue(self._names.pop(0))
        return ""

    def reject(self, authorization: str) -> bool:
        return False

    async def close(self) -> None:
        pass


async def test_a_new_certificate_means_new_connections(tls_server) -> None:
    client = KubeClient(trusting(tls_server), credentials=Certificates())

    answers = [orjson.loads(await client.request("GET", "/version")) for _ in range(2)]

    assert [answer["client"] for answer in answers] == [["first"], ["second"]]
    await client.close()


async def test_a_proxy_is_used_with_its_password(plain_server) -> None:
    proxy = plain_server.url.replace("http://", f"http://user:{SECRET}@")

    await ask(ConnectionSettings(server="http://api.example:8080", proxy=proxy))

    assert plain_server.seen == ["http://api.example:8080/version"]
    assert plain_server.authorization.startswith("Basic ")


async def test_a_proxy_that_refuses_is_named_without_its_password(plain_server) -> None:
    proxy = plain_server.url.replace("http://", f"http://user:{SECRET}@")

    with pytest.raises(UnreachableError, match="the proxy answers ") as caught:
        await ask(ConnectionSettings(server="https://api.example", proxy=proxy))

    assert SECRET not in str(caught.value)


async def test_a_proxy_that_is_away_is_named_without_its_password(plain_server) -> None:
    proxy = plain_server.url.replace("http://", f"http://user:{SECRET}@")
    await plain_server.stop()

    with pytest.raises(UnreachableError, match="cannot connect to the proxy 127.0.0.1:") as caught:
        await ask(ConnectionSettings(server="http://api.example", proxy=proxy))

    assert SECRET not in str(caught.value)


def serve_and_never_say_goodbye(listening: socket.socket, context: ssl.SSLContext) -> list[bytes]:
    """Answer one watch; return what arrives after the client's TLS goodbye and its FIN."""
    accepted, _ = listening.accept()
    accepted.settimeout(10)
    with context.wrap_socket(accepted, server_side=True) as conversation:
        conversation.recv(65536)
        conversation.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{}\n\r\n")
        last_words = conversation.recv(1)
        with socket.socket(fileno=conversation.detach()) as bare:
            bare.settimeout(10)
            return [last_words, bare.recv(1)]


async def test_closing_ends_watches_whose_server_does_not_say_goodbye() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    SERVER.load_into(context)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = asyncio.create_task(
            asyncio.to_thread(serve_and_never_say_goodbye, listening, context)
        )
        client = KubeClient(
            ConnectionSettings(
                server=f"https://127.0.0.1:{listening.getsockname()[1]}",
                ca_data=AUTHORITY.pem.decode(),
                tls_server_name="kubernetes.default.svc",
            )
        )
        async with client.lines("/watched", idle_seconds=30) as lines:
            assert await anext(aiter(lines)) == b"{}"
        await client.close()

        assert await server == [b"", b""]
