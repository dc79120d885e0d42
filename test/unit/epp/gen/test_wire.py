"""Field numbers against bytes encoded by hand from Envoy's published API."""

import subprocess
import sys
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool

from epp.gen.envoy.config.core.v3 import address_pb2, base_pb2
from epp.gen.envoy.data.accesslog.v3 import accesslog_pb2 as log
from epp.gen.envoy.extensions.filters.http.ext_proc.v3.processing_mode_pb2 import ProcessingMode
from epp.gen.envoy.service.accesslog.v3 import als_pb2 as als
from epp.gen.envoy.service.ext_proc.v3 import external_processor_pb2 as ext_proc
from epp.gen.envoy.type.v3.http_status_pb2 import HttpStatus, TooManyRequests
from epp.gen.google.protobuf.duration_pb2 import Duration
from epp.gen.google.protobuf.struct_pb2 import Struct
from epp.gen.google.protobuf.timestamp_pb2 import Timestamp
from epp.gen.google.protobuf.wrappers_pb2 import UInt32Value


def field(number: int, payload: bytes) -> bytes:
    """A length-delimited field below number 2048, shorter than 128 bytes."""
    key = number << 3 | 2
    head = bytes([key]) if key < 128 else bytes([key & 127 | 128, key >> 7])
    return head + bytes([len(payload)]) + payload


def varint(number: int, value: int) -> bytes:
    """A varint field below number 2048 and value below 16384."""
    encoded = b""
    for part in (number << 3, value):
        encoded += bytes([part]) if part < 128 else bytes([part & 127 | 128, part >> 7])
    return encoded


Request: Any = (
    ext_proc.ProcessingRequest
)  # Any: protobuf takes a dict for a message, the stubs do not
Response: Any = ext_proc.ProcessingResponse
Mutation: Any = ext_proc.HeaderMutation
Entry: Any = log.HTTPAccessLogEntry
Common: Any = log.AccessLogCommon
LogMessage: Any = als.StreamAccessLogsMessage

