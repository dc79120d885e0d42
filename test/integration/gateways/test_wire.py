"""What each gateway really puts on the wire to an EPP, seen by a scripted one."""

import contextlib
import datetime as dt

import pytest
from google.protobuf.json_format import MessageToDict

from epp.gen.envoy.service.ext_proc.v3.external_processor_pb2 import ProcessingRequest
from epp.handlers.events import RequestComplete
from epp.handlers.exchange import Exchange
from epp.server.health import health_services
from epp.server.tls import ServingCertificate, self_signed_pair
from epp.standalone import local_http
from epp.testing.ext_proc_client import PROCESS_PATH
from epp.testing.gateway_envoy import FLAVOURS, GatewayPorts, envoys_of, speaks_tls
from epp.testing.stack import Sims, eventually
from epp.transport.grpcio_server import GrpcioServer

pytestmark = [pytest.mark.envoy]


class ScriptedEpp:
    """Sends every request to one target; keeps what the gateway said."""

    def __init__(self, target: str) -> None:
        self.target = target
        self.messages: list[ProcessingRequest] = []

    def session(self, sender):
        return Session(self, sender)

    def metadata(self, member):
        """Metadata of the messages of one kind, as plain dictionaries."""
        return [
            MessageToDict(message.metadata_context.filter_metadata["envoy.lb"])
            for message in self.messages
            if message.WhichOneof("request") == member
            and "envoy.lb" in message.metadata_context.filter_metadata
        ]


class Session:
    """One stream."""

    def __init__(self, epp, sender):
        self._epp, self._sender = epp, sender
        self._exchange = Exchange(max_body_bytes=1 << 20, new_id=lambda: "generated")

    def on_message(self, payload):
        message = ProcessingRequest.FromString(payload)
        self._epp.messages.append(message)
        event = self._exchange.receive(message, 0.0)
        if isinstance(event, RequestComplete):
            event = self._exchange.route((self._epp.target,))
        assert isinstance(event, tuple), event
        for answer in event:
            self._sender.send(answer.SerializeToString())

    def on_half_close(self):
        self._sender.finish()

    def on_closed(self, reason):
        pass


@contextlib.asynccontextmanager
async def running(flavour, directory, target_of):
    """Two pods, a scripted EPP, with a self-signed certificate where TLS is spoken, the gateway."""
    certificate = ServingCertificate(
        self_signed_pair(names=("localhost",), now=dt.datetime.now(dt.UTC))
    )
    ports = GatewayPorts()
    async with Sims(2, first="127.0.49.1", arguments=["--model", "tiny"]) as sims:
        endpoints = [f"{address}:{sims.port}" for address in sims.addresses]
        epp = ScriptedEpp(target_of(endpoints))
        servers = [
            GrpcioServer(
                {PROCESS_PATH: epp.session},
                host="127.0.0.1",
                port=ports.epp,
                credentials=certificate.credentials() if speaks_tls(flavour) else None,
            ),
            GrpcioServer(health_services(lambda: True), host="127.0.0.1", port=ports.epp_health),
        ]
        for server in servers:
            await server.start()
        envoys = envoys_of(flavour, directory, ports=ports, endpoints=endpoints)
        try:
            for envoy in envoys:
                await envoy.start()
                await eventually(envoy.is_up, what="Envoy")
            yield epp, endpoints, ports
        finally:
            for envoy in envoys:
                await envoy.stop()
            for server in servers:
                await server.stop(0)


async def get_models(ports):
    return await local_http.request("127.0.0.1", ports.listen, "GET", "/v1/models")


@pytest.mark.parametrize(
    ("flavour", "modes"),
    [
        pytest.param("kgateway", ("FULL_DUPLEX_STREAMED",) * 2, id="kgateway"),
        pytest.param("istio", ("FULL_DUPLEX_STREAMED",) * 2, id="istio"),
        pytest.param("kgateway-lean", ("BUFFERED", "NONE"), id="kgateway-lean"),
        pytest.param("istio-lean", ("BUFFERED", "NONE"), id="istio-lean"),
    ],
)
async def test_the_first_message_names_the_data_path_and_no_subset(flavour, modes, tmp_path):
    async with running(flavour, tmp_path, lambda endpoints: endpoints[1]) as (epp, _, ports):
        replies = [await get_models(ports) for _ in range(4)]

    config = MessageToDict(epp.messages[0].protocol_config, preserving_proto_field_name=True)
    hints = [
        m for m in epp.messages if "envoy.lb.subset_hint" in m.metadata_context.filter_metadata
    ]
    assert (config["request_body_mode"], config.get("response_body_mode", "NONE")) == modes
    assert hints == [], "kgateway's hint is load-balancing metadata, which ext_proc does not see"
    assert {reply.headers["x-sim-pod"] for reply in replies} == {"sim-1"}


@pytest.mark.parametrize("flavour", FLAVOURS)
async def test_a_pick_that_the_gateway_does_not_know_is_balanced_away(flavour, tmp_path):
    async with running(flavour, tmp_path, lambda _endpoints: "127.0.0.1:1") as (epp, known, ports):
        replies = [await get_models(ports) for _ in range(20)]

    served = epp.metadata("response_headers")
    assert {reply.status for reply in replies} == {200}
    assert {reply.headers["x-sim-pod"] for reply in replies} == {"sim-0", "sim-1"}
    if flavour == "istio":
        # The only gateway of the four that says who served.
        assert {m["x-gateway-destination-endpoint-served"] for m in served} == set(known)
    else:
        assert served == []
