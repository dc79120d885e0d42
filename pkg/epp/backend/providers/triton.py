"""Triton without an LLM backend: no KV cache; "running" is a counter of executions.

Reference: llm-d-router maps running requests to ``nv_inference_exec_count`` as well.
"""

from epp.backend.providers.mapping import EngineMapping, metric

TRITON = EngineMapping(
    name="triton",
    queued=metric("nv_inference_pending_request_count"),
    running=metric("nv_inference_exec_count"),
)