HEADER = base_pb2.HeaderValue(key="k", raw_value=b"v")
HEADER_BYTES = field(1, b"k") + field(3, b"v")
HEADERS = base_pb2.HeaderMap(headers=[HEADER])
HEADERS_BYTES = field(1, HEADER_BYTES)
MUTATION = Mutation(
    set_headers=[
        {"header": HEADER, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD", "keep_empty_value": True}
    ],
    remove_headers=["r"],
)
MUTATION_BYTES = field(1, field(1, HEADER_BYTES) + varint(3, 2) + varint(4, 1)) + field(2, b"r")
STRUCT = Struct()
STRUCT.update({"n": "s"})
STRUCT_BYTES = field(1, field(1, b"n") + field(2, field(3, b"s")))


@pytest.mark.parametrize(
    ("message", "encoded"),
    [
        pytest.param(
            Request(request_headers={"headers": HEADERS, "end_of_stream": True}),
            field(2, field(1, HEADERS_BYTES) + varint(3, 1)),
            id="request-headers",
        ),
        pytest.param(
            Request(response_headers={"headers": HEADERS}),
            field(3, field(1, HEADERS_BYTES)),
            id="response-headers",
        ),
        pytest.param(
            Request(request_body={"body": b"b", "end_of_stream": True}),
            field(4, field(1, b"b") + varint(2, 1)),
            id="request-body",
        ),
        pytest.param(
            Request(response_body={"body": b"b"}), field(5, field(1, b"b")), id="response-body"
        ),
        pytest.param(
            Request(request_trailers={"trailers": HEADERS}),
            field(6, field(1, HEADERS_BYTES)),
            id="request-trailers",
        ),
        pytest.param(
            Request(response_trailers={"trailers": HEADERS}),
            field(7, field(1, HEADERS_BYTES)),
            id="response-trailers",
        ),
        pytest.param(
            Request(metadata_context={"filter_metadata": {"n": STRUCT}}),
            field(8, field(1, field(1, b"n") + field(2, STRUCT_BYTES))),
            id="metadata-context",
        ),
        pytest.param(
            Request(attributes={"f": STRUCT}),
            field(9, field(1, b"f") + field(2, STRUCT_BYTES)),
            id="attributes",
        ),
        pytest.param(Request(observability_mode=True), varint(10, 1), id="observability-mode"),
        pytest.param(
            Request(
                protocol_config={
                    "request_body_mode": ProcessingMode.BUFFERED,
                    "response_body_mode": ProcessingMode.FULL_DUPLEX_STREAMED,
                    "send_body_without_waiting_for_header_response": True,
                }
            ),
            field(11, varint(1, 2) + varint(2, 4) + varint(3, 1)),
            id="protocol-config",
        ),
        pytest.param(
            Response(
                request_headers={
                    "response": {"header_mutation": MUTATION, "clear_route_cache": True}
                }
            ),
            field(1, field(1, field(2, MUTATION_BYTES) + varint(5, 1))),
            id="answer-to-request-headers",
        ),
        pytest.param(
            Response(response_headers={"response": {"status": "CONTINUE_AND_REPLACE"}}),
            field(2, field(1, varint(1, 1))),
            id="answer-to-response-headers",
        ),
        pytest.param(
            Response(request_body={"response": {"body_mutation": {"body": b"b"}}}),
            field(3, field(1, field(3, field(1, b"b")))),
            id="answer-to-request-body",
        ),
        pytest.param(
            Response(
                response_body={
                    "response": {
                        "body_mutation": {
                            "streamed_response": {"body": b"b", "end_of_stream": True}
                        }
                    }
                }
            ),
            field(4, field(1, field(3, field(3, field(1, b"b") + varint(2, 1))))),
            id="answer-to-response-body-in-pieces",
        ),
        pytest.param(
            Response(response_body={"response": {"body_mutation": {"clear_body": True}}}),
            field(4, field(1, field(3, varint(2, 1)))),
            id="answer-that-clears-a-body",
        ),
        pytest.param(
            Response(request_trailers={"header_mutation": MUTATION}),
            field(5, field(1, MUTATION_BYTES)),
            id="answer-to-request-trailers",
        ),
        pytest.param(
            Response(response_trailers={"header_mutation": MUTATION}),
            field(6, field(1, MUTATION_BYTES)),
            id="answer-to-response-trailers",
        ),
        pytest.param(
            Response(
                immediate_response={
                    "status": HttpStatus(code=TooManyRequests),
                    "headers": MUTATION,
                    "body": b"b",
                    "grpc_status": {"status": 8},
                    "details": "d",
                }
            ),
            field(
                7,
                field(1, varint(1, 429))
                + field(2, MUTATION_BYTES)
                + field(3, b"b")
                + field(4, varint(1, 8))
                + field(5, b"d"),
            ),
            id="immediate-response",
        ),
        pytest.param(
            Response(dynamic_metadata=STRUCT), field(8, STRUCT_BYTES), id="dynamic-metadata"
        ),
        pytest.param(
            Response(
                mode_override={"response_body_mode": "STREAMED", "response_trailer_mode": "SEND"}
            ),
            field(9, varint(4, 1) + varint(6, 1)),
            id="mode-override",
        ),
        pytest.param(
            Response(override_message_timeout=Duration(seconds=3)),
            field(10, varint(1, 3)),
            id="override-message-timeout",
        ),
        pytest.param(
            LogMessage(
                identifier={"node": {"id": "i", "cluster": "c"}, "log_name": "l"},
                http_logs={"log_entry": [Entry(protocol_version="HTTP11")]},
            ),
            field(1, field(1, field(1, b"i") + field(2, b"c")) + field(2, b"l"))
            + field(2, field(1, varint(2, 2))),
            id="access-log-message",
        ),
        pytest.param(
            Entry(
                common_properties=Common(
                    start_time=Timestamp(seconds=5, nanos=6),
                    time_to_first_upstream_tx_byte=Duration(seconds=7),
                    time_to_first_upstream_rx_byte=Duration(seconds=9),
                    time_to_last_downstream_tx_byte=Duration(seconds=12),
                    upstream_remote_address={
                        "socket_address": address_pb2.SocketAddress(address="h", port_value=80)
                    },
                    response_flags={"upstream_connection_failure": True},
                    metadata={"filter_metadata": {"n": STRUCT}},
                    upstream_request_attempt_count=2,
                )
            ),
            field(
                1,
                field(5, varint(1, 5) + varint(2, 6))
                + field(7, varint(1, 7))
                + field(9, varint(1, 9))
                + field(12, varint(1, 12))
                + field(13, field(1, field(2, b"h") + varint(3, 80)))
                + field(16, varint(6, 1))
                + field(17, field(1, field(1, b"n") + field(2, STRUCT_BYTES)))
                + varint(24, 2),
            ),
            id="access-log-common",
        ),
        pytest.param(
            Entry(
                request={
                    "request_method": base_pb2.POST,
                    "path": "/p",
                    "request_id": "r",
                    "request_body_bytes": 12,
                    "request_headers": {"k": "v"},
                },
                response={
                    "response_code": UInt32Value(value=200),
                    "response_body_bytes": 3,
                    "response_code_details": "d",
                },
            ),
            field(
                3,
                varint(1, 3)
                + field(5, b"/p")
                + field(9, b"r")
                + varint(12, 12)
                + field(13, field(1, b"k") + field(2, b"v")),
            )
            + field(4, field(1, varint(1, 200)) + varint(3, 3) + field(6, b"d")),
            id="access-log-request-and-response",
        ),
    ],
)
def test_a_message_is_encoded_with_envoys_field_numbers(message: Any, encoded: bytes) -> None:
    assert message.SerializeToString(deterministic=True) == encoded
    assert type(message).FromString(encoded) == message


def test_fields_that_are_left_out_survive_a_round_trip() -> None:
    tls_properties = field(1, field(4, varint(1, 4)))

    assert Entry.FromString(tls_properties).SerializeToString() == tls_properties


def test_the_names_are_envoys() -> None:
    service = ext_proc.DESCRIPTOR.services_by_name["ExternalProcessor"]

    assert service.full_name == "envoy.service.ext_proc.v3.ExternalProcessor"
    assert als.DESCRIPTOR.services_by_name["AccessLogService"].full_name == (
        "envoy.service.accesslog.v3.AccessLogService"
    )


def test_another_package_can_register_envoys_own_files() -> None:
    theirs = descriptor_pb2.FileDescriptorProto(
        name="envoy/config/core/v3/base.proto", package="envoy.config.core.v3"
    )
    theirs.message_type.add(name="HeaderValue")

    descriptor_pool.Default().Add(theirs)

    found = descriptor_pool.Default().FindMessageTypeByName("envoy.config.core.v3.HeaderValue")
    assert found is not base_pb2.HeaderValue.DESCRIPTOR


def test_every_generated_module_imports_without_a_warning() -> None:
    code = (
        "import importlib, pkgutil, epp.gen as gen\n"
        "for module in pkgutil.walk_packages(gen.__path__, 'epp.gen.'):\n"
        "    importlib.import_module(module.name)\n"
    )

    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True
    )

    assert (done.returncode, done.stderr) == (0, "")
