"""EngineMapping: where each signal of an engine stands on its metrics page. Plain data.

Each signal has an ordered tuple of candidate specs: the first one with a matching series wins, so
an engine that renamed a metric is served in both versions. An empty tuple is a disabled signal.
"""

from dataclasses import dataclass

from epp.backend.metrics_spec import MetricSpec

Candidates = tuple[MetricSpec, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomMetric:
    """An extra value to keep: attribute key in ``MetricsState.custom`` and where it stands."""

    attribute_key: str
    candidates: Candidates


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineMapping:
    """The signals of one engine.

    Attributes:
        name: Value of the engine label of a pod.
        queued: Requests that wait.
        running: Requests in the running batch.
        kv_usage: Used share of the KV cache, 0 to 1.
        lora: Info metric: labels list the adapters, the value is the unix time of the change.
        cache_info: Info metric whose labels carry block size and number of blocks.
        block_size_label: Label of ``cache_info`` with the block size in tokens.
        num_blocks_label: Label of ``cache_info`` with the number of blocks.
        block_size: Block size in tokens as a value, for engines without ``cache_info``.
        num_blocks: Number of blocks as a value, for engines without ``cache_info``.
        custom: Extra values.
    """

    name: str
    queued: Candidates = ()
    running: Candidates = ()
    kv_usage: Candidates = ()
    lora: Candidates = ()
    cache_info: Candidates = ()
    block_size_label: str = "block_size"
    num_blocks_label: str = "num_gpu_blocks"
    block_size: Candidates = ()
    num_blocks: Candidates = ()
    custom: tuple[CustomMetric, ...] = ()

    def specs(self) -> tuple[MetricSpec, ...]:
        """Every spec of the mapping, in the order of its fields."""
        custom = tuple(spec for metric in self.custom for spec in metric.candidates)
        return (
            *self.queued,
            *self.running,
            *self.kv_usage,
            *self.lora,
            *self.cache_info,
            *self.block_size,
            *self.num_blocks,
            *custom,
        )


def metric(name: str, **labels: str) -> Candidates:
    """One candidate: the short form in which the built-in mappings are written."""
    return (MetricSpec(name=name, labels=tuple(labels.items())),)
