"""HTTP server of the metrics port: /metrics, /healthz, /readyz and JSON for people.

Runs on the event loop that serves requests, therefore everything it does is short: pages are made
in small steps. It owns its connections and ends them on ``stop``. Registered JSON routes are read
only and must be quick. With a guard everything but the two probes needs its consent.
"""

import asyncio
import contextlib
import ssl
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Protocol

import orjson
from prometheus_client.registry import CollectorRegistry

from epp.errors import BadRequestError
from epp.logs import get_logger
from epp.server import metrics_page
from epp.server.http_connection import (
    HttpLimits,
    HttpRequest,
    HttpResponse,
    plain,
    serve_connection,
)
from epp.transport.listening import listen

log = get_logger(__name__)

MAX_CONNECTIONS = 128
"""Scrapers and probes are few; more at once is an accident or an attack, and then the connection
that has been idle longest makes room."""

STOP_SECONDS = 5.0
"""How long responses under way may take after ``stop``."""

HANDSHAKE_SECONDS = 10.0
"""How long a client may take for a TLS handshake."""

GOODBYE_SECONDS = 1.0
"""How long a client may take to end TLS in order."""

_TLS_PATIENCE: Mapping[str, Any] = {
    "ssl_handshake_timeout": HANDSHAKE_SECONDS,
    "ssl_shutdown_timeout": GOODBYE_SECONDS,
}

JsonHandler = Callable[[str, Mapping[str, str]], object | None]
"""Called with the path and the query (last value of each name); None answers 404."""


class Guard(Protocol):
    """Decides who is served."""

    async def check(self, request: HttpRequest) -> HttpResponse | None:
        """Return the refusal of a request, None when it may be served."""
        ...

    async def stop(self) -> None:
        """End what is under way. Idempotent."""
        ...


