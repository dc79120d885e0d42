"""vLLM: the KV gauge has a new and an old name; a server exposes one of them, or both."""

from epp.backend.providers.mapping import EngineMapping, metric

VLLM = EngineMapping(
    name="vllm",
    queued=metric("vllm:num_requests_waiting"),
    running=metric("vllm:num_requests_running"),
    kv_usage=metric("vllm:kv_cache_usage_perc") + metric("vllm:gpu_cache_usage_perc"),
    lora=metric("vllm:lora_requests_info"),
    cache_info=metric("vllm:cache_config_info"),
)
