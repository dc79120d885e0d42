"""KubeClient: requests to the API server as bytes in and bytes out.

Owns one ``connection.HttpConnection`` (an ApiClient of ``kubernetes.aio``) and the credentials. What
the library leaves to its user happens here: the status is checked, every request has a deadline,
an answer is closed whatever happens, a 401 is worth one more try with fresh credentials. Errors
are ``epp.kube.errors`` only, name verb, resource and namespace, and never hold a token.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Never, Protocol

import msgspec

from epp.kube.client_certificate import ClientCertificate
from epp.kube.connection_settings import ConnectionSettings
from epp.kube.credentials import Credentials, credentials_for
from epp.kube.errors import ApiError, UnauthorizedError, UnreachableError, api_error
from epp.kube.exec_plugin import CredentialsError
from epp.kube.foreign_text import first_line
from epp.version import __version__

OPEN_SECONDS = 30.0
"""A watch must have its status line by then."""

MAX_LINE_BYTES = 16 * 1024 * 1024
"""Ten times what etcd stores of one object; beyond it the peer is not an API server."""

_MAX_ERROR_BYTES = 64 * 1024


class Answer(Protocol):
    """An answer whose head has arrived."""

    status: int
    retry_after: str

    async def read(self) -> bytes:
        """The whole body."""
        ...

    async def read_some(self) -> bytes:
        """What has arrived of the body; empty at its end."""
        ...

    def close(self) -> None:
        """Nothing more is read."""
        ...


class Connection(Protocol):
    """What carries requests; ``connection.HttpConnection``."""

    certificate: ClientCertificate | None

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
        """Send a request and wait for the head of its answer."""
        ...

    async def close(self) -> None:
        """Close every connection."""
        ...


class KubeClient:
    """A client of one API server, for one event loop. Make one and close it.

    Args:
        settings: Where the server is and who we are.
        user_agent: Names us in the server's logs.
        credentials: Who we are, when that is not to be derived from the settings.
    """

    def __init__(
        self,
        settings: ConnectionSettings,
        *,
        user_agent: str = f"endpoint-picker/{__version__}",
        credentials: Credentials | None = None,
    ) -> None:
        self._settings = settings
        self._user_agent = user_agent
        self._credentials = credentials or credentials_for(settings.identity)
        self._connection = self._connect()
        self._closed = False

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: object | None = None,
        content_type: str = "application/json",
        timeout_seconds: float = 30.0,
        what: str = "",
    ) -> bytes:
        """Send one request and return the body of its answer.

        Args:
            method: HTTP method.
            path: Path of the API, from ``Resource.path``.
            query: Query parameters.
            body: JSON-serialisable; None sends none.
            content_type: Of the body; tells patches apart. The library turns a JSON patch that is
                not a list into a strategic merge patch.
            timeout_seconds: For everything, fresh credentials included.
            what: Verb, resource and namespace for the error's text; empty is method and path.

        Raises:
            ApiError: The subclass that fits the answer, or UnreachableError without one.
        """
        what = what or f"{method} {path}"
        try:
            async with asyncio.timeout(timeout_seconds):
                answer = await self._send(
                    method, path, query, body, content_type, idle_seconds=None, what=what
                )
                try:
                    return await answer.read()
                finally:
                    answer.close()
        except TimeoutError as exc:
            raise UnreachableError(f"{what}: no answer within {timeout_seconds:g} s") from exc

    @asynccontextmanager
    async def lines(
        self,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        idle_seconds: float,
        what: str = "",
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Open a watch: one JSON document per item, until the server ends it.

        Args:
            path: Path of the API.
            query: Query parameters.
            idle_seconds: Longest silence; then the connection counts as dead.
            what: Verb, resource and namespace for the error's text; empty is ``watch`` and path.

        Raises:
            ApiError: As ``request``, when the watch is opened; later UnreachableError only.
        """
        what = what or f"watch {path}"
        try:
            async with asyncio.timeout(OPEN_SECONDS):
                answer = await self._send(
                    "GET", path, query, None, "", idle_seconds=idle_seconds, what=what
                )
        except TimeoutError as exc:
            raise UnreachableError(f"{what}: no answer within {OPEN_SECONDS:g} s") from exc
        try:
            yield _Lines(answer, what)
        finally:
            answer.close()

    async def close(self) -> None:
        """Close every connection. Idempotent; later requests are refused."""
        self._closed = True
        await self._credentials.close()
        await self._connection.close()

    async def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        body: object | None,
        content_type: str,
        *,
        idle_seconds: float | None,
        what: str,
    ) -> Answer:
        """Return an answer with a good status; the caller closes it."""
        for last_try in (False, True):
            if self._closed:
                raise UnreachableError(f"{what}: the client is closed")
            authorization = await self._authorization(what)
            answer = await self._connection.send(
                method,
                path,
                query=query,
                body=body,
                content_type=content_type,
                authorization=authorization,
                idle_seconds=idle_seconds,
                what=what,
            )
            if 200 <= answer.status < 300:
                return answer
            try:
                error = await _refusal(answer, what, authorization)
            finally:
                answer.close()
            refused = isinstance(error, UnauthorizedError)
            if last_try or not refused or not self._credentials.reject(authorization):
                break
        raise error

    async def _authorization(self, what: str) -> str:
        """The header of the next request; a new certificate of a plugin means new connections."""
        try:
            authorization = await self._credentials.authorization()
        except CredentialsError as exc:
            raise UnauthorizedError(f"{what}: {exc}") from exc
        certificate = self._credentials.certificate
        if certificate is not None and certificate != self._connection.certificate:
            outdated, self._connection = self._connection, self._connect(certificate)
            await outdated.close()
        return authorization

    def _connect(self, certificate: ClientCertificate | None = None) -> Connection:
        # Imported late: 35 MB that only a process with an API server needs.
        from epp.kube.connection import HttpConnection

        return HttpConnection(
            self._settings,
            certificate=certificate or self._settings.client_certificate,
            user_agent=self._user_agent,
        )


class _Lines:
    """The lines of a body that is still being sent."""

    def __init__(self, answer: Answer, what: str) -> None:
        self._answer = answer
        self._what = what
        self._ready: deque[bytes] = deque()
        self._rest = b""

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        while not self._ready:
            some = await self._answer.read_some()
            if not some:
                self._end()
            self._split(some)
        return self._ready.popleft()

    def _end(self) -> Never:
        if self._rest:
            raise UnreachableError(f"{self._what}: cut in the middle of an event")
        raise StopAsyncIteration

    def _split(self, some: bytes) -> None:
        *lines, self._rest = (self._rest + some).split(b"\n")
        self._ready.extend(line for line in lines if line)
        if len(self._rest) > MAX_LINE_BYTES:
            raise UnreachableError(f"{self._what}: an event is longer than {MAX_LINE_BYTES} bytes")


async def _refusal(answer: Answer, what: str, authorization: str) -> ApiError:
    """The error of an answer with a bad status; shows nothing of what we authorised with."""
    body = b""
    while len(body) < _MAX_ERROR_BYTES and (some := await answer.read_some()):
        body += some
    try:
        status, text = msgspec.json.decode(body, type=dict[str, Any]), ""
    except msgspec.DecodeError:  # of somebody in between, or of a server that expects TLS
        status, text = None, first_line(body, hide=authorization)
    asked = answer.retry_after
    retry_after = float(asked) if asked.isdecimal() else None
    return api_error(what, answer.status, status, text=text, retry_after=retry_after)
