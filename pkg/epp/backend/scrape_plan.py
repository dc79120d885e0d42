"""ScrapePlan: an engine mapping made ready to read pages, and the rules of merging a page.

A page changes only what it carries: a missing signal keeps its old value. The merge is pure: old
state and page in, ``ScrapeOutcome`` out. One plan serves every endpoint of an engine.

Reference: llm-d-router's extractor, with the differences that the product decided: any sample
type is a number, NaN and infinity are a missing signal, negative values are 0, names are trimmed.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

from epp.backend.lora_info import LoraRule, newest_lora_info, parse_count, read_lora_info, to_count
from epp.backend.metrics_parser import PageSamples, PageScanner, Sample, remembered
from epp.backend.metrics_spec import MetricSpec
from epp.backend.metrics_state import MetricsState
from epp.backend.providers.mapping import Candidates, CustomMetric, EngineMapping

LORA_SIGNAL = "lora"
"""The one signal that servers may lack without anything being wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScrapeRules:
    """Choices that hold for every engine.

    Attributes:
        lora: Which LoRA info series counts.
        aggregate: Add up the series of a count and take the greatest KV usage, for servers that
            expose one series per data-parallel rank; otherwise the newest series alone counts.
    """

    lora: LoraRule = LoraRule.NEWEST
    aggregate: bool = False


@dataclass(frozen=True, slots=True)
class ScrapeOutcome:
    """What a page changed.

    Attributes:
        state: The merged state; the old object when nothing differs.
        updated: The page carried at least one signal, or none is mapped.
        missing: Signals without a usable series, by name.
        malformed: Lines, or labels of info metrics, that could not be read.
    """

    state: MetricsState
    updated: bool
    missing: tuple[str, ...]
    malformed: int

    @property
    def complete(self) -> bool:
        """Nothing that every server should have is missing or unreadable."""
        return not self.malformed and all(name == LORA_SIGNAL for name in self.missing)


class ScrapePlan:
    """Reads pages of one engine.

    Args:
        mapping: Where the signals stand.
        rules: How series are chosen.

    Attributes:
        names: The sample names that are needed.
        query: Query string that asks a server for these alone.
        signals: Names of the mapped signals.
    """

    def __init__(self, mapping: EngineMapping, rules: ScrapeRules | None = None) -> None:
        self.mapping = mapping
        self.rules = rules or ScrapeRules()
        self.names = tuple(dict.fromkeys(spec.name for spec in mapping.specs()))
        self.query = "&".join(f"name%5B%5D={quote(name, safe=':')}" for name in self.names)
        self.scanner = PageScanner(self.names)
        self.read_lora = remembered(read_lora_info)
        counts = (
            ("queued", "waiting_requests", mapping.queued),
            ("running", "running_requests", mapping.running),
            ("block_size", "block_size_tokens", mapping.block_size),
            ("num_blocks", "num_blocks", mapping.num_blocks),
        )
        self.counts = tuple(count for count in counts if count[2])
        self.signals = _signals(mapping)

    def apply(self, page: bytes, previous: MetricsState) -> ScrapeOutcome:
        """Merge a page into the previous state."""
        return _Merge(self, self.scanner.scan(page), previous).run()


