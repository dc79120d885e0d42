"""The generated bootstrap: its facts, and what a real Envoy makes of it."""

import asyncio
import datetime as dt
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from epp.backend.endpoint import Endpoint
from epp.errors import ConfigError, TransportError
from epp.gen.envoy.service.accesslog.v3.als_pb2 import StreamAccessLogsMessage
from epp.gen.envoy.service.ext_proc.v3.external_processor_pb2 import (
    ProcessingRequest,
    ProcessingResponse,
)
from epp.server.health import health_services
from epp.server.tls import ServingCertificate, self_signed_pair
from epp.standalone import local_http
from epp.standalone.eds import EdsWriter
from epp.standalone.envoy_bootstrap import BootstrapSettings, render_bootstrap
from epp.standalone.ports import claim_port
from epp.testing.ext_proc_client import ACCESS_LOG_PATH, PROCESS_PATH
from epp.transport.grpcio_server import GrpcioServer
from epp.transport.stream import CloseReason, StreamSender

ENVOY = shutil.which("envoy", path=str(Path(sys.executable).parent))
REMOVED_HEADERS = {
    "x-gateway-destination-endpoint",
    "x-prefiller-host-port",
    "x-encoder-hosts-ports",
    "x-data-parallel-host-port",
    "x-kv-cache-source-host-port",
}


def parsed(**settings: Any) -> Any:
    return yaml.safe_load(render_bootstrap(BootstrapSettings(**settings)))


def manager(config: Any) -> Any:
    (listener,) = config["static_resources"]["listeners"]
    (chain,) = listener["filter_chains"]
    (network_filter,) = chain["filters"]
    return network_filter["typed_config"]


def http_filters(config: Any) -> dict[str, Any]:
    return {
        item["name"].removeprefix("envoy.filters.http."): item["typed_config"]
        for item in manager(config)["http_filters"]
    }


def cluster(config: Any, name: str) -> Any:
    (found,) = (one for one in config["static_resources"]["clusters"] if one["name"] == name)
    return found


def test_the_lean_path_buffers_the_request_and_keeps_the_reply_to_itself() -> None:
    filters = http_filters(parsed(path="lean"))

    assert filters["ext_proc"]["processing_mode"] == {
        "request_header_mode": "SEND",
        "request_body_mode": "BUFFERED",
        "request_trailer_mode": "SKIP",
        "response_header_mode": "SEND",
        "response_body_mode": "NONE",
        "response_trailer_mode": "SEND",
    }
    assert list(filters) == [
        "health_check",
        "header_mutation",
        "ext_proc",
        "sse_to_metadata",
        "json_to_metadata",
        "router",
    ]


def test_the_gateway_path_streams_both_bodies_as_the_reference_wants_it() -> None:
    filters = http_filters(parsed(path="gateway"))

    assert filters["ext_proc"]["processing_mode"] == {
        "request_header_mode": "SEND",
        "request_body_mode": "FULL_DUPLEX_STREAMED",
        "request_trailer_mode": "SEND",
        "response_header_mode": "SEND",
        "response_body_mode": "FULL_DUPLEX_STREAMED",
        "response_trailer_mode": "SEND",
    }
    assert list(filters) == ["health_check", "header_mutation", "ext_proc", "router"]


@pytest.mark.parametrize("path", ["lean", "gateway"])
def test_both_paths_share_what_keeps_requests_safe(path: str) -> None:
    config = parsed(path=path)

    mutations = http_filters(config)["header_mutation"]["mutations"]["request_mutations"]
    pool, epp = cluster(config, "pool"), cluster(config, "epp")
    policy = pool["load_balancing_policy"]["policies"][0]["typed_extension_config"]["typed_config"]
    assert {mutation["remove"] for mutation in mutations} == REMOVED_HEADERS
    assert pool["type"] == "EDS"
    assert policy["override_host_sources"] == [{"header": "x-gateway-destination-endpoint"}]
    assert epp["common_lb_config"]["healthy_panic_threshold"] == {"value": 0}
    assert epp["health_checks"][0]["unhealthy_threshold"] == 2
    assert epp["type"] == "STATIC"


@pytest.mark.parametrize("path", ["lean", "gateway"])
def test_the_access_log_keeps_an_outage_of_the_epp(path: str) -> None:
    (log,) = manager(parsed(path=path, access_log_flush_seconds=0.5))["access_log"]

    common = log["typed_config"]["common_config"]
    headers = log["typed_config"]["additional_request_headers_to_log"]
    assert common["grpc_service"] == {"envoy_grpc": {"cluster_name": "epp"}}
    assert common["buffer_flush_interval"] == "0.5s"
    assert common["buffer_size_bytes"] == 2 << 20
    assert headers == ["x-request-id", "x-gateway-destination-endpoint"]