class MetricsServer:
    """The server.

    Args:
        registry: What /metrics shows.
        port: 0 for a free one.
        host: Address to listen on; empty for all, IPv4 and IPv6.
        not_ready_reasons: Why requests cannot be served now; empty when they can.
        limits: Patience with clients.
        guard: Decides who is served; None serves everyone. Stopped with the server.
        tls: TLS of the port; None serves plain HTTP.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        *,
        port: int,
        host: str = "",
        not_ready_reasons: Callable[[], Sequence[str]],
        limits: HttpLimits | None = None,
        guard: Guard | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._registry = registry
        self._host = host
        self._wanted_port = port
        self._not_ready_reasons = not_ready_reasons
        self._limits = limits or HttpLimits()
        self._guard = guard
        self._tls = tls
        self._json_routes: dict[str, JsonHandler] = {}
        self._server: asyncio.Server | None = None
        self._connections: dict[asyncio.Task[None], bool] = {}
        self._stopping = False

    @property
    def open_connections(self) -> int:
        """Connections right now."""
        return len(self._connections)

    def add_json_route(self, path_prefix: str, handler: JsonHandler) -> None:
        """Serve JSON for a path and everything below it; the longest matching prefix wins.

        A handler may raise BadRequestError (400); anything else it raises is a 500.
        """
        self._json_routes[path_prefix.rstrip("/")] = handler

    async def start(self) -> int:
        """Listen, and return the port.

        Raises:
            ListenError: The address cannot be bound; names address and reason.
        """
        listener = listen(self._host, self._wanted_port)
        patience = {} if self._tls is None else _TLS_PATIENCE
        self._server = await asyncio.start_server(
            self._accept, sock=listener, ssl=self._tls, **patience
        )
        port = int(listener.getsockname()[1])
        log.info(
            "metrics server listens",
            address=self._host or "*",
            port=port,
            tls=self._tls is not None,
            tokens=self._guard is not None,
        )
        return port

    async def stop(self) -> None:
        """Stop listening, let responses under way finish, end every connection. Idempotent."""
        self._stopping = True
        if self._server is None:
            return
        self._server.close()
        for task, busy in self._connections.items():
            if not busy:
                task.cancel()
        if self._connections:
            await asyncio.wait(self._connections, timeout=STOP_SECONDS)
        leftovers = list(self._connections)
        for task in leftovers:
            task.cancel()
        await asyncio.gather(*leftovers, return_exceptions=True)
        if self._guard is not None:
            await self._guard.stop()
        await self._server.wait_closed()
        self._server = None

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or self._stopping or not self._has_room():
            writer.close()
            return
        task.set_name("metrics connection")
        self._connections[task] = False

        def set_busy(busy: bool) -> None:
            self._connections.pop(task, None)  # the one that has been idle longest comes first
            self._connections[task] = busy

        try:
            with contextlib.suppress(asyncio.CancelledError):  # stop() ends us; nobody awaits us
                await serve_connection(
                    reader, writer, self._respond, self._limits, lambda: self._stopping, set_busy
                )
        except Exception as exc:
            log.error("metrics connection failed", error=exc)
        finally:
            self._connections.pop(task, None)

    def _has_room(self) -> bool:
        """Make room if need be: who asks nothing must not keep a probe out."""
        if len(self._connections) < MAX_CONNECTIONS:
            return True
        idle = (task for task, busy in self._connections.items() if not busy)
        oldest = next(idle, None)
        if oldest is not None:
            del self._connections[oldest]
            oldest.cancel()
        return oldest is not None

    async def _respond(self, request: HttpRequest) -> HttpResponse:
        if request.method not in {"GET", "HEAD"}:
            return plain(HTTPStatus.METHOD_NOT_ALLOWED, Allow="GET, HEAD")
        match request.path:
            case "/healthz":
                return plain(HTTPStatus.OK, "ok")
            case "/readyz":
                return self._readiness()
        refusal = None if self._guard is None else await self._guard.check(request)
        if refusal is not None:
            return refusal
        return self._metrics(request) if request.path == "/metrics" else self._json(request)

    def _metrics(self, request: HttpRequest) -> HttpResponse:
        encode, content_type = metrics_page.choose_format(request.headers.get("accept", ""))
        names = request.query.get("name[]")
        registry: metrics_page.Registry = self._registry
        if names:
            registry = self._registry.restricted_registry(names)
        body = metrics_page.page(registry, encode)
        headers = {"Vary": "Accept, Accept-Encoding"}
        if metrics_page.gzip_accepted(request.headers.get("accept-encoding", "")):
            body = metrics_page.gzipped(body)
            headers["Content-Encoding"] = "gzip"
        return HttpResponse(content_type=content_type, body=body, headers=headers)

    def _readiness(self) -> HttpResponse:
        reasons = self._not_ready_reasons()
        if reasons:
            return plain(HTTPStatus.SERVICE_UNAVAILABLE, "\n".join(reasons))
        return plain(HTTPStatus.OK, "ok")

    def _json(self, request: HttpRequest) -> HttpResponse:
        handler = self._json_handler(request.path)
        if handler is None:
            return plain(HTTPStatus.NOT_FOUND)
        query = {name: values[-1] for name, values in request.query.items()}
        try:
            answer = handler(request.path, query)
            body = b"" if answer is None else _to_json(answer)
        except BadRequestError as exc:
            return plain(HTTPStatus.BAD_REQUEST, exc.message)
        except Exception as exc:
            log.error("debug route failed", path=request.path, error=exc)
            return plain(HTTPStatus.INTERNAL_SERVER_ERROR)
        if answer is None:
            return plain(HTTPStatus.NOT_FOUND)
        return HttpResponse(content_type="application/json", body=body)

    def _json_handler(self, path: str) -> JsonHandler | None:
        prefix = path
        while prefix:
            handler = self._json_routes.get(prefix)
            if handler is not None:
                return handler
            prefix = prefix.rpartition("/")[0]
        return None


def _to_json(answer: object) -> bytes:
    options = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS | orjson.OPT_APPEND_NEWLINE
    return orjson.dumps(answer, default=_plain_value, option=options)


def _plain_value(value: Any) -> object:
    """Collections that orjson does not know."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, set | frozenset):
        return sorted(value)
    raise TypeError(f"no JSON for {type(value).__name__}")
