"""A proxy in front of an API server that does to its clients what bad days do.

TLS on both sides, with the API server's own certificate towards the clients: a kubeconfig differs
in the port alone. Everything is passed on as it comes, a watch line by line. Every request is
recorded, also those that the proxy answers itself.

Faults hold until they are taken back, or for a number of requests; ``clear`` takes all back. When
several apply, the order is: refused connection, hang, delay, expired token, answered status.
"""

import asyncio
import contextlib
import json
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from types import TracebackType
from typing import Self

import aiohttp
from aiohttp import web
from yarl import URL

from epp.kube.client_sockets import ClientSockets
from epp.testing.envtest import HOST, LocalControlPlane
from epp.testing.seen_request import (
    Match,
    SeenRequest,
    every_request,
    is_list,
    is_watch,
    seen_request,
)

_HOP_BY_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "host", "upgrade"})
_BOOKMARK = b'{"type":"BOOKMARK"'
_MAX_BODY_BYTES = 16 << 20
BACKLOG = 128
_REASONS = {401: "Unauthorized", 403: "Forbidden", 410: "Expired", 429: "TooManyRequests"}


@dataclass(slots=True)
class _Answer:
    """Answer matching requests with a status, some times or until cleared."""

    match: Match
    status: int
    times: int | None
    retry_after_seconds: int | None = None
    in_stream: bool = False


@dataclass(slots=True, eq=False)
class _OpenWatch:
    request: web.Request
    upstream: aiohttp.ClientResponse
    ends_cleanly: bool = False


@dataclass(slots=True)
class _Delay:
    match: Match
    seconds: float


@dataclass(slots=True)
class _Faults:
    answers: list[_Answer] = field(default_factory=list)
    delays: list[_Delay] = field(default_factory=list)
    expired_tokens: set[str] = field(default_factory=set)
    truncations: int = 0


