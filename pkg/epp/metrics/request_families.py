"""Families about requests: what the field counts per model and target model."""

from collections.abc import Mapping

from epp.metrics import buckets
from epp.metrics.families import Exposed, Family, Kind, NameSet, newest_only

DEFAULT_FAIRNESS_ID = "default-flow"
"""What the newest names carry while requests are not told apart by flow."""

_MODEL = ("model_name", "target_model_name")
_REQUEST = (*_MODEL, "priority")
_FLOW = (*_MODEL, "fairness_id", "priority")
_FAIRNESS = {"fairness_id": DEFAULT_FAIRNESS_ID}


def _request_names(
    rest: str,
    newest: str,
    *,
    extra: tuple[str, ...] = (),
    labels: tuple[str, ...] = _MODEL,
    v1_labels: tuple[str, ...] | None = None,
    in_v0: bool = True,
) -> Mapping[NameSet, Exposed]:
    """Names of a per-request family; ``rest`` follows ``inference_model_`` and its successor."""
    names = {
        NameSet.LLM_D: Exposed(f"llm_d_epp_{newest}", (*_FLOW, *extra), fixed=_FAIRNESS),
        NameSet.INFERENCE: Exposed(f"inference_objective_{rest}", (*(v1_labels or labels), *extra)),
    }
    if in_v0:
        names[NameSet.INFERENCE_MODEL] = Exposed(f"inference_model_{rest}", (*labels, *extra))
    return names


REQUEST_TOTAL = Family(
    key="request_total",
    kind=Kind.COUNTER,
    unit="requests",
    help="Requests that were given an endpoint. Refused requests are in the error counter only.",
    labels=_REQUEST,
    names=_request_names("request_total", "request_total", v1_labels=_REQUEST),
)
REQUEST_ERROR_TOTAL = Family(
    key="request_error_total",
    kind=Kind.COUNTER,
    unit="requests",
    help="Requests that failed, by code: refused by us, or an error status of the model server.",
    labels=(*_REQUEST, "error_code"),
    names=_request_names("request_error_total", "request_error_total", extra=("error_code",)),
)
REQUEST_DURATION = Family(
    key="request_duration_seconds",
    kind=Kind.HISTOGRAM,
    unit="seconds",
    help="From the request headers to the end of the response; aborted requests are left out.",
    labels=_REQUEST,
    buckets=buckets.LATENCY_SECONDS,
    names=_request_names("request_duration_seconds", "request_duration_seconds"),
)
REQUEST_SIZE = Family(
    key="request_size_bytes",
    kind=Kind.HISTOGRAM,
    unit="bytes",
    help="Length of the request body.",
    labels=_REQUEST,
    buckets=buckets.REQUEST_BYTES,
    names=_request_names("request_sizes", "request_size_bytes"),
)
RESPONSE_SIZE = Family(
    key="response_size_bytes",
    kind=Kind.HISTOGRAM,
    unit="bytes",
    help="Length of the response body, every chunk of a stream included.",
    labels=_REQUEST,
    buckets=buckets.RESPONSE_BYTES,
    names=_request_names("response_sizes", "response_size_bytes"),
)
INPUT_TOKENS = Family(
    key="input_tokens",
    kind=Kind.HISTOGRAM,
    unit="tokens",
    help="Prompt tokens as the model server reports them, when it does.",
    labels=_REQUEST,
    buckets=buckets.INPUT_TOKENS,
    names=_request_names("input_tokens", "request_input_tokens"),
)
OUTPUT_TOKENS = Family(
    key="output_tokens",
    kind=Kind.HISTOGRAM,
    unit="tokens",
    help="Generated tokens as the model server reports them, when it does.",
    labels=_REQUEST,
    buckets=buckets.OUTPUT_TOKENS,
    names=_request_names("output_tokens", "request_output_tokens"),
)
CACHED_TOKENS = Family(
    key="cached_tokens",
    kind=Kind.HISTOGRAM,
    unit="tokens",
    help="Prompt tokens that the model server found in its prefix cache, when it says so.",
    labels=_REQUEST,
    buckets=buckets.INPUT_TOKENS,
    names=_request_names("prompt_cached_tokens", "request_cached_tokens", in_v0=False),
)
RUNNING_REQUESTS = Family(
    key="running_requests",
    kind=Kind.GAUGE,
    unit="requests",
    help="Requests that were sent to a model server and have not ended.",
    labels=_REQUEST,
    names=_request_names("running_requests", "request_running", labels=("model_name",)),
)
TIME_PER_OUTPUT_TOKEN = Family(
    key="normalized_time_per_output_token_seconds",
    kind=Kind.HISTOGRAM,
    unit="seconds per token",
    help="Request duration divided by generated tokens.",
    labels=_REQUEST,
    buckets=buckets.NORMALIZED_SECONDS_PER_TOKEN,
    names=_request_names("normalized_time_per_output_token_seconds", "request_ntpot_seconds"),
)
TIME_TO_FIRST_TOKEN = Family(
    key="request_ttft_seconds",
    kind=Kind.HISTOGRAM,
    unit="seconds",
    help="From the request headers to the first bytes of the response body, where we see them.",
    labels=(*_REQUEST, "streaming"),
    buckets=buckets.FIRST_TOKEN_SECONDS,
    names=newest_only("request_ttft_seconds", (*_FLOW, "streaming"), fixed=_FAIRNESS),
)
STREAMING_TIME_PER_TOKEN = Family(
    key="request_streaming_tpot_seconds",
    kind=Kind.HISTOGRAM,
    unit="seconds per token",
    help="Time after the first token divided by the tokens after it; streamed responses only.",
    labels=_REQUEST,
    buckets=buckets.STREAMING_SECONDS_PER_TOKEN,
    names=newest_only("request_streaming_tpot_seconds", _FLOW, fixed=_FAIRNESS),
)
REQUEST_PROCESSING = Family(
    key="request_processing_duration_seconds",
    kind=Kind.HISTOGRAM,
    unit="seconds",
    help="From the request headers to our answer to the body, waiting for the body included.",
    buckets=buckets.REQUEST_PROCESSING_SECONDS,
    names=newest_only("request_processing_duration_seconds"),
)
RESPONSE_PROCESSING = Family(
    key="response_processing_duration_seconds",
    kind=Kind.HISTOGRAM,
    unit="seconds",
    help="Time spent on a response: the work on all chunks of a stream, else until it was complete.",
    buckets=buckets.RESPONSE_PROCESSING_SECONDS,
    names=newest_only("response_processing_duration_seconds"),
)
