"""The metric families of a vLLM server as data: names, types, labels, buckets, in page order.

Reference: a page recorded from vLLM 0.32.0. Names, labels and order are its; the HELP texts are
ours. Every counter and histogram is followed by a family of its creation time, as recorded.
"""

from dataclasses import dataclass

_ENGINE = ("engine", "model_name")

_LATENCY = (
    *(0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0),
    *(120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0),
)
_FIRST_TOKEN = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5),
    *(10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)
_TOKEN_GAP = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5),
    *(10.0, 20.0, 40.0, 80.0),
)
_STEP_TOKENS = (1.0, *(float(2**power) for power in range(3, 15)))
_HIGH_RESOLUTION = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0),
    *(4.5, 5.0, 7.5, 10.0, 30.0, 60.0),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FamilySpec:
    """One family.

    Attributes:
        name: As in the TYPE line.
        kind: ``counter``, ``gauge``, ``histogram`` or ``summary``.
        text: HELP text.
        labels: Labels of the engine that every sample has.
        split: Further label and its values, a sample each; None for a single sample.
        buckets: Upper bounds of a histogram; ``by_length`` goes up to the longest context.
        by_length: Buckets 1, 2, 5, 10, 20, 50 … up to the longest context.
        lazy: Whether its samples appear with the first event instead of from the start.
    """

    name: str
    kind: str
    text: str
    labels: tuple[str, ...] = _ENGINE
    split: tuple[str, tuple[str, ...]] | None = None
    buckets: tuple[float, ...] = ()
    by_length: bool = False
    lazy: bool = False

    @property
    def created_name(self) -> str | None:
        """Name of the family with the creation time; None for gauges."""
        if self.kind == "gauge":
            return None
        base = self.name.removesuffix("_total") if self.kind == "counter" else self.name
        return f"{base}_created"


def _counter(name: str, text: str, split: tuple[str, tuple[str, ...]] | None = None) -> FamilySpec:
    return FamilySpec(name=f"vllm:{name}_total", kind="counter", text=text, split=split)


def _gauge(name: str, text: str, split: tuple[str, tuple[str, ...]] | None = None) -> FamilySpec:
    return FamilySpec(name=f"vllm:{name}", kind="gauge", text=text, split=split)


def _histogram(name: str, text: str, buckets: tuple[float, ...] = ()) -> FamilySpec:
    return FamilySpec(
        name=f"vllm:{name}", kind="histogram", text=text, buckets=buckets, by_length=not buckets
    )


ENGINE_FAMILIES = (
    _counter("estimated_flops_per_gpu", "Floating point operations per device, estimated."),
    _counter("estimated_read_bytes_per_gpu", "Bytes read from device memory, estimated."),
    _counter("estimated_write_bytes_per_gpu", "Bytes written to device memory, estimated."),
    _gauge("num_requests_running", "Requests in the running batch."),
    _gauge("num_requests_waiting", "Requests in the waiting queue."),
    _gauge(
        "num_requests_waiting_by_reason",
        "Waiting requests: for capacity, or deferred because their adapter does not fit.",
        ("reason", ("capacity", "deferred")),
    ),
    _gauge(
        "engine_sleep_state",
        "Which sleep state the engine is in.",
        ("sleep_state", ("awake", "weights_offloaded", "discard_all")),
    ),
    _gauge("kv_cache_usage_perc", "Used share of the KV cache, 0 to 1."),
    _counter("prefix_cache_queries", "Prompt tokens looked up in the prefix cache."),
    _counter("prefix_cache_hits", "Prompt tokens found in the prefix cache."),
    _counter("external_prefix_cache_queries", "Prompt tokens looked up at a KV connector."),
    _counter("external_prefix_cache_hits", "Prompt tokens found at a KV connector."),
    _counter("mm_cache_queries", "Items looked up in the multi-modal cache."),
    _counter("mm_cache_hits", "Items found in the multi-modal cache."),
    _counter("num_preemptions", "Preemptions."),
    _counter("prompt_tokens", "Prompt tokens processed."),
    _counter(
        "prompt_tokens_by_source",
        "Prompt tokens by where they came from.",
        ("source", ("local_compute", "local_cache_hit", "external_kv_transfer")),
    ),
    _counter("prompt_tokens_cached", "Prompt tokens that came from a cache."),
    _counter(
        "prompt_tokens_cached_by_source",
        "Cached prompt tokens by the tier that had them.",
        ("source", ("device", "host", "p2p", "disk", "external_unspecified")),
    ),
    _counter("generation_tokens", "Tokens generated."),
    _counter(
        "request_success",
        "Finished requests by reason.",
        ("finished_reason", ("stop", "length", "abort", "error", "repetition")),
    ),
    FamilySpec(
        name="vllm:admission_rejections_total",
        kind="counter",
        text="Requests refused because a queue limit was reached.",
        labels=("model_name",),
        split=("reason", ("max_num_queued_reqs", "max_num_queued_tokens")),
    ),
    _histogram("request_prompt_tokens", "Prompt tokens per request."),
    _histogram("request_generation_tokens", "Generated tokens per request."),
    _histogram("iteration_tokens_total", "Tokens per engine step.", _STEP_TOKENS),
    _histogram("request_max_num_generation_tokens", "Longest output of a request's choices."),
    _histogram("request_params_n", "Choices asked for per request.", (1.0, 2.0, 5.0, 10.0, 20.0)),
    _histogram("request_params_max_tokens", "Output limit asked for per request."),
    _histogram("time_to_first_token_seconds", "Arrival to first token.", _FIRST_TOKEN),
    _histogram("inter_token_latency_seconds", "Token to token.", _TOKEN_GAP),
    _histogram("request_time_per_output_token_seconds", "Mean per output token.", _TOKEN_GAP),
    _histogram("e2e_request_latency_seconds", "Arrival to last token.", _LATENCY),
    _histogram("request_queue_time_seconds", "Arrival to admission.", _LATENCY),
    _histogram("request_inference_time_seconds", "Admission to last token.", _LATENCY),
    _histogram("request_prefill_time_seconds", "Admission to first token.", _LATENCY),
    _histogram("request_decode_time_seconds", "First token to last token.", _LATENCY),
    _histogram(
        "request_num_preemptions",
        "Preemptions per request.",
        (1.0, 2.0, 3.0, 4.0, 5.0, 10.0, 20.0),
    ),
    _histogram("request_prefill_kv_computed_tokens", "Prompt tokens computed, not cached."),
)

