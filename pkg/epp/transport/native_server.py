"""NativeServer: the transport that answers straight from the socket (HTTP/2 by ``http2``).

The same seam as the transport on ``grpc.aio``, for a fraction of its cost: no task, future or
queue per stream or message. It drains in the two steps of RFC 9113: a notice, after which peers
open their streams elsewhere while those on the way arrive (``announce_shutdown``), then the last
stream's number (``stop``).
Reference: the measured costs of both transports are in docs/performance.md.
"""

import asyncio
import ssl
import time
from collections.abc import Callable, Mapping
from typing import Any

from epp.logs import get_logger
from epp.transport.limits import DEFAULT_LIMITS, TransportLimits
from epp.transport.listening import BACKLOG, listen
from epp.transport.native_protocol import NativeProtocol
from epp.transport.stats import TransportStats
from epp.transport.stream import Services
from epp.transport.tls_context import TlsContext

log = get_logger(__name__)

NOTICE_SECONDS = 0.5
"""Between the notice and the last number: longer than a round trip to any peer."""

CHECKS_AT_ONCE = 200
"""Connections looked after in one turn: about half a millisecond."""

TLS_END_SECONDS = 1.0
"""How long a peer may take to end TLS in order."""

POLL_SECONDS = 0.02
"""While draining: how often to look whether peers have heard, and have nothing left to do."""

END_SECONDS = 2.0
"""After the drain: how long connections may take to close."""

CUT_SECONDS = 10.0
"""After that: how long the handlers of connections that were cut may take to be told."""


class NativeServer:
    """Serves streams of raw messages on one port.

    Args:
        services: Factory of handlers by full method path; any other path is UNIMPLEMENTED.
        host: Address to bind: IPv4, IPv6 without brackets, or a name; empty is every address.
        port: Port to bind; 0 takes a free one.
        limits: What peers may use.
        tls: TLS of the port; None serves plain text.
        reuse_port: Let other processes of ours bind the same port, each taking a share.
        clock: Monotonic seconds, fine enough for turns.
    """

    def __init__(
        self,
        services: Services,
        *,
        host: str = "",
        port: int = 0,
        limits: TransportLimits = DEFAULT_LIMITS,
        tls: ssl.SSLContext | None = None,
        reuse_port: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.stats = TransportStats()
        self._services = services
        self._host = host
        self._port = port
        self._limits = limits
        self._tls = tls
        self._reuse_port = reuse_port
        self._clock = clock
        self._protocols: dict[NativeProtocol, None] = {}
        self._server: asyncio.Server | None = None
        self._keeper: asyncio.TimerHandle | None = None
        self._unchecked: list[NativeProtocol] = []
        if isinstance(tls, TlsContext):
            tls.errors = self.stats.errors

    @property
    def open_streams(self) -> int:
        """Streams open right now."""
        return sum(protocol.connection.open_streams for protocol in self._protocols)

    @property
    def open_connections(self) -> int:
        """Connections open right now."""
        return len(self._protocols)

    async def start(self) -> int:
        """Bind and serve; return the port. Raises ListenError naming address and reason."""
        loop = asyncio.get_running_loop()
        listener = listen(self._host, self._port, reuse_port=self._reuse_port)
        self._server = await loop.create_server(
            lambda: NativeProtocol(
                self, self._services, self._limits, self.stats, loop, self._clock
            ),
            sock=listener,
            backlog=BACKLOG,
            ssl=self._tls,
            **self._tls_patience(),
        )
        self._keeper = loop.call_later(self._limits.check_seconds, self._look_after)
        return int(listener.getsockname()[1])

    def announce_shutdown(self) -> None:
        """Ask every peer to open its next streams elsewhere; serve on, also who connects now."""
        for protocol in list(self._protocols):
            protocol.announce_shutdown()

    async def stop(self, grace_seconds: float) -> None:
        """Refuse new streams, let open ones finish for at most the grace time, then end them.

        Those left then are closed with UNAVAILABLE and ``CloseReason.SHUTDOWN``.
        """
        if self._server is None:
            return
        server, self._server = self._server, None
        server.close()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + grace_seconds
        self.announce_shutdown()
        await self._until_heard(min(deadline, loop.time() + NOTICE_SECONDS))
        for protocol in list(self._protocols):
            protocol.go_away()
        await self._until_closed(deadline)
        for protocol in list(self._protocols):
            protocol.shut_down()
        await self._until_closed(loop.time() + END_SECONDS)
        for protocol in list(self._protocols):
            protocol.abort()
        await self._until_closed(loop.time() + CUT_SECONDS)
        if self._keeper is not None:
            self._keeper.cancel()

    # What connections call

    def opened(self, protocol: NativeProtocol) -> bool:
        """Make room for a connection; False when every other one is in use."""
        self._protocols[protocol] = None
        if self._server is None:  # its handshake took longer than we live
            protocol.go_away()
            return True
        if len(self._protocols) <= self._limits.max_connections:
            return True
        others = (p for p in self._protocols if p.idle and not p.closing and p is not protocol)
        oldest = min(others, key=lambda p: p.connection.used_at, default=None)
        if oldest is None:
            return False
        self.stats.errors["idle made room"] += 1
        oldest.go_away()
        return True

    def closed(self, protocol: NativeProtocol) -> None:
        """A connection is gone."""
        self._protocols.pop(protocol, None)

    # Inside

    async def _until_heard(self, deadline: float) -> None:
        """Wait until every peer knows that we are shutting down: it opens no more streams then."""
        loop = asyncio.get_running_loop()
        while loop.time() < deadline:
            if all(protocol.connection.control.notice_heard for protocol in self._protocols):
                return
            await asyncio.sleep(POLL_SECONDS)

    async def _until_closed(self, deadline: float) -> None:
        loop = asyncio.get_running_loop()
        while self._protocols and loop.time() < deadline:
            for protocol in list(self._protocols):
                protocol.close_if_quiet()
            await asyncio.sleep(POLL_SECONDS)

    def _look_after(self) -> None:
        """Check every connection, some at a time, so that thousands do not hold the loop."""
        loop = asyncio.get_running_loop()
        now = self._clock()
        if not self._unchecked:
            self._unchecked = list(self._protocols)
        for _ in range(min(CHECKS_AT_ONCE, len(self._unchecked))):
            self._unchecked.pop().check(now)
        delay = 0.0 if self._unchecked else self._limits.check_seconds
        self._keeper = loop.call_later(delay, self._look_after)

    def _tls_patience(self) -> Mapping[str, Any]:
        if self._tls is None:
            return {}
        return {
            "ssl_handshake_timeout": self._limits.handshake_seconds,
            "ssl_shutdown_timeout": TLS_END_SECONDS,
        }
