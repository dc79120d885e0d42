"""Headers, path and subset hint of a request."""

from typing import Any

import pytest
from google.protobuf import json_format

from epp.gen.envoy.config.core.v3.base_pb2 import HeaderMap, Metadata
from epp.gen.envoy.service.ext_proc.v3.external_processor_pb2 import ProcessingRequest
from epp.handlers.request import (
    content_length,
    header_map,
    request_path,
    served_endpoint,
    subset_hint,
)

NAMESPACE = "envoy.lb.subset_hint"
KEY = "x-gateway-destination-endpoint-subset"


def test_names_are_lower_case_and_the_raw_value_wins() -> None:
    message = HeaderMap()
    message.headers.add(key="X-One", raw_value=b"raw", value="text")
    message.headers.add(key="x-two", value="text")
    message.headers.add(key="x-three", raw_value=b"\xff")
    message.headers.add(key="x-two", raw_value=b"last")

    assert header_map(message) == {"x-one": "raw", "x-two": "last", "x-three": "\ufffd"}


@pytest.mark.parametrize(
    ("headers", "want"),
    [
        pytest.param({":path": "/a", "x-original-path": "/b"}, "/a", id="path"),
        pytest.param({":path": "", "x-original-path": "/b"}, "/b", id="original"),
        pytest.param({"x-forwarded-path": "/c"}, "/c", id="forwarded"),
        pytest.param({}, "/v1/completions", id="default"),
    ],
)
def test_the_first_path_header_that_says_something_counts(headers: Any, want: Any) -> None:
    assert request_path(headers) == want


@pytest.mark.parametrize(
    ("text", "want"),
    [
        pytest.param("12", 12, id="number"),
        pytest.param("-1", 0, id="negative"),
        pytest.param("1e9", 0, id="no-number"),
        pytest.param("٣", 0, id="other-digits"),
        pytest.param("9" * 5000, 0, id="absurd"),
    ],
)
def test_content_length_is_a_number_or_unknown(text: str, want: Any) -> None:
    assert content_length({"content-length": text}) == want


@pytest.mark.parametrize(
    ("metadata", "want"),
    [
        pytest.param({NAMESPACE: {KEY: ["10.0.0.1", "10.0.0.2:80"]}}, ("10.0.0.1", "10.0.0.2:80")),
        pytest.param({NAMESPACE: {KEY: ["a", 5, None]}}, ("a",), id="non-strings-skipped"),
        pytest.param({NAMESPACE: {KEY: []}}, (), id="empty-list-allows-nothing"),
        pytest.param({NAMESPACE: {KEY: "10.0.0.1"}}, None, id="no-list"),
        pytest.param({NAMESPACE: {}}, None, id="no-key"),
        pytest.param({"envoy.lb": {KEY: ["a"]}}, None, id="other-namespace"),
    ],
)
def test_subset_hint(metadata: Any, want: Any) -> None:
    message = Metadata()
    for namespace, content in metadata.items():
        json_format.ParseDict(content, message.filter_metadata[namespace])

    assert subset_hint(message) == want


@pytest.mark.parametrize(
    ("namespaces", "want"),
    [
        pytest.param({}, "", id="absent"),
        pytest.param(
            {"envoy.lb": {"x-gateway-destination-endpoint-served": "10.0.0.1:8000"}},
            "10.0.0.1:8000",
            id="told",
        ),
        pytest.param({"envoy.lb": {"other": "x"}}, "", id="another-key"),
        pytest.param(
            {"envoy.lb": {"x-gateway-destination-endpoint-served": 7}}, "", id="no-string"
        ),
        pytest.param(
            {"other": {"x-gateway-destination-endpoint-served": "x"}}, "", id="another-namespace"
        ),
    ],
)
def test_who_served_is_read_from_the_metadata(namespaces: Any, want: str) -> None:
    message = ProcessingRequest()
    for namespace, content in namespaces.items():
        json_format.ParseDict(content, message.metadata_context.filter_metadata[namespace])

    assert served_endpoint(message) == want
