"""The unit of measure: a minimal grpc.aio ext_proc server that lets everything pass.

No scheduler, no metrics, no parsing: what the library alone costs. Serves health on the same port.
"""

import asyncio
import sys
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer

from epp.gen.envoy.service.ext_proc.v3 import external_processor_pb2 as pb


def answer(request: pb.ProcessingRequest) -> pb.ProcessingResponse:
    """Let a message pass, in the form that its mode wants."""
    kind = str(request.WhichOneof("request"))
    response = pb.ProcessingResponse()
    if kind in {"request_headers", "response_headers", "request_trailers", "response_trailers"}:
        getattr(response, kind).SetInParent()
        return response
    body = getattr(request, kind)
    out = getattr(response, kind)
    out.response.SetInParent()
    if not LEAN:
        streamed = out.response.body_mutation.streamed_response
        streamed.body, streamed.end_of_stream = body.body, body.end_of_stream
    return response


async def process(_requests: object, context: Any) -> None:
    """One stream. In full duplex the request headers are answered with the first body message."""
    while True:
        message = await context.read()
        if message is grpc.aio.EOF:
            return
        await context.write(answer(pb.ProcessingRequest.FromString(message)).SerializeToString())


class Router(grpc.GenericRpcHandler):
    """Serves one method."""

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        """Find the handler of a path."""
        if details.method == "/envoy.service.ext_proc.v3.ExternalProcessor/Process":
            return grpc.stream_stream_rpc_method_handler(process)
        return None


async def main(port: int) -> None:
    """Serve until killed."""
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", 64 << 20)])
    server.add_generic_rpc_handlers((Router(),))
    health = HealthServicer()
    await health.set("", health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await server.wait_for_termination()


LEAN = sys.argv[2:] == ["lean"]

if __name__ == "__main__":
    try:
        import uvloop

        uvloop.install()
    except ImportError:
        pass
    asyncio.run(main(int(sys.argv[1])))