class _Merge:
    """One application of a page; collects changed fields and what went wrong."""

    __slots__ = ("_changes", "_mapping", "_missing", "_page", "_plan", "_previous", "malformed")

    def __init__(self, plan: ScrapePlan, page: PageSamples, previous: MetricsState) -> None:
        self._plan = plan
        self._mapping = plan.mapping
        self._page = page
        self._previous = previous
        self._changes: dict[str, Any] = {}
        self._missing: list[str] = []
        self.malformed = page.malformed

    def run(self) -> ScrapeOutcome:
        for signal, attribute, candidates in self._plan.counts:
            self._count(signal, attribute, candidates)
        mapping = self._mapping
        if mapping.kv_usage:
            self._kv_usage(mapping.kv_usage)
        if mapping.lora:
            self._lora(mapping.lora)
        if mapping.cache_info:
            self._cache_info(mapping.cache_info)
        if mapping.custom:
            self._custom()
        return ScrapeOutcome(
            state=self._merged(),
            updated=bool(self._changes) or not self._plan.signals,
            missing=tuple(self._missing),
            malformed=self.malformed,
        )

    def _merged(self) -> MetricsState:
        previous = self._previous
        changed = {
            name: value for name, value in self._changes.items() if getattr(previous, name) != value
        }
        return replace(previous, **changed) if changed else previous

    def _count(self, signal: str, attribute: str, candidates: Candidates) -> None:
        series = self._series(candidates)
        values = [sample.value for sample in series] if self._aggregates(signal) else None
        count = to_count(math.fsum(values)) if values else to_count(_newest(series))
        if count is None:
            self._missing.append(signal)
        else:
            self._changes[attribute] = count

    def _aggregates(self, signal: str) -> bool:
        return self._plan.rules.aggregate and signal in {"queued", "running"}

    def _kv_usage(self, candidates: Candidates) -> None:
        series = self._series(candidates)
        if self._plan.rules.aggregate:
            value = max((sample.value for sample in series), default=math.nan)
        else:
            value = _newest(series)
        if math.isfinite(value):
            self._changes["kv_usage"] = min(max(value, 0.0), 1.0)
        else:
            self._missing.append("kv_usage")

    def _lora(self, candidates: Candidates) -> None:
        series = self._series(candidates)
        if not series:
            self._missing.append(LORA_SIGNAL)
            return
        info = newest_lora_info(series, self._plan.read_lora, self._plan.rules.lora)
        if info is None:
            return
        self.malformed += info.malformed
        self._changes["active_adapters"] = info.running
        self._changes["waiting_adapters"] = info.waiting
        if info.max_adapters is not None:
            self._changes["max_adapters"] = info.max_adapters

    def _cache_info(self, candidates: Candidates) -> None:
        """The block size is forgotten when its label cannot be read; the block count is kept."""
        series = self._series(candidates)
        if not series:
            self._missing.append("cache_info")
            return
        labels = self._plan.scanner.labels(_newest_of(series))
        block_size = labels.get(self._mapping.block_size_label)
        num_blocks = labels.get(self._mapping.num_blocks_label)
        self._changes["block_size_tokens"] = self._label_count(block_size) or 0
        count = self._label_count(num_blocks)
        if count is not None:
            self._changes["num_blocks"] = count

    def _label_count(self, text: str | None) -> int | None:
        if not text:
            return None
        count = parse_count(text.strip())
        self.malformed += count is None
        return count

    def _custom(self) -> None:
        values = dict(self._previous.custom)
        found = False
        for metric in self._mapping.custom:
            value = _newest(self._series(metric.candidates))
            if math.isfinite(value):
                values[metric.attribute_key] = value
                found = True
            else:
                self._missing.append(_custom_signal(metric))
        if found:
            self._changes["custom"] = values

    def _series(self, candidates: Candidates) -> Sequence[Sample]:
        """Series of the first candidate that has any."""
        for spec in candidates:
            samples = self._page.by_name.get(spec.name)
            if samples:
                matching = self._matching(spec, samples) if spec.labels else samples
                if matching:
                    return matching
        return ()

    def _matching(self, spec: MetricSpec, samples: Sequence[Sample]) -> list[Sample]:
        wanted = dict(spec.labels).items()
        labels_of = self._plan.scanner.labels
        return [sample for sample in samples if wanted <= labels_of(sample).items()]


def _signals(mapping: EngineMapping) -> tuple[str, ...]:
    """Names of the mapped signals, as ``ScrapeOutcome.missing`` gives them."""
    named = (
        ("queued", mapping.queued),
        ("running", mapping.running),
        ("block_size", mapping.block_size),
        ("num_blocks", mapping.num_blocks),
        ("kv_usage", mapping.kv_usage),
        (LORA_SIGNAL, mapping.lora),
        ("cache_info", mapping.cache_info),
    )
    custom = (_custom_signal(metric) for metric in mapping.custom)
    return (*(name for name, candidates in named if candidates), *custom)


def _custom_signal(metric: CustomMetric) -> str:
    return f"custom.{metric.attribute_key}"


def _newest_of(series: Sequence[Sample]) -> Sample:
    """The series with the greatest timestamp; the first one of equals."""
    return max(series, key=lambda sample: sample.timestamp) if len(series) > 1 else series[0]


def _newest(series: Sequence[Sample]) -> float:
    return _newest_of(series).value if series else math.nan
