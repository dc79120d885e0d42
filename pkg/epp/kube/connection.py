"""HttpConnection: one ApiClient of ``kubernetes.aio`` and its pool, and nothing but HTTP.

The only module that imports ``kubernetes.aio.client`` and ``aiohttp``: 0.26 s of CPU and 35 MB,
which a process without an API server never pays (``client`` imports it when a client is made).
Whatever goes wrong on the way to an answer becomes an UnreachableError, whose text is put together
from parts that cannot hold a secret.

Traps of the library that are handled here: its default timeout of 300 s, the environment's proxies
behind our back, strict X.509 checks of newer Pythons that cluster CAs do not pass, a close that
leaves TLS connections behind.
"""

from collections.abc import Mapping

import aiohttp
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.client.rest import RESTClientObject

from epp.kube.client_certificate import ClientCertificate
from epp.kube.client_sockets import ClientSockets
from epp.kube.connection_settings import ConnectionSettings
from epp.kube.errors import UnreachableError

POOL_SIZE = 100
"""Requests and watches at once. One more waits, which its own deadline ends."""

CONNECT_SECONDS = 10.0

READ_BUFFER_BYTES = 256 * 1024
"""What is read ahead of a watch; also how much JSON is handled between two turns of the loop."""

_FAILURES = (aiohttp.ClientError, OSError, RuntimeError, ValueError)
"""What the library raises when there is no answer: RuntimeError when its session was closed,
ValueError for what cannot be written as HTTP."""


class Answer:
    """An answer whose head has arrived. Close it, whatever happens.

    Args:
        response: Of the HTTP library.
        what: Verb and resource, for errors.
    """

    def __init__(self, response: aiohttp.ClientResponse, what: str) -> None:
        self._response = response
        self._what = what
        self.status = response.status
        self.retry_after = response.headers.get("Retry-After", "")

    async def read(self) -> bytes:
        """The whole body. Raises UnreachableError."""
        try:
            return await self._response.read()
        except _FAILURES as exc:
            raise unreachable(self._what, exc) from exc

    async def read_some(self) -> bytes:
        """What has arrived of the body, at least one byte; empty at its end. As ``read``."""
        try:
            return await self._response.content.readany()
        except _FAILURES as exc:
            raise unreachable(self._what, exc) from exc

    def close(self) -> None:
        """Give the connection back if the body was read to its end, else drop it."""
        self._response.close()


class _RestClient(RESTClientObject):
    """The library's HTTP client, with sockets that can be ended."""

    def __init__(self, configuration: Configuration, sockets: ClientSockets) -> None:
        super().__init__(configuration)
        self._sockets = sockets

    def _create_connector(self) -> aiohttp.TCPConnector:
        return aiohttp.TCPConnector(
            limit=self.maxsize, ssl=self.ssl_context, socket_factory=self._sockets.make
        )


class HttpConnection:
    """A pool of connections to one API server, with one client certificate.

    Args:
        settings: Where and how.
        certificate: Presented in TLS handshakes, or None.
        user_agent: Names us in the server's logs.
    """

    def __init__(
        self,
        settings: ConnectionSettings,
        *,
        certificate: ClientCertificate | None,
        user_agent: str,
    ) -> None:
        configuration = Configuration(
            host=settings.server,
            ca_cert_data=settings.ca_data or None,
            verify_ssl=not settings.insecure_skip_tls_verify,
            tls_server_name=settings.tls_server_name or None,
            connection_pool_maxsize=POOL_SIZE,
            proxy=settings.proxy or None,
            client_session_kwargs={
                "trust_env": False,
                "read_bufsize": READ_BUFFER_BYTES,
            },
        )
        configuration.disable_strict_ssl_verification = True
        self._sockets = ClientSockets()
        self._api = ApiClient(configuration)
        self._api.rest_client = _RestClient(configuration, self._sockets)
        self._api.user_agent = user_agent
        if certificate is not None:
            certificate.load_into(self._api.rest_client.ssl_context)
        self.certificate = certificate

    async def send(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None,
        body: object | None,
        content_type: str,
        authorization: str,
        idle_seconds: float | None,
        what: str,
    ) -> Answer:
        """Send a request and wait for the head of its answer; the caller closes it.

        Args:
            method: HTTP method.
            path: Path below the server's base URL.
            query: Query parameters.
            body: JSON-serialisable; None sends none.
            content_type: Of the body.
            authorization: Authorization header; empty sends none.
            idle_seconds: Longest silence while the body is read; None leaves it to the caller.
            what: Verb and resource, for errors.

        Raises:
            UnreachableError: There is no answer.
        """
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        if body is not None:
            headers["Content-Type"] = content_type
        request = await self._api.param_serialize(
            method,
            path,
            query_params=dict(query or {}),
            header_params=headers,
            body=body,
            auth_settings=["BearerToken"] if authorization else [],
            _request_auth=_bearer_setting(authorization),
        )
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=CONNECT_SECONDS, sock_read=idle_seconds
        )
        try:
            answer = await self._api.call_api(*request, _request_timeout=timeout)
        except _FAILURES as exc:
            raise unreachable(what, exc) from exc
        return Answer(answer.response, what)

    async def close(self) -> None:
        """Close every connection; what is under way fails."""
        await self._api.close()  # type: ignore[no-untyped-call]  # has no annotations
        await self._sockets.end()


def unreachable(what: str, exc: Exception) -> UnreachableError:
    """The error for a request that a connection could not carry."""
    return UnreachableError(f"{what}: {_reason(exc)}")


def _bearer_setting(authorization: str) -> dict[str, str] | None:
    if not authorization:
        return None
    return {"type": "api_key", "in": "header", "key": "Authorization", "value": authorization}


def _reason(exc: Exception) -> str:
    """What happened. Never ``str()`` of an exception that may quote a proxy's URL."""
    match exc:
        case aiohttp.ClientConnectorCertificateError():
            return f"the certificate of {exc.host} is not trusted: {exc.certificate_error}"
        case aiohttp.ClientProxyConnectionError():
            return f"cannot connect to the proxy {exc.host}:{exc.port}: {_system(exc.os_error)}"
        case aiohttp.ClientConnectorError():
            return f"cannot connect to {exc.host}:{exc.port}: {_system(exc.os_error)}"
        case aiohttp.ClientHttpProxyError():
            return f"the proxy answers {exc.status} {exc.message}"
        case aiohttp.SocketTimeoutError():
            return "silent for too long"
        case TimeoutError():
            return "no answer in time"
        case OSError():
            return f"connection lost: {_system(exc)}"
        case aiohttp.ServerDisconnectedError():
            return "the server closed the connection"
        case aiohttp.ClientPayloadError():
            return "connection lost in the middle of an answer"
        case _:
            return f"failed ({type(exc).__name__})"


def _system(exc: OSError) -> str:
    return exc.strerror or type(exc).__name__
