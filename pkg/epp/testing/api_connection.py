"""One connection to an API server for tests: plain HTTP, JSON in and out.

Independent of ``epp.kube`` on purpose, so that no test of the client proves the client with itself.
A connection belongs to the event loop it was opened in.
"""

import asyncio
import contextlib
import json
import ssl
import time
from collections.abc import AsyncGenerator, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import aiohttp

from epp.kube.client_sockets import ClientSockets

JsonObject = Mapping[str, Any]

SERVED_SECONDS = 10.0
"""How long a kind may take to be served, after its CRD came or the API server started."""

_READ_BUFFER_BYTES = 1 << 20
"""The longest line of a watch is twice that; an object in etcd has at most 1.5 MB."""

_SETTING_UP = "storage is (re)initializing"
"""Message of the 429 that a kind answers until its storage is set up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """One entry of a Status object's ``details.causes``: a field and what is wrong with it."""

    field: str
    reason: str
    message: str


class StatusError(Exception):
    """The API server answered with something else than success.

    Attributes:
        status: HTTP status.
        reason: The Status object's ``reason``.
        message: Its ``message``.
        causes: Its causes, in the order of the answer.
    """

    def __init__(self, what: str, status: int, answer: JsonObject) -> None:
        self.status = status
        self.reason = str(answer.get("reason") or "")
        self.message = str(answer.get("message") or "")
        details = answer.get("details") or {}
        self.causes = tuple(
            Cause(
                field=str(cause.get("field") or ""),
                reason=str(cause.get("reason") or ""),
                message=str(cause.get("message") or ""),
            )
            for cause in details.get("causes") or ()
        )
        super().__init__(f"{what}: {status} {self.message or self.reason}")


class ApiConnection:
    """A connection with a token.

    Args:
        url: Base URL of the API server.
        token: Bearer token; empty is anonymous.
        ca_file: Certificate that signs the server's; empty where the URL is plain HTTP.
    """

    def __init__(self, url: str, token: str, ca_file: str = "") -> None:
        self.url = url
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._ssl = ssl.create_default_context(cafile=ca_file) if ca_file else None
        self._sockets = ClientSockets()
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        """Open, in the running event loop."""
        connector = aiohttp.TCPConnector(
            limit=0, ssl=self._ssl or True, socket_factory=self._sockets.make
        )
        self._session = aiohttp.ClientSession(
            connector=connector, headers=self._headers, read_bufsize=_READ_BUFFER_BYTES
        )
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _exc: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None
        await self._sockets.end()

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: object | None = None,
        content_type: str = "application/json",
        timeout_seconds: float = 30.0,
    ) -> Any:
        """One request; the answer decoded, or as text where it is no JSON.

        A kind whose storage is only being set up (after a restart, after its CRD came) is asked
        again, for ten seconds at most.

        Raises:
            StatusError: The status is 400 or above.
            OSError: There was no answer, or not in time.
        """
        deadline = time.monotonic() + SERVED_SECONDS
        while True:
            try:
                return await self._request(method, path, query, body, content_type, timeout_seconds)
            except StatusError as exc:
                if exc.message != _SETTING_UP or time.monotonic() > deadline:
                    raise
            await asyncio.sleep(0.05)

    async def _request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        body: object | None,
        content_type: str,
        timeout_seconds: float,
    ) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": content_type} if data is not None else {}
        timeout = aiohttp.ClientTimeout(total=timeout_seconds)
        target, params = self.url + path, dict(query or {})
        with _connection_errors(f"{method} {path}"):
            async with self._opened().request(
                method, target, params=params, data=data, headers=headers, timeout=timeout
            ) as response:
                text = await response.text()
        return _answer(f"{method} {path}", response.status, text)

    async def watch(
        self, path: str, *, query: Mapping[str, str] | None = None
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Events of a watch until the server ends it; to be closed (``contextlib.aclosing``).

        Raises:
            StatusError: It is refused.
            OSError: There was no answer, or the connection broke.
        """
        params = {**(query or {}), "watch": "true"}
        timeout = aiohttp.ClientTimeout(total=None)
        with _connection_errors(f"WATCH {path}"):
            async with self._opened().get(
                self.url + path, params=params, timeout=timeout
            ) as response:
                if response.status >= 400:
                    _answer(f"WATCH {path}", response.status, await response.text())
                async for line in response.content:
                    yield json.loads(line)

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("ApiConnection is used outside of `async with`")
        return self._session


def _answer(what: str, status: int, text: str) -> Any:
    answer: Any = text
    with contextlib.suppress(ValueError):
        answer = json.loads(text)
    if status >= 400:
        raise StatusError(what, status, answer if isinstance(answer, dict) else {"message": text})
    return answer


@contextlib.contextmanager
def _connection_errors(what: str) -> Iterator[None]:
    """Make OSErrors of the connection errors that are none."""
    try:
        yield
    except aiohttp.ClientError as exc:
        raise ConnectionError(f"{what}: {exc or type(exc).__name__}") from exc
