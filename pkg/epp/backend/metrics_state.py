"""MetricsState: what one endpoint last said of itself. Immutable; replaced whole."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

_NO_CUSTOM: Mapping[str, float] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsState:
    """One merged scrape.

    Attributes:
        waiting_requests: Queued requests, >= 0.
        running_requests: Requests in the running batch, >= 0.
        kv_usage: Used share of the KV cache, 0 to 1.
        active_adapters: LoRA adapters with running requests.
        waiting_adapters: LoRA adapters that only waiting requests need.
        max_adapters: Adapter slots; 0 when the server has no LoRA.
        block_size_tokens: KV block size in tokens; 0 when unknown.
        num_blocks: KV blocks in all; 0 when unknown.
        custom: Values of configured extra metrics by attribute key.
    """

    waiting_requests: int = 0
    running_requests: int = 0
    kv_usage: float = 0.0
    active_adapters: frozenset[str] = frozenset()
    waiting_adapters: frozenset[str] = frozenset()
    max_adapters: int = 0
    block_size_tokens: int = 0
    num_blocks: int = 0
    custom: Mapping[str, float] = field(default_factory=lambda: _NO_CUSTOM)


UNKNOWN_STATE = MetricsState()
"""The state before the first scrape. Never to be read as idle: see ``EndpointTable.known``."""