LORA_FAMILY = FamilySpec(
    name="vllm:lora_requests_info",
    kind="gauge",
    text="Adapters of running and waiting requests; the value is when this was last true.",
    labels=("max_lora", "running_lora_adapters", "waiting_lora_adapters"),
    lazy=True,
)

CACHE_CONFIG_FAMILY = FamilySpec(
    name="vllm:cache_config_info",
    kind="gauge",
    text="Configuration of the KV cache, as labels.",
    lazy=True,
)

HTTP_FAMILIES = (
    FamilySpec(
        name="http_requests_total",
        kind="counter",
        text="HTTP requests by handler, method and status class.",
        labels=("handler", "method", "status"),
        lazy=True,
    ),
    FamilySpec(
        name="http_request_size_bytes",
        kind="summary",
        text="Length of request bodies by handler.",
        labels=("handler",),
        lazy=True,
    ),
    FamilySpec(
        name="http_response_size_bytes",
        kind="summary",
        text="Length of response bodies by handler.",
        labels=("handler",),
        lazy=True,
    ),
    FamilySpec(
        name="http_request_duration_highr_seconds",
        kind="histogram",
        text="Duration of HTTP requests, many buckets.",
        labels=(),
        buckets=_HIGH_RESOLUTION,
    ),
    FamilySpec(
        name="http_request_duration_seconds",
        kind="histogram",
        text="Duration of HTTP requests by handler, few buckets.",
        labels=("handler", "method"),
        buckets=(0.1, 0.5, 1.0),
        lazy=True,
    ),
)


def length_buckets(longest: int) -> tuple[float, ...]:
    """Return 1, 2, 5, 10, 20, 50 … up to a number of tokens."""
    bounds = []
    decade = 1
    while decade <= longest:
        bounds += [float(decade * step) for step in (1, 2, 5) if decade * step <= longest]
        decade *= 10
    return tuple(bounds)


def cache_config_labels(*, block_size: int, num_blocks: int) -> dict[str, str]:
    """Return the labels of ``vllm:cache_config_info`` without those of the engine."""
    return {
        "_block_size_resolved": "True",
        "block_size": str(block_size),
        "cache_dtype": "auto",
        "cache_hit_alignment_tokens": "None",
        "effective_attention_block_size": str(block_size),
        "enable_mamba_shared_prefix_checkpoint": "False",
        "enable_prefix_caching": "True",
        "gpu_memory_utilization": "0.92",
        "hash_block_size": "None",
        "is_attention_free": "False",
        "kv_cache_dtype_skip_layers": "[]",
        "kv_cache_layout": "None",
        "kv_cache_max_concurrency": "1.0",
        "kv_cache_memory_bytes": "1073741824",
        "kv_cache_size_tokens": str(block_size * num_blocks),
        "kv_offloading_backend": "native",
        "kv_offloading_size": "None",
        "kv_sharing_fast_prefill": "False",
        "mamba_block_size": "None",
        "mamba_cache_dtype": "auto",
        "mamba_cache_mode": "none",
        "mamba_page_size_padded": "None",
        "mamba_ssm_cache_dtype": "float32",
        "num_cpu_blocks": "None",
        "num_gpu_blocks": str(num_blocks),
        "num_gpu_blocks_override": str(num_blocks),
        "prefix_cache_retention_interval": "0",
        "prefix_caching_hash_algo": "sha256",
        "prefix_match_unit": "None",
        "replayssm_buffer_len": "16",
        "skip_page_size_padded": "None",
        "sliding_window": "None",
        "swa_bounded_replay": "True",
        "use_kda_recoverssm": "False",
        "use_replayssm": "False",
        "user_specified_block_size": "True",
    }
