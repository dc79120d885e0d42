"""MetricsClient: fetches metrics pages over keep-alive HTTP/1.1 connections of our own.

A ``PageFetcher`` per endpoint owns at most one connection and at most one scrape in progress; its
listener is called back from the event loop. The deadline covers everything from connecting to the
last byte, one redirect on the same host included. A connection that the server closed between two
scrapes is replaced once without an error. Only connecting takes a task. ``close`` leaves nothing
behind: every connection is aborted and every task awaited.

The port is the listener's business on every scrape; a fetcher is for one address and is thrown
away with it.
"""

import asyncio
import ssl
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urljoin, urlsplit

from epp.backend.endpoint import join_host_port
from epp.backend.scrape_connection import ScrapeConnection
from epp.backend.scrape_errors import ScrapeError, ScrapeFailure
from epp.backend.scrape_response import BadResponseError, Response
from epp.errors import ConfigError

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_CLOSE_WITHIN_SECONDS = 5.0
"""Bound of the wait for aborted connections on stop; the event loop reports them in one turn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSettings:
    """How pages are fetched.

    Attributes:
        scheme: ``http`` or ``https``.
        path: Path of the page.
        insecure_skip_verify: With https, accept any certificate: pods rarely have a good one.
        ca_file: With https and verification, the authorities to trust; empty takes the system's.
        client_cert_file: With https, our own certificate; empty presents none.
        client_key_file: Its key.
        timeout_seconds: Deadline of one scrape.
        max_page_bytes: Longest page, before and after decompression.
    """

    scheme: str = "http"
    path: str = "/metrics"
    insecure_skip_verify: bool = True
    ca_file: str = ""
    client_cert_file: str = ""
    client_key_file: str = ""
    timeout_seconds: float = 1.0
    max_page_bytes: int = 16 * 1024 * 1024

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        if self.scheme not in {"http", "https"}:
            raise _bad("--model-server-metrics-scheme", "must be http or https", self.scheme)
        if not self.path.startswith("/") or not self.path.isascii() or not self.path.isprintable():
            raise _bad("--model-server-metrics-path", "must be a path such as /metrics", self.path)
        if " " in self.path:
            raise _bad("--model-server-metrics-path", "must not contain a space", self.path)
        if bool(self.client_cert_file) != bool(self.client_key_file):
            raise _bad("clientCertPath", "needs clientKeyPath, and the reverse", None)
        if not self.timeout_seconds > 0:
            raise _bad("scrape timeout", "must be above 0", self.timeout_seconds)


class FetchListener(Protocol):
    """Who waits for pages. Exactly one of the first two methods follows each ``get``."""

    def page_arrived(self, page: bytes) -> None:
        """A page with status 200."""
        ...

    def fetch_failed(self, error: ScrapeError) -> None:
        """No page."""
        ...

    def connection_lost(self) -> None:
        """The server closed the connection between two scrapes: it may have died."""
        ...


class MetricsClient:
    """Makes fetchers and owns what they open.

    Raises:
        ConfigError: A certificate file cannot be used.
    """

    def __init__(self, settings: ClientSettings | None = None) -> None:
        self.settings = settings or ClientSettings()
        self.tls = _tls_context(self.settings) if self.settings.scheme == "https" else None
        self._open: set[ScrapeConnection] = set()
        self._connecting: set[asyncio.Task[None]] = set()
        self._all_closed: asyncio.Future[None] | None = None

    @property
    def open_connections(self) -> int:
        """Connections that stand, for tests and diagnosis."""
        return len(self._open)

    def fetcher(self, address: str, port: int, listener: FetchListener) -> "PageFetcher":
        """A fetcher of one address."""
        return PageFetcher(self, address, port, listener)

    async def close(self) -> None:
        """Abort every connection and wait until all are gone."""
        tasks = list(self._connecting)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for connection in list(self._open):
            connection.close()
        if self._open:
            self._all_closed = asyncio.get_running_loop().create_future()
            await asyncio.wait((self._all_closed,), timeout=_CLOSE_WITHIN_SECONDS)

    def own_task(self, task: asyncio.Task[None]) -> None:
        """Keep a connecting task until it ends."""
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    def connection_opened(self, connection: ScrapeConnection) -> None:
        """A fetcher's connection stands."""
        self._open.add(connection)

    def connection_gone(self, connection: ScrapeConnection) -> None:
        """A fetcher's connection is no more."""
        self._open.discard(connection)
        if not self._open and self._all_closed is not None and not self._all_closed.done():
            self._all_closed.set_result(None)


