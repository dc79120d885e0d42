"""What happened in the engine, as vLLM's metrics.

Owner of the numbers on the metrics page; reads the step model when the page is asked for.
Invariant: every family that is exposed has the name, type and labels of vLLM 0.32.
"""

from collections.abc import Callable

from epp.modelsim.exposition import Histogram, Value
from epp.modelsim.metrics_page import Instruments, MetricsPage
from epp.modelsim.process_stats import ProcessStats
from epp.modelsim.sequence import Sequence
from epp.modelsim.step_model import StepModel, StepResult
from epp.modelsim.vllm_families import (
    CACHE_CONFIG_FAMILY,
    ENGINE_FAMILIES,
    HTTP_FAMILIES,
    LORA_FAMILY,
    cache_config_labels,
    length_buckets,
)

_LORA_COMBINATIONS = 1000
"""vLLM keeps every combination for ever; we bound them."""


class VllmMetrics:
    """Records and renders. ``wall_clock`` gives unix time in seconds."""

    def __init__(
        self,
        model: StepModel,
        *,
        model_name: str,
        has_loras: bool,
        page_bytes: int,
        wall_clock: Callable[[], float],
    ) -> None:
        self._model = model
        self._wall_clock = wall_clock
        self._labels = {"engine": "0", "model_name": model_name}
        self._page = MetricsPage(engine=self._labels, wall_clock=wall_clock)
        self._process = ProcessStats(self._page, wall_clock=wall_clock)
        settings = model.settings
        lengths = length_buckets(settings.capacity_tokens)
        self._engine = {
            spec.name.removeprefix("vllm:"): self._page.add(spec, lengths if spec.by_length else ())
            for spec in ENGINE_FAMILIES
        }
        self._lora = self._page.add(LORA_FAMILY) if has_loras else None
        config = cache_config_labels(
            block_size=settings.block_size, num_blocks=settings.num_gpu_blocks
        )
        self._page.add(CACHE_CONFIG_FAMILY).value({"engine": "0", **config}).set(1.0)
        self._http = {spec.name: self._page.add(spec) for spec in HTTP_FAMILIES}
        self._value("engine_sleep_state", sleep_state="awake").set(1.0)
        self._bind()
        if page_bytes:
            self._page.pad_to(page_bytes)

    def step_finished(self, result: StepResult) -> None:
        """Count a step, its tokens, and the requests that ended with it."""
        self._iteration_tokens.observe(result.tokens)
        for sequence in result.advanced:
            if sequence.generated > 1:
                self._token_gap.observe(sequence.last_token_at - sequence.previous_token_at)
            else:
                self._prefill_finished(sequence)
            if sequence.output_tokens:
                self._generation_tokens.inc()
        self.adapters_changed()

    def adapters_changed(self) -> None:
        """Mark the present combination of adapters as the newest one."""
        if self._lora is None:
            return
        labels = {
            "max_lora": str(self._model.settings.max_loras),
            "running_lora_adapters": ",".join(self._model.adapters.running),
            "waiting_lora_adapters": ",".join(self._model.waiting_adapters),
        }
        self._lora.value(labels).set(self._wall_clock())
        self._lora.forget_oldest(_LORA_COMBINATIONS)

    def sequence_finished(self, sequence: Sequence) -> None:
        """Observe the life of a finished sequence."""
        self._value("request_success_total", finished_reason=sequence.finish_reason).inc()
        start, first, last = sequence.admitted_at, sequence.first_token_at, sequence.last_token_at
        for name, number in (
            ("request_prompt_tokens", sequence.prompt_tokens),
            ("request_generation_tokens", sequence.generated),
            ("request_max_num_generation_tokens", sequence.generated),
            ("e2e_request_latency_seconds", last - sequence.arrived_at),
            ("request_queue_time_seconds", start - sequence.arrived_at),
            ("request_inference_time_seconds", last - start),
            ("request_prefill_time_seconds", first - start),
            ("request_decode_time_seconds", last - first),
            ("request_num_preemptions", sequence.preemptions),
            ("request_prefill_kv_computed_tokens", sequence.prompt_tokens - sequence.cached_tokens),
        ):
            self._histogram(name).observe(number)
        if sequence.generated > 1:
            mean = (last - first) / (sequence.generated - 1)
            self._histogram("request_time_per_output_token_seconds").observe(mean)

    def sequence_aborted(self) -> None:
        """Count a sequence whose client went away."""
        self._value("request_success_total", finished_reason="abort").inc()
        self.adapters_changed()

    def request_parameters(self, *, choices: int, max_tokens: int) -> None:
        """Observe what a request asked for."""
        self._histogram("request_params_n").observe(choices)
        self._histogram("request_params_max_tokens").observe(max_tokens)

    def http_finished(
        self, *, path: str, method: str, status: int, seconds: float, received: int, sent: int
    ) -> None:
        """Count an answered HTTP request; ``sent`` is 0 for a stream."""
        handler = {"handler": path}
        labels = {**handler, "method": method, "status": f"{status // 100}xx"}
        self._http["http_requests_total"].value(labels).inc()
        self._http["http_request_size_bytes"].histogram(handler).observe(received)
        self._http["http_response_size_bytes"].histogram(handler).observe(sent)
        self._http["http_request_duration_highr_seconds"].histogram({}).observe(seconds)
        by_method = {**handler, "method": method}
        self._http["http_request_duration_seconds"].histogram(by_method).observe(seconds)

    def render(self, names: frozenset[str] | None = None) -> bytes:
        """Return the page as of now, restricted to samples of these names if given."""
        model = self._model
        deferred = model.num_deferred
        self._process.refresh()
        self._running.set(model.num_running)
        self._waiting.set(model.num_waiting)
        self._usage.set(model.cache.usage_ratio)
        self._preemptions.set(model.num_preemptions)
        self._value("num_requests_waiting_by_reason", reason="deferred").set(deferred)
        capacity = model.num_waiting - deferred
        self._value("num_requests_waiting_by_reason", reason="capacity").set(capacity)
        return self._page.render(names)

    def _bind(self) -> None:
        self._running = self._value("num_requests_running")
        self._waiting = self._value("num_requests_waiting")
        self._usage = self._value("kv_cache_usage_perc")
        self._preemptions = self._value("num_preemptions_total")
        self._generation_tokens = self._value("generation_tokens_total")
        self._iteration_tokens = self._histogram("iteration_tokens_total")
        self._token_gap = self._histogram("inter_token_latency_seconds")

    def _prefill_finished(self, sequence: Sequence) -> None:
        waited = sequence.first_token_at - sequence.arrived_at
        self._histogram("time_to_first_token_seconds").observe(waited)
        prompt, cached = sequence.prompt_tokens, sequence.cached_tokens
        self._value("prompt_tokens_total").inc(prompt)
        self._value("prefix_cache_queries_total").inc(prompt)
        self._value("prefix_cache_hits_total").inc(cached)
        self._value("prompt_tokens_cached_total").inc(cached)
        self._value("prompt_tokens_by_source_total", source="local_cache_hit").inc(cached)
        self._value("prompt_tokens_by_source_total", source="local_compute").inc(prompt - cached)
        self._value("prompt_tokens_cached_by_source_total", source="device").inc(cached)

    def _value(self, name: str, **split: str) -> Value:
        return self._family(name).value({**self._labels, **split})

    def _histogram(self, name: str) -> Histogram:
        return self._family(name).histogram(self._labels)

    def _family(self, name: str) -> Instruments:
        return self._engine[name]
