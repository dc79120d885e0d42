"""Info metrics, whose labels are the message: LoRA adapters and the KV cache configuration.

A LoRA info series exists for every combination of adapters that ever was, and all of them stay on
the page; its value is the unix time at which the combination was last true, so the greatest value
is the present.

Reference: llm-d-router extractor/metrics/loraspec.go; GAIE v0.3.0 backend/metrics/metrics.go.
"""

import math
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import NamedTuple

from epp.backend.metrics_parser import Sample, parse_labels

MAX_ADAPTERS_LABEL = "max_lora"
RUNNING_ADAPTERS_LABEL = "running_lora_adapters"
WAITING_ADAPTERS_LABEL = "waiting_lora_adapters"

MAX_COUNT = 2**53
"""Counts are clamped here: exact as a float, and safe in a 64-bit column."""


class LoraRule(StrEnum):
    """Which LoRA info series counts."""

    NEWEST = "newest"
    """The newest one, also when its lists are empty: an idle server has no active adapters."""
    NON_EMPTY = "non-empty"
    """The newest one that names an adapter, as v0.2 to v1.4: the last adapters persist."""


class LoraInfo(NamedTuple):
    """One LoRA info series.

    Attributes:
        running: Adapters with running requests.
        waiting: Adapters that requests wait for.
        max_adapters: Adapter slots; None when the label is missing or empty.
        malformed: The slots are not a number.
    """

    running: frozenset[str]
    waiting: frozenset[str]
    max_adapters: int | None
    malformed: bool


def newest_lora_info(
    samples: Sequence[Sample], read: Callable[[bytes], LoraInfo], rule: LoraRule
) -> LoraInfo | None:
    """The adapters as the newest series tells them; None when no series counts.

    Args:
        samples: The series.
        read: ``read_lora_info``, or a memo of it.
        rule: Which series counts.
    """
    floor = -1.0 if rule is LoraRule.NEWEST else 0.0
    winner, best = None, floor
    for sample in samples:
        if not best < sample.value < math.inf:
            continue
        if rule is LoraRule.NON_EMPTY:
            info = read(sample.label_block)
            if not (info.running or info.waiting):
                continue
        winner, best = sample, sample.value
    return None if winner is None else read(winner.label_block)


def read_lora_info(label_block: bytes) -> LoraInfo:
    """Read the labels of one series."""
    labels = parse_labels(label_block)
    text = labels.get(MAX_ADAPTERS_LABEL, "").strip()
    slots = parse_count(text)
    return LoraInfo(
        running=_adapters(labels.get(RUNNING_ADAPTERS_LABEL, "")),
        waiting=_adapters(labels.get(WAITING_ADAPTERS_LABEL, "")),
        max_adapters=slots,
        malformed=bool(text) and slots is None,
    )


def _adapters(text: str) -> frozenset[str]:
    if not text:
        return frozenset()
    return frozenset(name for part in text.split(",") if (name := part.strip()))


def parse_count(text: str) -> int | None:
    """Read a whole number from a label; negative numbers give 0, other text gives None."""
    digits = text.removeprefix("-").removeprefix("+")
    if not (digits.isascii() and digits.isdigit()):
        return None
    if text.startswith("-"):
        return 0
    return MAX_COUNT if len(digits) > 16 else min(int(digits), MAX_COUNT)


def to_count(value: float) -> int | None:
    """Truncate a sample toward zero and clamp it to 0 and more; None for NaN and infinity."""
    if not math.isfinite(value):
        return None
    return min(max(int(value), 0), MAX_COUNT)
