"""Triton with the TensorRT-LLM backend: a few families, told apart by a label."""

from epp.backend.providers.mapping import EngineMapping, metric

_REQUESTS = "nv_trt_llm_request_metrics"
_BLOCKS = "nv_trt_llm_kv_cache_block_metrics"

TRITON_TENSORRT_LLM = EngineMapping(
    name="triton-tensorrt-llm",
    queued=metric(_REQUESTS, request_type="waiting"),
    running=metric(_REQUESTS, request_type="scheduled"),
    kv_usage=metric(_BLOCKS, kv_cache_block_type="fraction"),
    block_size=metric(_BLOCKS, kv_cache_block_type="tokens_per"),
    num_blocks=metric(_BLOCKS, kv_cache_block_type="max"),
)