class PageFetcher:
    """Fetches the pages of one address; see the module for its rules.

    Args:
        client: Settings, and owner of connections and tasks.
        address: IP address, without brackets.
        port: TCP port.
        listener: Hears the result of each ``get``.
    """

    def __init__(
        self, client: MetricsClient, address: str, port: int, listener: FetchListener
    ) -> None:
        self.address = address
        self.port = port
        self.target = join_host_port(address, port)
        self._client = client
        self._settings = client.settings
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._requests: dict[str, bytes] = {}
        self._request = b""
        self._url = ""
        self._connection: ScrapeConnection | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._may_retry = False
        self._redirected = False

    def get(self, query: str) -> None:
        """Fetch the page once; the one before must have been reported.

        Args:
            query: Query string without the question mark; empty asks for the full page.
        """
        request = self._requests.get(query)
        if request is None:
            path = f"{self._settings.path}?{query}" if query else self._settings.path
            request = self._requests[query] = self._request_bytes(path)
        self._request = request
        self._redirected = False
        self._deadline = self._loop.call_later(self._settings.timeout_seconds, self._timed_out)
        self._send(reused=True)

    def close(self) -> None:
        """Abandon everything; the listener hears no more."""
        self._stop_deadline()
        self._drop_connection()

    def _send(self, *, reused: bool) -> None:
        connection = self._connection
        if connection is not None:
            self._may_retry = reused
            connection.send(self._request)
            return
        self._may_retry = False
        name = f"scrape connect {self.target}"
        self._connecting = self._loop.create_task(self._connect(), name=name)
        self._client.own_task(self._connecting)

    async def _connect(self) -> None:
        client, tls = self._client, self._client.tls
        connection = ScrapeConnection(
            self,
            self._settings.max_page_bytes,
            opened=client.connection_opened,
            closed=client.connection_gone,
        )
        try:
            await self._loop.create_connection(
                lambda: connection,
                self.address,
                self.port,
                ssl=tls,
                server_hostname=self.address if tls else None,
            )
        except asyncio.CancelledError:
            connection.close()
            raise
        except (OSError, ValueError, RuntimeError) as exc:
            if not connection.made:
                self._connecting = None
                self._fail(ScrapeFailure.CONNECT, f"cannot connect: {_cause(exc)}")

    def connection_ready(self, connection: ScrapeConnection) -> None:
        """Called by the connection."""
        self._connecting = None
        self._connection = connection
        connection.send(self._request)

    def response_arrived(self, connection: ScrapeConnection, response: Response) -> None:
        """Called by the connection."""
        if not response.keep_alive:
            self._forget(connection)
        if response.status in _REDIRECTS and response.location and not self._redirected:
            self._follow(response)
        elif response.status != 200:
            detail = f"unexpected status code {response.status}"
            self._fail(ScrapeFailure.STATUS, detail, status=response.status)
        else:
            self._stop_deadline()
            self._listener.page_arrived(response.body)

    def response_failed(self, connection: ScrapeConnection, problem: BadResponseError) -> None:
        """Called by the connection."""
        self._forget(connection)
        self._fail(problem.reason, problem.detail)

    def connection_closed(self, connection: ScrapeConnection, error: Exception | None) -> None:
        """Called by the connection."""
        self._forget(connection)
        if not connection.waiting:
            self._listener.connection_lost()
        elif self._may_retry and not connection.answer_started:
            self._send(reused=False)
        else:
            cause = _cause(error) if error else "the server closed it"
            self._fail(ScrapeFailure.CLOSED, f"connection lost: {cause}")

    def _follow(self, response: Response) -> None:
        asked = self._request.split(b" ", 2)[1].decode()
        origin = f"{self._settings.scheme}://{self.target}"
        path = _path_on(origin, asked, response.location)
        if path is None:
            detail = f"redirect to {response.location[:200]!r} is not on the same host"
            self._fail(ScrapeFailure.STATUS, detail, status=response.status)
            return
        self._redirected = True
        self._request = self._request_bytes(path)
        self._send(reused=True)

    def _request_bytes(self, path: str) -> bytes:
        return (
            f"GET {path} HTTP/1.1\r\nHost: {self.target}\r\n"
            "User-Agent: endpoint-picker\r\nAccept-Encoding: identity\r\n\r\n"
        ).encode("ascii")

    def _timed_out(self) -> None:
        self._deadline = None
        self._drop_connection()
        self._fail(ScrapeFailure.TIMEOUT, f"no answer within {self._settings.timeout_seconds:g} s")

    def _fail(self, reason: ScrapeFailure, detail: str, *, status: int = 0) -> None:
        self._stop_deadline()
        self._listener.fetch_failed(ScrapeError(self.target, reason, detail, status=status))

    def _stop_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _drop_connection(self) -> None:
        if self._connecting is not None:
            self._connecting.cancel()
            self._connecting = None
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _forget(self, connection: ScrapeConnection) -> None:
        if self._connection is connection:
            self._connection = None


def _tls_context(settings: ClientSettings) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=settings.ca_file or None)
        if settings.client_cert_file:
            context.load_cert_chain(settings.client_cert_file, settings.client_key_file)
    except OSError as exc:
        files = ", ".join(filter(None, (settings.ca_file, settings.client_cert_file)))
        raise _bad("metrics TLS", f"cannot load certificates: {exc}", files) from exc
    if settings.insecure_skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _path_on(origin: str, asked: str, location: str) -> str | None:
    """Path and query that a redirect leads to; None when it leaves the origin or is unusable."""
    try:
        url = urlsplit(urljoin(f"{origin}{asked}", location))
    except ValueError:
        return None
    path = f"{url.path or '/'}?{url.query}" if url.query else url.path or "/"
    usable = path.isascii() and path.isprintable() and " " not in path
    return path if usable and f"{url.scheme}://{url.netloc}" == origin else None


def _cause(exc: Exception) -> str:
    text = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)
    return text or type(exc).__name__


def _bad(field: str, problem: str, value: object) -> ConfigError:
    return ConfigError(problem, field=field, value=value)
