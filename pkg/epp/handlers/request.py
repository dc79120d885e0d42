"""What the gateway's request messages say: headers, path, subset hint.

Header names are lower case; of a repeated header the last value counts. The map is for reading:
headers are never sent back from it, so what we do not touch arrives as the client wrote it.

Reference: llm-d-router ebab687 pkg/epp/util/request/headers.go, pkg/epp/metadata/consts.go.
"""

from collections.abc import Container, Mapping

from epp.errors import PayloadTooLargeError
from epp.gen.envoy.config.core.v3.base_pb2 import HeaderMap, Metadata
from epp.gen.envoy.service.ext_proc.v3.external_processor_pb2 import ProcessingRequest

READ_ON_FACTOR = 4
"""A body that is too long is read to its end, up to so many times the limit, and dropped: a client
that is refused while it still sends sees a broken connection instead of the reason."""

REQUEST_ID_HEADER = "x-request-id"
DESTINATION_HEADER = "x-gateway-destination-endpoint"
DESTINATION_NAMESPACE = "envoy.lb"
SUBSET_NAMESPACE = "envoy.lb.subset_hint"
SUBSET_KEY = "x-gateway-destination-endpoint-subset"
SERVED_NAMESPACE = "envoy.lb"
SERVED_KEY = "x-gateway-destination-endpoint-served"
FOREIGN_HEADERS = (
    "x-prefiller-host-port",
    "x-encoder-hosts-ports",
    "x-data-parallel-host-port",
    "x-kv-cache-source-host-port",
)
"""Routing headers that only the cluster may set: removed when a client sends them. The client's
destination header is not among them, for we overwrite it."""

_PATH_HEADERS = (":path", "x-original-path", "x-forwarded-path")
_DEFAULT_PATH = "/v1/completions"


def header_map(headers: HeaderMap, *, only: Container[str] | None = None) -> dict[str, str]:
    """Return name → value; ``raw_value`` is preferred, undecodable bytes become U+FFFD.

    Args:
        headers: As the gateway sent them.
        only: Names to keep; all without it.
    """
    found = {}
    for header in headers.headers:
        name = header.key.lower()
        if not name or (only is not None and name not in only):
            continue
        raw = header.raw_value
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            text = raw.decode("utf-8", "replace")
        found[name] = text or header.value
    return found


def request_path(headers: Mapping[str, str]) -> str:
    """Return the path that chooses the parser, query string included."""
    for name in _PATH_HEADERS:
        path = headers.get(name)
        if path:
            return path
    return _DEFAULT_PATH


def content_length(headers: Mapping[str, str]) -> int:
    """Return the announced length of the body in bytes; 0 when none or nonsense is announced."""
    text = headers.get("content-length", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else 0


def subset_hint(metadata: Metadata) -> tuple[str, ...] | None:
    """Return the endpoints that the gateway allows; None when it gives no list.

    Entries that are no strings are skipped, so an unusable list allows nothing.
    """
    namespaces = metadata.filter_metadata
    if SUBSET_NAMESPACE not in namespaces:
        return None
    fields = namespaces[SUBSET_NAMESPACE].fields
    if SUBSET_KEY not in fields or not fields[SUBSET_KEY].HasField("list_value"):
        return None
    values = fields[SUBSET_KEY].list_value.values
    return tuple(value.string_value for value in values if value.HasField("string_value"))


def too_long(limit_bytes: int) -> PayloadTooLargeError:
    """The refusal of a body above the limit."""
    return PayloadTooLargeError(f"the request body is longer than {limit_bytes} bytes")


def latest_subset(
    message: ProcessingRequest, before: tuple[str, ...] | None
) -> tuple[str, ...] | None:
    """The subset hint of a message; what was known before where it has none."""
    if not message.HasField("metadata_context"):
        return before
    hint = subset_hint(message.metadata_context)
    return before if hint is None else hint


def served_endpoint(message: ProcessingRequest) -> str:
    """``ip:port`` that served, after retries, as the gateway reports it; empty when it does not.

    Reference: gateway-api-inference-extension docs/proposals/004-endpoint-picker-protocol.
    """
    if not message.HasField("metadata_context"):
        return ""
    namespaces = message.metadata_context.filter_metadata
    if SERVED_NAMESPACE not in namespaces:
        return ""
    fields = namespaces[SERVED_NAMESPACE].fields
    return str(fields[SERVED_KEY].string_value) if SERVED_KEY in fields else ""