class ApiFaults:
    """The proxy; belongs to the event loop it was opened in.

    Args:
        control_plane: What it stands in front of.

    Attributes:
        requests: Every request so far, in order of arrival; may be cleared.
        drop_bookmarks: Take bookmarks out of watches, the one that ends the initial events too.
    """

    def __init__(self, control_plane: LocalControlPlane) -> None:
        self.requests: list[SeenRequest] = []
        self.drop_bookmarks = False
        self.port = 0
        self._plane = control_plane
        self._faults = _Faults()
        self._watches: set[_OpenWatch] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._cutter: asyncio.Task[None] | None = None
        self._sockets = ClientSockets()
        self._session: aiohttp.ClientSession | None = None
        self._runner: web.AppRunner | None = None
        self._site: web.SockSite | None = None
        self._listener: socket.socket | None = None

    @property
    def url(self) -> str:
        """Base URL for clients; the same after refused connections."""
        return f"https://{HOST}:{self.port}"

    @property
    def open_watches(self) -> int:
        """Watches that are being passed on."""
        return len(self._watches)

    async def __aenter__(self) -> Self:
        """Listen on a free port."""
        upstream_tls = ssl.create_default_context(cafile=str(self._plane.ca_file))
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0, ssl=upstream_tls, socket_factory=self._sockets.make
            ),
            timeout=aiohttp.ClientTimeout(total=None),
            auto_decompress=False,
            skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
        )
        application = web.Application(client_max_size=_MAX_BODY_BYTES)
        application.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(
            application, handler_cancellation=True, access_log=None, shutdown_timeout=0.1
        )
        await self._runner.setup()
        await self.accept_connections()
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _exc: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        """Close everything."""
        await self.cut_watches_every(0)
        self._abort_connections()
        if self._runner is not None:
            await self._runner.cleanup()
        if self._session is not None:
            await self._session.close()
        await self._sockets.end()

    def seen(self, match: Match = every_request) -> list[SeenRequest]:
        """Requests so far that match."""
        return [seen for seen in self.requests if match(seen)]

    async def clear(self) -> None:
        """Take every fault back."""
        self._faults = _Faults()
        self.drop_bookmarks = False
        self.resume()
        await self.cut_watches_every(0)
        await self.accept_connections()

    def answer(
        self,
        status: int,
        *,
        times: int | None = 1,
        match: Match = every_request,
        retry_after_seconds: int | None = None,
    ) -> None:
        """Answer the next matching requests with a status, without asking the API server.

        Args:
            status: Such as 410, 429, 500.
            times: How many; None is all until ``clear``.
            match: Which ones.
            retry_after_seconds: Sent as Retry-After.
        """
        self._faults.answers.append(_Answer(match, status, times, retry_after_seconds))

    def expire_watches(self, times: int | None = 1, *, match: Match = is_watch) -> None:
        """Accept the next watches with 200 and end them with an ERROR event of code 410."""
        self._faults.answers.append(_Answer(match, 410, times, in_stream=True))

    def truncate_watches(self, times: int = 1) -> None:
        """Send only half of the next event of a watch, and end the answer there."""
        self._faults.truncations += times

    def expire_token(self, token: str) -> None:
        """Answer 401 to every request with this token from now on."""
        self._faults.expired_tokens.add(token)

    def delay(self, seconds: float, *, match: Match = is_list) -> None:
        """Let matching requests wait before they are passed on."""
        self._faults.delays.append(_Delay(match, seconds))

    def hang(self) -> None:
        """Take connections and requests, but answer nothing; open watches fall silent."""
        self._flowing.clear()

    def resume(self) -> None:
        """End ``hang``: what waited goes on."""
        self._flowing.set()

    async def refuse_connections(self) -> None:
        """Close the port and drop every connection, as a crashed API server does."""
        if self._site is not None and self._listener is not None:
            # Whoever has just been accepted gets a transport first: asyncio (3.11) would lose the
            # socket of a connection whose server is closed in between.
            asyncio.get_running_loop().remove_reader(self._listener)
            await asyncio.sleep(0)
            await self._site.stop()
            self._site = self._listener = None
        self._abort_connections()

    async def accept_connections(self) -> None:
        """Open the port, the same as before."""
        if self._site is None and self._runner is not None:
            tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            tls.load_cert_chain(self._plane.ca_file, self._plane.key_file)
            self._listener = socket.create_server((HOST, self.port), backlog=BACKLOG)
            self.port = int(self._listener.getsockname()[1])
            self._site = web.SockSite(self._runner, self._listener, ssl_context=tls)
            await self._site.start()

    def cut_watches(self, *, clean: bool = False) -> int:
        """End every open watch; return how many.

        Args:
            clean: As a server does whose time for the watch is over; otherwise reset the connection.
        """
        watches = list(self._watches)
        for watch in watches:
            watch.ends_cleanly = clean
            if not clean:
                _abort(watch.request)
            watch.upstream.close()
        return len(watches)

    async def cut_watches_every(self, seconds: float, *, clean: bool = False) -> None:
        """Cut again and again; 0 ends that."""
        if self._cutter is not None:
            self._cutter.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._cutter
            self._cutter = None
        if seconds > 0:
            cutting = self._keep_cutting(seconds, clean=clean)
            self._cutter = asyncio.create_task(cutting, name="cut watches")

    async def _keep_cutting(self, seconds: float, *, clean: bool) -> None:
        while True:
            await asyncio.sleep(seconds)
            self.cut_watches(clean=clean)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        seen = seen_request(request)
        self.requests.append(seen)
        await self._flowing.wait()
        for delay in self._faults.delays:
            if delay.match(seen):
                await asyncio.sleep(delay.seconds)
        if seen.token in self._faults.expired_tokens:
            return _status_response(seen, 401)
        answer = self._take_answer(seen)
        if answer is None:
            return await self._pass_on(request, seen)
        if answer.in_stream:
            return await _expired_stream(request, seen)
        return _status_response(seen, answer.status, answer.retry_after_seconds)

    def _take_answer(self, seen: SeenRequest) -> _Answer | None:
        for answer in self._faults.answers:
            if answer.match(seen):
                if answer.times is not None:
                    answer.times -= 1
                    if answer.times == 0:
                        self._faults.answers.remove(answer)
                return answer
        return None

    async def _pass_on(self, request: web.Request, seen: SeenRequest) -> web.StreamResponse:
        if self._session is None:
            raise RuntimeError("ApiFaults is used outside of `async with`")
        body = await request.read()
        response: web.StreamResponse | None = None
        try:
            async with self._session.request(
                request.method,
                URL(self._plane.url + request.rel_url.raw_path_qs, encoded=True),
                headers=_end_to_end(request.headers),
                data=body or None,
                allow_redirects=False,
            ) as upstream:
                await self._flowing.wait()
                response = web.StreamResponse(
                    status=upstream.status,
                    reason=upstream.reason,
                    headers=_end_to_end(upstream.headers),
                )
                await response.prepare(request)
                seen.status = upstream.status
                await self._relay(request, seen, upstream, response)
        except (aiohttp.ClientError, OSError):
            # As if the API server's end of the connection had been ours.
            _abort(request)
        return response or web.Response(status=HTTPStatus.BAD_GATEWAY)

    async def _relay(
        self,
        request: web.Request,
        seen: SeenRequest,
        upstream: aiohttp.ClientResponse,
        response: web.StreamResponse,
    ) -> None:
        if not is_watch(seen):
            async for chunk in upstream.content.iter_any():
                await self._flowing.wait()
                await response.write(chunk)
            return
        watch = _OpenWatch(request, upstream)
        self._watches.add(watch)
        try:
            async for lines in _whole_lines(upstream.content):
                await self._flowing.wait()
                kept = [line for line in lines if not self._is_dropped(line)]
                if kept and self._faults.truncations > 0:
                    self._faults.truncations -= 1
                    await response.write(kept[0][: len(kept[0]) // 2])
                    return
                if kept:
                    await response.write(b"".join(kept))
        except (aiohttp.ClientError, OSError):
            if not watch.ends_cleanly:
                raise
        finally:
            self._watches.discard(watch)

    def _is_dropped(self, line: bytes) -> bool:
        return self.drop_bookmarks and line.startswith(_BOOKMARK)

    def _abort_connections(self) -> None:
        server = None if self._runner is None else self._runner.server
        for connection in [] if server is None else server.connections:
            if connection.transport is not None:
                connection.transport.abort()


async def _whole_lines(content: aiohttp.StreamReader) -> AsyncIterator[list[bytes]]:
    """Lines as they arrive; only the beginning of an unfinished one is held back."""
    unfinished = b""
    async for chunk in content.iter_any():
        *lines, unfinished = (unfinished + chunk).split(b"\n")
        if lines:
            yield [line + b"\n" for line in lines]


def _status_object(status: int, retry_after_seconds: int | None = None) -> dict[str, object]:
    details = {} if retry_after_seconds is None else {"retryAfterSeconds": retry_after_seconds}
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": f"injected: {HTTPStatus(status).phrase.lower()}",
        "reason": _REASONS.get(status, "InternalError"),
        "details": details,
        "code": status,
    }


def _status_response(
    seen: SeenRequest, status: int, retry_after_seconds: int | None = None
) -> web.Response:
    seen.status = status
    headers = {} if retry_after_seconds is None else {"Retry-After": str(retry_after_seconds)}
    body = _status_object(status, retry_after_seconds)
    return web.json_response(body, status=status, headers=headers)


async def _expired_stream(request: web.Request, seen: SeenRequest) -> web.StreamResponse:
    seen.status = 200
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    event = {"type": "ERROR", "object": _status_object(410)}
    await response.write(json.dumps(event, separators=(",", ":")).encode() + b"\n")
    return response


def _end_to_end(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.lower() not in _HOP_BY_HOP}


def _abort(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()
