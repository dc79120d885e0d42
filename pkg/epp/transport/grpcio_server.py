"""The transport on ``grpc.aio``: the fallback of the native one, and its oracle in tests.

grpc.aio runs one coroutine per stream; it reads, calls the handler, and writes what the handler
sent before it reads again. Only a ``send`` or ``finish`` from outside a call needs a task of its
own, and ends with it.

Invariants of a stream, whoever sends and whatever breaks:

* one writer at a time: the coroutine while ``_busy``, else the flusher, both from one queue, so
  the order of sends is the order on the wire;
* the coroutine is cancelled in two cases: by the library when the peer or its connection goes away
  (nothing is left to say), and by ``_interrupt`` once a ``finish`` from outside has been flushed;
* ``on_closed`` runs in one place, at the end of the coroutine.
"""

import asyncio
import contextlib
import functools
from collections import deque
from collections.abc import Awaitable, Callable

import grpc
import grpc.aio

from epp.logs import get_logger
from epp.transport.listening import ListenError, listen
from epp.transport.stream import (
    CloseReason,
    Metadata,
    Services,
    StatusCode,
    StreamFactory,
    StreamHandler,
)

log = get_logger(__name__)

DEFAULT_MAX_RECEIVE_BYTES = 33 << 20
"""Largest message of a peer: Envoy's buffer of 32 MiB for one body, and 1 MiB around it."""

KEEPALIVE_SECONDS = 60
KEEPALIVE_TIMEOUT_SECONDS = 20
MIN_PEER_PING_SECONDS = 5
"""A peer that pings more often than this, without data in between, is told to go away."""

STOP_SLACK_SECONDS = 1.0
"""How long after the grace time the library may take to carry the last status to the peers."""

_CODES = {code: grpc.StatusCode[code.name] for code in StatusCode}

_Context = grpc.aio.ServicerContext[bytes, bytes]


class GrpcioServer:
    """Serves streams of raw messages on one port.

    Args:
        services: Factory of handlers by full method path; any other path is UNIMPLEMENTED.
        host: Address to bind: IPv4, IPv6 without brackets, or a name; empty is every address.
        port: Port to bind; 0 takes a free one.
        max_receive_bytes: Largest message that a peer may send; a larger one ends its stream.
        max_send_bytes: Largest message that we may send; None is no limit.
        credentials: TLS of the port; None serves plain text.
    """

    def __init__(
        self,
        services: Services,
        *,
        host: str = "",
        port: int = 0,
        max_receive_bytes: int = DEFAULT_MAX_RECEIVE_BYTES,
        max_send_bytes: int | None = None,
        credentials: grpc.ServerCredentials | None = None,
    ) -> None:
        self._services = services
        self._host = host
        self._port = port
        self._address = f"{host}:{port}" if host and ":" not in host else f"[{host or '::'}]:{port}"
        self._max_receive_bytes = max_receive_bytes
        self._max_send_bytes = -1 if max_send_bytes is None else max_send_bytes
        self._credentials = credentials
        self._streams: set[_Stream] = set()
        self._server: grpc.aio.Server | None = None

    @property
    def open_streams(self) -> int:
        """Streams open right now."""
        return len(self._streams)

    async def start(self) -> int:
        """Bind and serve; return the port. Raises ListenError naming address and reason."""
        server = grpc.aio.server(options=self._options())
        server.add_generic_rpc_handlers((_Router(self._services, self._serve),))
        try:
            port = self._bind(server)
        except RuntimeError as error:
            raise self._why_not() from error
        if port == 0:
            raise self._why_not()
        await server.start()
        self._server = server
        return port

    def announce_shutdown(self) -> None:
        """Do nothing: the library tells its peers when it stops, and not before."""

    async def stop(self, grace_seconds: float) -> None:
        """Refuse new streams, let open ones finish for at most the grace time, then end them.

        Those left then are closed with UNAVAILABLE and ``CloseReason.SHUTDOWN``.
        """
        if self._server is None:
            return
        server, self._server = self._server, None
        loop = asyncio.get_running_loop()
        ending = loop.call_later(grace_seconds, self._end_streams)
        try:
            await server.stop(grace_seconds + STOP_SLACK_SECONDS)
        finally:
            ending.cancel()

    def _end_streams(self) -> None:
        for stream in list(self._streams):
            stream.shut_down()

    async def _serve(self, factory: StreamFactory, context: _Context) -> None:
        stream = _Stream(context)
        self._streams.add(stream)
        try:
            await stream.run(factory)
        finally:
            self._streams.discard(stream)

    def _bind(self, server: grpc.aio.Server) -> int:
        if self._credentials is None:
            return server.add_insecure_port(self._address)
        return server.add_secure_port(self._address, self._credentials)

    def _why_not(self) -> ListenError:
        """Ask the system for the reason, which the library keeps to itself."""
        try:
            listen(self._host, self._port).close()
        except ListenError as error:
            return error
        reason = "the gRPC library refuses it and does not say why"
        return ListenError(self._host, self._port, reason, address_at_fault=False)

    def _options(self) -> list[tuple[str, int]]:
        return [
            ("grpc.max_receive_message_length", self._max_receive_bytes),
            ("grpc.max_send_message_length", self._max_send_bytes),
            ("grpc.so_reuseport", 0),  # a second server on the port is an error, not a lottery
            ("grpc.keepalive_time_ms", KEEPALIVE_SECONDS * 1000),
            ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_SECONDS * 1000),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.min_ping_interval_without_data_ms", MIN_PEER_PING_SECONDS * 1000),
        ]


