"""SGLang: no LoRA metric; its cache info counts pages."""

from epp.backend.providers.mapping import EngineMapping, metric

SGLANG = EngineMapping(
    name="sglang",
    queued=metric("sglang:num_queue_reqs"),
    running=metric("sglang:num_running_reqs"),
    kv_usage=metric("sglang:token_usage"),
    cache_info=metric("sglang:cache_config_info"),
    block_size_label="page_size",
    num_blocks_label="num_pages",
)