def test_every_setting_is_where_envoy_reads_it() -> None:
    config = parsed(
        listen_address="::1",
        listen_port=1001,
        admin_port=1002,
        epp_address="epp.example",
        epp_port=1003,
        epp_health_port=1004,
        eds_file='/a "b"/eds.yaml',
        fail_open=False,
        buffer_limit_bytes=5,
        message_timeout_seconds=0.25,
    )

    (listener,) = config["static_resources"]["listeners"]
    epp = cluster(config, "epp")
    (host,) = epp["load_assignment"]["endpoints"][0]["lb_endpoints"]
    ext_proc = http_filters(config)["ext_proc"]
    pool_source = cluster(config, "pool")["eds_cluster_config"]["eds_config"]
    assert listener["address"]["socket_address"] == {"address": "::1", "port_value": 1001}
    assert listener["per_connection_buffer_limit_bytes"] == 5
    assert config["admin"]["address"]["socket_address"]["port_value"] == 1002
    assert host["endpoint"]["address"]["socket_address"] == {
        "address": "epp.example",
        "port_value": 1003,
    }
    assert host["endpoint"]["health_check_config"] == {"port_value": 1004}
    assert epp["type"] == "STRICT_DNS"
    assert pool_source["path_config_source"] == {"path": '/a "b"/eds.yaml'}
    assert ext_proc["failure_mode_allow"] is False
    assert ext_proc["message_timeout"] == "0.25s"


def test_tls_to_the_epp_leaves_its_health_port_in_plain_text() -> None:
    plain, tls = cluster(parsed(), "epp"), cluster(parsed(epp_tls=True), "epp")

    (match,) = tls["transport_socket_matches"]
    assert "transport_socket" not in plain
    assert tls["transport_socket"]["name"] == "envoy.transport_sockets.tls"
    assert match["transport_socket"]["name"] == "envoy.transport_sockets.raw_buffer"
    assert tls["health_checks"][0]["transport_socket_match_criteria"] == match["match"]


@pytest.mark.parametrize("tls", [False, True])
def test_it_says_which_flags_of_serve_go_with_it(tls: bool) -> None:
    text = render_bootstrap(BootstrapSettings(epp_tls=tls, epp_port=1234, eds_file="/a b/c.yaml"))

    head = text.partition("node:")[0].replace("# ", "").replace("\\\n", " ")
    assert f"epp serve --secure-serving={str(tls).lower()} --eds-file '/a b/c.yaml'" in head
    assert "--grpc-port 1234 --grpc-health-port 9003" in head


def test_every_api_of_openai_tells_its_tokens_under_the_same_names() -> None:
    filters = http_filters(parsed())

    sse_rules = filters["sse_to_metadata"]["response_rules"]["content_parser"]["typed_config"]
    sse = [rule["rule"] for rule in sse_rules["rules"]]
    plain = filters["json_to_metadata"]["response_rules"]["rules"]
    assert {rule["on_present"]["metadata_namespace"] for rule in (*sse, *plain)} == {"epp.usage"}
    assert _paths(sse) == USAGE_PATHS
    assert _paths(plain) == {p: key for p, key in USAGE_PATHS.items() if p[0] == "usage"}


USAGE_PATHS = {
    ("usage", "prompt_tokens"): "prompt_tokens",
    ("usage", "completion_tokens"): "completion_tokens",
    ("usage", "prompt_tokens_details", "cached_tokens"): "cached_tokens",
    ("usage", "input_tokens"): "prompt_tokens",
    ("usage", "output_tokens"): "completion_tokens",
    ("usage", "input_tokens_details", "cached_tokens"): "cached_tokens",
    ("response", "usage", "input_tokens"): "prompt_tokens",
    ("response", "usage", "output_tokens"): "completion_tokens",
    ("response", "usage", "input_tokens_details", "cached_tokens"): "cached_tokens",
}


def _paths(rules: Any) -> dict[tuple[str, ...], str]:
    return {
        tuple(part["key"] for part in rule["selectors"]): rule["on_present"]["key"]
        for rule in rules
    }


@pytest.mark.parametrize(
    ("field", "value"),
    [
        pytest.param("listen_address", "localhost", id="listener-on-a-name"),
        pytest.param("listen_port", 0, id="port-zero"),
        pytest.param("epp_health_port", 65536, id="port-too-large"),
        pytest.param("epp_address", "", id="no-epp"),
        pytest.param("message_timeout_seconds", 0, id="no-timeout"),
        pytest.param("access_log_flush_seconds", -1, id="negative-interval"),
        pytest.param("buffer_limit_bytes", 1 << 32, id="buffer-beyond-32-bits"),
        pytest.param("eds_file", "", id="no-file"),
    ],
)
def test_a_setting_that_envoy_would_refuse_is_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        BootstrapSettings(**{field: value})

    assert (caught.value.field, caught.value.value) == (field, value)


