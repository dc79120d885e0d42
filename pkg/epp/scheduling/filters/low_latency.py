"""low-latency-filter: the decision tree of the first generation.

Ours (shape of v0.4 and v0.5, shedding happens before)::

    scrape works ─► waiting <= 128 ─yes─► LoRA affinity ─► least queue ─► least KV
                          └──no, all──► least queue ─► LoRA affinity ─► least KV

Strict v0.3 (shedding inside, no look at the health of scrapes)::

    critical ─yes─► waiting < 128 ─yes─► LoRA affinity ─► least queue ─► least KV
        │                 └──no, all──► least queue ─► LoRA affinity ─► least KV
        └──no──► has capacity ─yes─► least queue ─► LoRA affinity ─► least KV
                      └──no──► drop

Ties at the end are the picker's. Reference: GAIE v0.3.0 and v0.4.0 pkg/epp/scheduling/scheduler.go.
"""

from dataclasses import dataclass

import numpy as np
from msgspec.structs import replace

from epp.backend.endpoint_table import EndpointTable, Mask
from epp.errors import ConfigError
from epp.scheduling.filters.decision_tree import Node, run_tree
from epp.scheduling.filters.load_filters import (
    critical_request,
    drop,
    has_capacity,
    healthy_scrapes,
    least_kv_cache,
    least_queue,
    lora_affinity,
    low_queue,
)
from epp.scheduling.framework import Cycle, TypedName

LOW_LATENCY_FILTER_TYPE = "low-latency-filter"


@dataclass(frozen=True, slots=True, kw_only=True)
class LowLatencySettings:
    """Thresholds of the tree.

    Attributes:
        low_queue_threshold: Waiting requests up to which LoRA affinity goes before queue length.
        lora_affinity_threshold: Share of requests, 0 to 1, that go where the adapter is loaded.
        queue_threshold: Strict v0.3 only: waiting requests that a sheddable request accepts.
        kv_cache_threshold: Strict v0.3 only: KV-cache use, 0 to 1, that it accepts.
        strict_v03: The tree of v0.3 to the letter.
    """

    low_queue_threshold: int = 128
    lora_affinity_threshold: float = 0.999
    queue_threshold: int = 5
    kv_cache_threshold: float = 0.8
    strict_v03: bool = False

    def __post_init__(self) -> None:
        """Raise ConfigError for values that mean nothing."""
        for name, value in (
            ("low_queue_threshold", self.low_queue_threshold),
            ("queue_threshold", self.queue_threshold),
        ):
            if value < 0:
                raise ConfigError("must not be negative", field=name, value=value)
        for name, share in (
            ("lora_affinity_threshold", self.lora_affinity_threshold),
            ("kv_cache_threshold", self.kv_cache_threshold),
        ):
            if not 0 <= share <= 1:
                raise ConfigError("must be between 0 and 1", field=name, value=share)


class LowLatencyFilter:
    """The tree as one filter.

    Args:
        settings: Thresholds.
        name: Instance name.
    """

    def __init__(
        self, settings: LowLatencySettings | None = None, name: str = LOW_LATENCY_FILTER_TYPE
    ) -> None:
        self.typed_name = TypedName(LOW_LATENCY_FILTER_TYPE, name)
        chosen = settings or LowLatencySettings()
        self._strict = chosen.strict_v03
        self._root = _strict_tree(chosen) if chosen.strict_v03 else _tree(chosen)

    def filter(self, cycle: Cycle, table: EndpointTable, candidates: Mask) -> Mask:
        """Walk the tree."""
        seen = _unknown_is_idle(table) if self._strict else table
        return run_tree(self._root, cycle, seen, candidates)


def _unknown_is_idle(table: EndpointTable) -> EndpointTable:
    """The table as v0.3 saw it: an endpoint that was never scraped shows zeros."""
    columns = table.columns
    if columns.known.all():
        return table
    known = columns.known
    zeroed = replace(
        columns,
        waiting=np.where(known, columns.waiting, 0.0),
        running=np.where(known, columns.running, 0.0),
        kv_usage=np.where(known, columns.kv_usage, 0.0),
        adapter_rows={},
    )
    return EndpointTable(zeroed, table.taken_at)


def _tree(settings: LowLatencySettings) -> Node:
    queue_first, affinity_first = _chains(settings)
    question = Node(
        name="low queue",
        keep=low_queue(settings.low_queue_threshold, strict=False),
        on_success=affinity_first,
        on_failure=queue_first,
    )
    return Node(name="healthy scrapes", keep=healthy_scrapes, on_either=question)


def _strict_tree(settings: LowLatencySettings) -> Node:
    queue_first, affinity_first = _chains(settings)
    for_critical = Node(
        name="low queue",
        keep=low_queue(settings.low_queue_threshold, strict=True),
        on_success=affinity_first,
        on_failure=queue_first,
    )
    for_others = Node(
        name="has capacity",
        keep=has_capacity(settings.queue_threshold, settings.kv_cache_threshold),
        on_success=queue_first,
        on_failure=Node(name="drop", keep=drop),
    )
    return Node(
        name="critical request",
        keep=critical_request,
        on_success=for_critical,
        on_failure=for_others,
    )


def _chains(settings: LowLatencySettings) -> tuple[Node, Node]:
    """The two chains of bands: queue before affinity, and affinity before queue."""
    affinity = lora_affinity(settings.lora_affinity_threshold, strict=settings.strict_v03)
    least_kv = Node(name="least KV cache", keep=least_kv_cache)
    late_affinity = Node(name="LoRA affinity", keep=affinity, on_either=least_kv)
    queue_first = Node(name="least queue", keep=least_queue, on_either=late_affinity)
    late_queue = Node(name="least queue", keep=least_queue, on_either=least_kv)
    affinity_first = Node(name="LoRA affinity", keep=affinity, on_either=late_queue)
    return queue_first, affinity_first