class _Router(grpc.GenericRpcHandler):
    """Finds the service of a path. Messages stay bytes: there is no (de)serialiser."""

    def __init__(
        self,
        services: Services,
        serve: Callable[[StreamFactory, _Context], Awaitable[None]],
    ) -> None:
        self._methods = {path: _method(factory, serve) for path, factory in services.items()}

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> "grpc.RpcMethodHandler[bytes, bytes] | None":
        return self._methods.get(handler_call_details.method)


def _method(
    factory: StreamFactory, serve: Callable[[StreamFactory, _Context], Awaitable[None]]
) -> "grpc.RpcMethodHandler[bytes, bytes]":
    async def behaviour(_requests: object, context: _Context) -> None:
        await serve(factory, context)

    return grpc.stream_stream_rpc_method_handler(behaviour)


class _Stream:
    """One stream: sender for its handler, coroutine for the library."""

    __slots__ = (
        "_busy",
        "_context",
        "_flusher",
        "_queue",
        "_reason",
        "_status",
        "_task",
        "_trailing",
    )

    def __init__(self, context: _Context) -> None:
        self._context = context
        self._queue: deque[bytes] = deque()
        self._busy = True
        self._flusher: asyncio.Task[None] | None = None
        self._reason: CloseReason | None = None
        self._status: tuple[StatusCode, str] | None = None
        self._trailing: Metadata = ()
        self._task = asyncio.current_task()

    @property
    def metadata(self) -> Metadata:
        """What the peer sent along with the request."""
        return tuple((str(key), value) for key, value in self._context.invocation_metadata() or ())

    def hold(self, change_bytes: int) -> None:
        """Not counted here: the library's own flow control is all the bound there is."""

    def send(self, payload: bytes) -> None:
        """Send one message, in order. Never blocks."""
        if self._status is not None or self._reason is not None:
            return
        self._queue.append(payload)
        self._ensure_flushed()

    def finish(
        self,
        code: StatusCode = StatusCode.OK,
        details: str = "",
        *,
        metadata: Metadata = (),
    ) -> None:
        """End the stream after everything sent so far. The second call is ignored."""
        if self._status is not None or self._reason is not None:
            return
        self._status = code, details
        self._trailing = metadata
        self._ensure_flushed()

    def shut_down(self) -> None:
        """End the stream now, because the server goes away."""
        if self._reason is None:
            self._queue.clear()
            self._reason = CloseReason.SHUTDOWN
            self._status = StatusCode.UNAVAILABLE, "the server is shutting down"
            self._interrupt()

    async def run(self, factory: StreamFactory) -> None:
        """Serve the stream until it ends, then say so to the handler."""
        try:
            handler = factory(self)
        except Exception as error:
            self._queue.clear()
            self._fail(error)
            await self._close(None)
            return
        try:
            await self._converse(handler)
        except asyncio.CancelledError:
            if not self._interrupted():
                self._reason = CloseReason.CANCELLED
                raise
        except grpc.aio.BaseError as error:  # a write to a stream that is gone, noticed here first
            self._reason = CloseReason.CANCELLED
            raise asyncio.CancelledError from error
        except Exception as error:
            self._fail(error)
        finally:
            await self._close(handler)

    async def _converse(self, handler: StreamHandler) -> None:
        await self._deliver()
        while self._status is None:
            payload: object = await self._context.read()
            self._busy = True
            if not isinstance(payload, bytes):
                await self._half_close(handler)
                break
            self._call(functools.partial(handler.on_message, payload))
            await self._deliver()
        if self._flusher is not None:
            await self._flusher

    async def _half_close(self, handler: StreamHandler) -> None:
        # A reset reads as the end, too. Core hands out the completions of a call in order, so a
        # second read returns after the cancellation, if there is one.
        await self._context.read()
        self._call(handler.on_half_close)
        await self._deliver()
        if self._status is None:
            await asyncio.get_running_loop().create_future()  # until finish(), or the peer leaves

    def _call(self, call: Callable[[], None]) -> None:
        """Call the handler; a call that raises has sent nothing, what was sent before it stays."""
        sent_before = len(self._queue)
        try:
            call()
        except Exception:
            while len(self._queue) > sent_before:
                self._queue.pop()
            raise

    async def _deliver(self) -> None:
        """Write what the handler sent during its call, unless the flusher is at it."""
        if self._flusher is None:
            await self._drain()
        self._busy = self._status is not None

    async def _drain(self) -> None:
        while self._queue:
            await self._context.write(self._queue.popleft())

    def _ensure_flushed(self) -> None:
        if not self._busy and self._flusher is None:
            self._flusher = asyncio.create_task(self._flush(), name="grpc stream flusher")

    async def _flush(self) -> None:
        try:
            await self._drain()
        except grpc.aio.BaseError:
            self._queue.clear()  # the peer is gone; the coroutine learns it from the library
        except Exception as error:
            self._fail(error)
        self._flusher = None
        if self._status is not None and not self._busy:
            self._interrupt()

    def _interrupt(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _interrupted(self) -> bool:
        """Tell our own cancellation, which ends here, from the library's."""
        if self._status is None:
            return False
        if self._task is not None:
            self._task.uncancel()
        return True

    def _fail(self, error: Exception) -> None:
        log.error("stream handler failed", error=error)
        self._reason = CloseReason.ERROR
        self._status = StatusCode.INTERNAL, "internal error"

    async def _close(self, handler: StreamHandler | None) -> None:
        if self._reason is None:
            self._reason = CloseReason.FINISHED
        if self._reason is not CloseReason.ERROR:  # then the flusher sends what was sent before
            self._queue.clear()
        gone = self._flusher is not None and await self._end_flusher(self._flusher)
        if self._status is not None:
            code, details = self._status
            self._context.set_code(_CODES[code])
            self._context.set_details(details)
            if self._trailing:
                self._context.set_trailing_metadata(tuple(self._trailing))
        if handler is not None:
            _tell_closed(handler, self._reason)
        if gone:
            raise asyncio.CancelledError

    async def _end_flusher(self, flusher: asyncio.Task[None]) -> bool:
        """Stop the flusher; tell whether the peer left meanwhile.

        Core takes no status while a write is on its way, so after an error that one may end.
        """
        gone = False
        if self._reason is CloseReason.ERROR:
            try:
                await asyncio.wait([flusher])
            except asyncio.CancelledError:
                gone = True
        flusher.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await flusher
        return gone


def _tell_closed(handler: StreamHandler, reason: CloseReason) -> None:
    try:
        handler.on_closed(reason)
    except Exception as error:  # nobody is left to answer to
        log.error("stream handler failed while closing", error=error)