@pytest.mark.envoy
@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"path": "lean"}, id="lean"),
        pytest.param({"path": "gateway"}, id="gateway"),
        pytest.param({"path": "lean", "fail_open": False}, id="fail-close"),
        pytest.param({"path": "gateway", "epp_tls": True}, id="tls"),
        pytest.param({"path": "lean", "epp_address": "::1", "listen_address": "::"}, id="ipv6"),
        pytest.param({"path": "lean", "message_timeout_seconds": 0.05}, id="short-timeout"),
    ],
)
def test_envoy_accepts_the_bootstrap(tmp_path: Path, settings: Any) -> None:
    assert ENVOY is not None
    eds_file = tmp_path / "endpoints.yaml"
    EdsWriter(eds_file)
    config = tmp_path / "envoy.yaml"
    config.write_text(render_bootstrap(BootstrapSettings(eds_file=str(eds_file), **settings)))

    done = subprocess.run(
        [ENVOY, "--mode", "validate", "-c", str(config), "--log-level", "warning"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert "deprecated" not in done.stderr.lower()


class Approve:
    """An EPP that lets every message pass unchanged."""

    def __init__(self, sender: StreamSender) -> None:
        self._sender = sender

    def on_message(self, payload: bytes) -> None:
        member = ProcessingRequest.FromString(payload).WhichOneof("request")
        answer = ProcessingResponse()
        getattr(answer, member or "").SetInParent()
        self._sender.send(answer.SerializeToString())

    def on_half_close(self) -> None:
        self._sender.finish()

    def on_closed(self, reason: CloseReason) -> None:
        pass


class Entries:
    """Collects access-log entries."""

    def __init__(self, entries: list[str], sender: StreamSender) -> None:
        self._entries = entries
        self._sender = sender

    def on_message(self, payload: bytes) -> None:
        for entry in StreamAccessLogsMessage.FromString(payload).http_logs.log_entry:
            self._entries.append(entry.request.request_id)

    def on_half_close(self) -> None:
        self._sender.finish()

    def on_closed(self, reason: CloseReason) -> None:
        pass


@asynccontextmanager
async def pod() -> AsyncIterator[int]:
    """An HTTP server that answers one request per connection."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


@asynccontextmanager
async def envoy(config: Path, settings: BootstrapSettings) -> AsyncIterator[None]:
    """A running Envoy that has seen the EPP healthy."""
    assert ENVOY is not None
    config.write_text(render_bootstrap(settings))
    argv = [ENVOY, "-c", str(config), "--disable-hot-restart", "--concurrency", "1"]
    process = await asyncio.create_subprocess_exec(
        *argv, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(20):
            while b"epp.membership_healthy: 1" not in await admin_stats(settings.admin_port):
                await asyncio.sleep(0.05)
        yield
    finally:
        process.kill()
        await process.wait()


async def admin_stats(port: int) -> bytes:
    try:
        return (await local_http.request("127.0.0.1", port, "GET", "/stats")).body
    except TransportError:
        return b""


def free_port(taken: list[int]) -> int:
    port, _ = claim_port("test", chosen=0, default=0, hosts=["127.0.0.1"], taken=taken)
    taken.append(port)
    return port


@pytest.mark.envoy
@pytest.mark.parametrize("tls", [pytest.param(False, id="plain"), pytest.param(True, id="tls")])
async def test_a_real_envoy_asks_the_epp_and_reports_to_it(tmp_path: Path, tls: bool) -> None:
    entries: list[str] = []
    pair = self_signed_pair(names=("localhost",), now=dt.datetime.now(dt.UTC))
    epp = GrpcioServer(
        {PROCESS_PATH: Approve, ACCESS_LOG_PATH: lambda sender: Entries(entries, sender)},
        host="127.0.0.1",
        credentials=ServingCertificate(pair).credentials() if tls else None,
    )
    health = GrpcioServer(health_services(lambda: True), host="127.0.0.1")
    eds_file, taken = tmp_path / "endpoints.yaml", list[int]()
    settings = BootstrapSettings(
        listen_port=free_port(taken),
        admin_port=free_port(taken),
        epp_port=await epp.start(),
        epp_health_port=await health.start(),
        epp_tls=tls,
        eds_file=str(eds_file),
    )

    async with pod() as pod_port:
        endpoint = Endpoint(namespace="ns", pod_name="a", address="127.0.0.1", port=pod_port)
        EdsWriter(eds_file).endpoint_added(endpoint)
        async with envoy(tmp_path / "envoy.yaml", settings):
            reply = await local_http.request("127.0.0.1", settings.listen_port, "GET", "/v1/models")
            stats = await admin_stats(settings.admin_port)
            async with asyncio.timeout(10):
                while not entries:
                    await asyncio.sleep(0.01)
    await epp.stop(0)
    await health.stop(0)

    assert reply.status == 200
    assert b"ext_proc.streams_started: 1" in stats
    assert b"ext_proc.failure_mode_allowed: 0" in stats
    assert len(entries) == 1
