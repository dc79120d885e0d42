"""A minimal ext_proc server on the seam: lets everything pass, on the transport of choice.

Serves health on a second port, for Envoy's active checks. On SIGUSR1 it prints one JSON line with
what happened on the transport since the last one, and what the limits would have seen.

Usage: transport_echo.py TRANSPORT PATH PORT HEALTH_PORT [--tls CERTIFICATE KEY] [--glitches N]
"""

import argparse
import asyncio
import gc
import json
import signal
import ssl
import sys
from dataclasses import replace
from pathlib import Path

import grpc
import uvloop
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer

from epp.gen.envoy.service.ext_proc.v3 import external_processor_pb2 as pb
from epp.handlers.server import PROCESS_METHOD
from epp.logs import configure
from epp.transport.grpcio_server import GrpcioServer
from epp.transport.limits import DEFAULT_LIMITS, Meters, Rate
from epp.transport.native_connection import NativeConnection
from epp.transport.native_server import NativeServer
from epp.transport.stream import CloseReason, Services, StreamSender
from epp.transport.tls_context import TlsContext

HEADERS = {"request_headers", "response_headers", "request_trailers", "response_trailers"}
ECHO_METHOD = "/bench.Echo/Echo"


class PassThrough:
    """One ext_proc stream."""

    lean = False

    def __init__(self, sender: StreamSender) -> None:
        self._send = sender.send
        self._finish = sender.finish

    def on_message(self, payload: bytes) -> None:
        """Answer as ext_proc_echo does."""
        request = pb.ProcessingRequest.FromString(payload)
        kind = str(request.WhichOneof("request"))
        response = pb.ProcessingResponse()
        if kind in HEADERS:
            getattr(response, kind).SetInParent()
        else:
            body, out = getattr(request, kind), getattr(response, kind)
            out.response.SetInParent()
            if not self.lean:
                streamed = out.response.body_mutation.streamed_response
                streamed.body, streamed.end_of_stream = body.body, body.end_of_stream
        self._send(response.SerializeToString())

    def on_half_close(self) -> None:
        """Nothing more to say."""
        self._finish()

    def on_closed(self, reason: CloseReason) -> None:
        """Nothing to release."""


class Echo(PassThrough):
    """Sends back what it gets."""

    def on_message(self, payload: bytes) -> None:
        """Answer with the same."""
        self._send(payload)


async def serve_health(port: int) -> grpc.aio.Server:
    """Always SERVING."""
    server = grpc.aio.server()
    health = HealthServicer()
    await health.set("", health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    return server


def make_server(chosen: argparse.Namespace) -> NativeServer | GrpcioServer:
    """Build the transport."""
    PassThrough.lean = chosen.path == "lean"
    services: Services = {PROCESS_METHOD: PassThrough, ECHO_METHOD: Echo}
    pair = [Path(name).read_bytes() for name in chosen.tls or ()]
    where = {"host": "127.0.0.1", "port": chosen.port}
    if chosen.transport == "grpcio":
        credentials = grpc.ssl_server_credentials([(pair[1], pair[0])]) if pair else None
        return GrpcioServer(services, **where, credentials=credentials)
    tls: ssl.SSLContext | None = TlsContext(certificate=pair[0], key=pair[1]) if pair else None
    limits = DEFAULT_LIMITS
    if chosen.glitches is not None:
        limits = replace(limits, glitches=Rate(burst=chosen.glitches, per_second=0))
    return NativeServer(services, **where, tls=tls, limits=limits)


def report(server: NativeServer | GrpcioServer) -> None:
    """Print the counters."""
    if isinstance(server, NativeServer):
        stats = server.stats
        used = {
            name: max((_used(p.connection, name) for p in server._protocols), default=0.0)  # noqa: SLF001 - a measurement of our own parts
            for name in Meters.__slots__
        }
        fields = ("connections", "streams", "messages_received", "resets", "refused_messages")
        line = {name: getattr(stats, name) for name in fields}
        line |= {"errors": dict(stats.errors), "used": used}
        print(json.dumps(line), flush=True)  # noqa: T201 - the answer of a script


def _used(connection: NativeConnection, name: str) -> float:
    bucket = getattr(connection._meters, name)  # noqa: SLF001
    return float(getattr(DEFAULT_LIMITS, name).burst - bucket._tokens)  # noqa: SLF001


async def main(chosen: argparse.Namespace) -> None:
    """Serve until killed."""
    server = make_server(chosen)
    await server.start()
    health = await serve_health(chosen.health_port)
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, report, server)
    print("ready", flush=True)  # noqa: T201 - the one who waits reads it
    await health.wait_for_termination()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("transport", choices=["native", "grpcio"])
    parser.add_argument("path", choices=["lean", "gateway"])
    parser.add_argument("port", type=int)
    parser.add_argument("health_port", type=int)
    parser.add_argument("--tls", nargs=2)
    parser.add_argument("--glitches", type=int, help="as many per connection, and no more")
    gc.freeze()  # or a collection of everything that was imported holds the loop for 20 ms
    gc.set_threshold(50_000, 20, 20)
    configure()  # to standard error: our output is read by the one who started us
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            runner.run(main(parser.parse_args(sys.argv[1:])))
        except KeyboardInterrupt:
            sys.exit(0)
