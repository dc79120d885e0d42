"""The nodes of the latency tree: queue and KV bands, LoRA affinity, thresholds.

A band is the lowest slice of the range of a metric among the node's own input, so near-ties
survive for the next node: the slice is (max - min) / n wide, in whole requests for queues. Values
that are no finite numbers widen no band and are in none, unless there are no others.
Reference: GAIE v0.3.0 pkg/epp/scheduling/filter.go.
"""

import math

import numpy as np

from epp.backend.endpoint_table import EndpointTable, Floats, Mask
from epp.scheduling.filters.decision_tree import NodeFilter
from epp.scheduling.framework import Cycle


def least_queue(_cycle: Cycle, table: EndpointTable, given: Mask) -> tuple[Mask, str]:
    """Keep the lowest band of waiting requests: up to min + (max - min) // n."""
    limit = _band_limit(table.waiting[given], whole=True)
    if math.isnan(limit):
        return given, "no queue length known"
    return given & (table.waiting <= limit), f"waiting <= {limit:g}"


def least_kv_cache(_cycle: Cycle, table: EndpointTable, given: Mask) -> tuple[Mask, str]:
    """Keep the lowest band of KV-cache use: up to min + (max - min) / n."""
    limit = _band_limit(table.kv_usage[given], whole=False)
    if math.isnan(limit):
        return given, "no KV-cache use known"
    return given & (table.kv_usage <= limit), f"kv <= {limit:.3g}"


def _band_limit(among: Floats, *, whole: bool) -> float:
    """Upper edge of the lowest band; NaN when no value is a finite number."""
    if among.size == 0:
        return math.nan
    slices = among.size
    low, high = _range(among)
    if not math.isfinite(high - low):
        finite = among[np.isfinite(among)]
        if finite.size == 0:
            return math.nan
        low, high = _range(finite)
    width = max(0.0, high) - low
    step = width // slices if whole else width / slices
    return low + step if math.isfinite(step) else low


def _range(among: Floats) -> tuple[float, float]:
    """Least and greatest value; by position, which takes a quarter of the time of ``min()``."""
    return among.item(among.argmin()), among.item(among.argmax())


def low_queue(threshold: float, *, strict: bool) -> NodeFilter:
    """Keep endpoints with at most ``threshold`` waiting (``strict``: fewer)."""
    note = f"waiting {'<' if strict else '<='} {threshold:g}"
    limit = float(threshold)  # numpy converts an integer on every comparison

    def keep(_cycle: Cycle, table: EndpointTable, given: Mask) -> tuple[Mask, str]:
        waiting = table.waiting
        low = waiting < limit if strict else waiting <= limit
        return given & low, note

    return keep


def has_capacity(queue_threshold: float, kv_threshold: float) -> NodeFilter:
    """Keep endpoints that can take a sheddable request; both limits are inclusive."""
    note = f"waiting <= {queue_threshold:g} and kv <= {kv_threshold:g}"

    def keep(_cycle: Cycle, table: EndpointTable, given: Mask) -> tuple[Mask, str]:
        fits = (table.waiting <= queue_threshold) & (table.kv_usage <= kv_threshold)
        return given & fits, note

    return keep


def lora_affinity(threshold: float, *, strict: bool) -> NodeFilter:
    """Prefer endpoints that have the adapter, with a small share for those that could load it.

    When both groups exist one draw below ``threshold`` decides for affinity. Endpoints with
    neither the adapter nor a free slot go as soon as there is anybody better; servers without
    LoRA are all alike, and all pass as this node's failure.

    A vLLM server does not report its slots before its first request. ``strict`` reads that as no
    slot, as v0.3 does, which starves it for ever beside servers that have reported; otherwise it
    is taken to have room.
    """

    def keep(cycle: Cycle, table: EndpointTable, given: Mask) -> tuple[Mask, str]:
        columns = table.columns
        if not np.count_nonzero(columns.max_adapters) and not np.count_nonzero(
            columns.used_adapters
        ):
            return _nobody(given), "no LoRA here"
        adapter = cycle.request.target_model
        loaded = given & table.has_adapter(adapter)
        free = columns.used_adapters < columns.max_adapters
        if not strict:
            free |= columns.max_adapters == 0
        room = given & ~loaded & free
        if not np.count_nonzero(loaded):
            return room, "room for the adapter"
        if not np.count_nonzero(room):
            return loaded, f"{adapter} loaded"
        draw = cycle.random.random()
        if draw < threshold:
            return loaded, f"{adapter} loaded (draw {draw:.3f} < {threshold:g})"
        return room, f"exploring: room for {adapter} (draw {draw:.4f} >= {threshold:g})"

    return keep


def healthy_scrapes(_cycle: Cycle, table: EndpointTable, given: Mask) -> tuple[Mask, str]:
    """Keep endpoints whose last scrape worked: what fails to answer is last choice."""
    failing = table.columns.failing
    if not np.count_nonzero(failing):
        return given, "last scrape worked"
    return given & ~failing, "last scrape worked"


def critical_request(cycle: Cycle, _table: EndpointTable, given: Mask) -> tuple[Mask, str]:
    """Keep everybody for a critical request, nobody for any other."""
    if cycle.request.critical:
        return given, "critical"
    return _nobody(given), "not critical"


def drop(_cycle: Cycle, _table: EndpointTable, given: Mask) -> tuple[Mask, str]:
    """Keep nobody: the request is shed."""
    return _nobody(given), "no capacity for a request that may be shed"


def _nobody(given: Mask) -> Mask:
    return np.zeros(given.size, dtype=np.bool_)
