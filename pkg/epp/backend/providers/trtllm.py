"""TensorRT-LLM's own server, trtllm-serve: block size and count are values, not labels."""

from epp.backend.providers.mapping import EngineMapping, metric

TRTLLM_SERVE = EngineMapping(
    name="trtllm-serve",
    queued=metric("trtllm_num_requests_waiting"),
    running=metric("trtllm_num_requests_running"),
    kv_usage=metric("trtllm_kv_cache_utilization"),
    block_size=metric("trtllm_kv_cache_tokens_per_block"),
    num_blocks=metric("trtllm_kv_cache_max_blocks"),
)
