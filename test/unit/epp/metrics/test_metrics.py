"""Metrics: what each record call does to the exposition, read back with Prometheus' own parser."""

from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from epp.metrics.families import NameSet
from epp.metrics.metrics import Metrics
from epp.metrics.usage import TokenUsage
from epp.scheduling.framework import TypedName

MODEL = {"model_name": "foo", "target_model_name": "foo-v1"}
FLOW = {**MODEL, "priority": "0", "fairness_id": "default-flow"}


class FakeClock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Scrape:
    """One page, parsed."""

    def __init__(self, registry: CollectorRegistry) -> None:
        text = generate_latest(registry).decode()
        self.families = {f.name: f for f in text_string_to_metric_families(text)}
        self.samples: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
        for family in self.families.values():
            for sample in family.samples:
                self.samples[sample.name, tuple(sorted(sample.labels.items()))] = sample.value

    def value(self, name: str, **labels: str) -> float | None:
        return self.samples.get((name, tuple(sorted(labels.items()))))

    def bucket(self, name: str, bound: str, **labels: str) -> float | None:
        return self.value(f"{name}_bucket", le=bound, **labels)

    def names(self) -> set[str]:
        return {name for name, _ in self.samples}


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def metrics(registry: CollectorRegistry) -> Metrics:
    return Metrics(registry, process_metrics=False)


def serve_one(
    metrics: Metrics,
    *,
    usage: TokenUsage | None,
    duration: float = 2.5,
    response_bytes: int | None = 500,
    **known: Any,
) -> None:
    metrics.request_routed("foo", "foo-v1", 0, 120)
    metrics.request_finished(
        "foo", "foo-v1", 0, duration_seconds=duration, response_bytes=response_bytes,
        usage=usage, **known,
    )  # fmt: skip


@pytest.mark.parametrize(
    "name, bound, want",
    [
        pytest.param("request_sizes", "64.0", 0, id="p1-size-above-64"),
        pytest.param("request_sizes", "128.0", 1, id="p1-size-in-128"),
        pytest.param("request_duration_seconds", "2.0", 0, id="p1-duration-above-2"),
        pytest.param("request_duration_seconds", "3.0", 1, id="p1-duration-in-3"),
        pytest.param("response_sizes", "256.0", 0, id="p1-response-above-256"),
        pytest.param("response_sizes", "512.0", 1, id="p1-response-in-512"),
        pytest.param("input_tokens", "8.0", 0, id="p1-input-above-8"),
        pytest.param("input_tokens", "16.0", 1, id="p1-input-in-16"),
        pytest.param("output_tokens", "16.0", 0, id="p1-output-above-16"),
        pytest.param("output_tokens", "32.0", 1, id="p1-output-in-32"),
        pytest.param("normalized_time_per_output_token_seconds", "0.1", 0, id="p1-ntpot-above-.1"),
        pytest.param("normalized_time_per_output_token_seconds", "0.2", 1, id="p1-ntpot-in-.2"),
    ],
)
@pytest.mark.parametrize("prefix", ["inference_model_", "inference_objective_"])
def test_a_served_request_is_in_its_buckets(
    metrics: Metrics, registry: CollectorRegistry, prefix: str, name: str, bound: str, want: Any
) -> None:
    serve_one(metrics, usage=TokenUsage(prompt_tokens=10, completion_tokens=20))

    scrape = Scrape(registry)

    assert scrape.bucket(prefix + name, bound, **MODEL) == want


def test_a_request_is_counted_under_every_generation_of_names(
    metrics: Metrics, registry: CollectorRegistry
) -> None:
    serve_one(metrics, usage=None)

    scrape = Scrape(registry)

    assert scrape.value("inference_model_request_total", **MODEL) == 1
    assert scrape.value("inference_objective_request_total", **MODEL, priority="0") == 1
    assert scrape.value("llm_d_epp_request_total", **FLOW) == 1
    assert scrape.value("llm_d_epp_request_size_bytes_sum", **FLOW) == 120


def test_names_without_priority_sum_over_it(metrics: Metrics, registry: CollectorRegistry) -> None:
    metrics.request_routed("foo", "foo-v1", 0, 100)
    metrics.request_routed("foo", "foo-v1", 2, 1000)

    scrape = Scrape(registry)

    assert scrape.value("inference_model_request_total", **MODEL) == 2
    assert scrape.value("inference_objective_request_total", **MODEL, priority="2") == 1
    assert scrape.value("inference_model_request_sizes_sum", **MODEL) == 1100
    assert scrape.bucket("inference_model_request_sizes", "128.0", **MODEL) == 1
    assert scrape.bucket("inference_model_request_sizes", "+Inf", **MODEL) == 2


def test_zero_usage_is_not_observed(metrics: Metrics, registry: CollectorRegistry) -> None:
    serve_one(metrics, usage=TokenUsage())

    names = Scrape(registry).names()

    assert not [name for name in names if "tokens" in name or "ntpot" in name]
    assert not [name for name in names if "per_output_token" in name]


def test_cached_tokens_are_observed_only_when_reported_zero_included(
    metrics: Metrics, registry: CollectorRegistry
) -> None:
    serve_one(metrics, usage=TokenUsage(prompt_tokens=10, cached_tokens=None))
    before = Scrape(registry).value("inference_objective_prompt_cached_tokens_count", **MODEL)

    serve_one(metrics, usage=TokenUsage(prompt_tokens=10, cached_tokens=0))
    after = Scrape(registry).value("inference_objective_prompt_cached_tokens_count", **MODEL)

    assert (before, after) == (None, 1)


def test_a_shed_request_counts_as_error_only(metrics: Metrics, registry: CollectorRegistry) -> None:
    metrics.request_failed("foo", "foo-v1", -1, "InferencePoolResourceExhausted")

    scrape = Scrape(registry)

    code = "InferencePoolResourceExhausted"
    assert scrape.value("inference_model_request_error_total", **MODEL, error_code=code) == 1
    assert scrape.value("inference_objective_request_error_total", **MODEL, error_code=code) == 1
    assert scrape.value("inference_model_request_total", **MODEL) is None
    assert scrape.value("inference_model_running_requests", model_name="foo") is None


def test_an_aborted_request_stops_running_and_has_no_duration(
    metrics: Metrics, registry: CollectorRegistry
) -> None:
    metrics.request_routed("foo", "foo-v1", 0, 120)
    running = Scrape(registry).value("inference_model_running_requests", model_name="foo")

    metrics.request_finished("foo", "foo-v1", 0, duration_seconds=None)

    scrape = Scrape(registry)
    assert running == 1
    assert scrape.value("inference_model_running_requests", model_name="foo") == 0
    assert scrape.value("llm_d_epp_request_running", **FLOW) == 0
    assert "inference_model_request_duration_seconds_count" not in scrape.names()


@pytest.mark.parametrize("duration", [0.0, -1.0])
def test_a_duration_that_is_not_positive_is_logged_not_observed(
    metrics: Metrics,
    registry: CollectorRegistry,
    capsys: pytest.CaptureFixture[str],
    duration: float,
) -> None:
    serve_one(metrics, usage=TokenUsage(completion_tokens=5), duration=duration)

    names = Scrape(registry).names()
    assert "inference_model_request_duration_seconds_count" not in names
    assert "llm_d_epp_request_ntpot_seconds_count" not in names
    assert "inference_model_output_tokens_count" in names
    captured = capsys.readouterr()
    assert "not positive" in captured.out + captured.err


def test_the_bucket_of_32778_bytes_is_kept(metrics: Metrics, registry: CollectorRegistry) -> None:
    serve_one(metrics, usage=None, response_bytes=32770)

    scrape = Scrape(registry)

    assert scrape.bucket("inference_model_response_sizes", "16384.0", **MODEL) == 0
    assert scrape.bucket("inference_model_response_sizes", "32778.0", **MODEL) == 1


def test_first_token_and_streaming_time_per_token(
    metrics: Metrics, registry: CollectorRegistry
) -> None:
    usage = TokenUsage(completion_tokens=21)
    serve_one(metrics, usage=usage, duration=2.5, ttft_seconds=0.5, streaming=True)
    serve_one(metrics, usage=usage, duration=2.5, ttft_seconds=2.5, streaming=False)

    scrape = Scrape(registry)

    ttft = "llm_d_epp_request_ttft_seconds"
    assert scrape.value(f"{ttft}_sum", **FLOW, streaming="true") == 0.5
    assert scrape.value(f"{ttft}_sum", **FLOW, streaming="false") == 2.5
    assert scrape.value("llm_d_epp_request_streaming_tpot_seconds_sum", **FLOW) == 0.1
    assert scrape.value("llm_d_epp_request_streaming_tpot_seconds_count", **FLOW) == 1


def test_a_single_streamed_token_has_no_time_per_token(
    metrics: Metrics, registry: CollectorRegistry
) -> None:
    usage = TokenUsage(completion_tokens=1)

    serve_one(metrics, usage=usage, ttft_seconds=0.5, streaming=True)

    assert "llm_d_epp_request_streaming_tpot_seconds_count" not in Scrape(registry).names()


def test_the_access_log_adds_usage_without_counting_the_duration_again(
    metrics: Metrics, registry: CollectorRegistry
) -> None:
    serve_one(metrics, usage=None, response_bytes=None)

    metrics.request_usage(
        "foo", "foo-v1", 0, response_bytes=500, duration_seconds=2.5,
        usage=TokenUsage(prompt_tokens=10, completion_tokens=20),
    )  # fmt: skip

    scrape = Scrape(registry)
    assert scrape.value("inference_model_request_duration_seconds_count", **MODEL) == 1
    assert scrape.value("inference_model_response_sizes_sum", **MODEL) == 500
    assert scrape.value("inference_model_input_tokens_sum", **MODEL) == 10
    assert scrape.value("llm_d_epp_request_ntpot_seconds_sum", **FLOW) == 0.125


def test_an_empty_model_name_never_shows_as_running(
    metrics: Metrics, registry: CollectorRegistry
) -> None:
    metrics.request_routed("", "", 0, 10)
    metrics.request_finished("", "", 0, duration_seconds=1.0)

    scrape = Scrape(registry)

    assert scrape.value("inference_model_running_requests", model_name="") == 0


def test_the_1001st_model_name_is_other(registry: CollectorRegistry) -> None:
    metrics = Metrics(registry, process_metrics=False)

    for number in range(1001):
        metrics.request_routed(f"m{number}", f"m{number}", 0, 1)

    scrape = Scrape(registry)
    total = "inference_model_request_total"
    assert scrape.value(total, model_name="m999", target_model_name="m999") == 1
    assert scrape.value(total, model_name="m1000", target_model_name="m1000") is None
    assert scrape.value(total, model_name="other", target_model_name="other") == 1


def test_running_requests_balance_when_a_name_is_pinned_meanwhile(
    registry: CollectorRegistry,
) -> None:
    metrics = Metrics(registry, max_label_values=1, process_metrics=False)
    metrics.request_routed("first", "first", 0, 1)
    metrics.request_routed("late", "late", 0, 1)

    metrics.pin_models(["late"])
    metrics.request_routed("late", "late", 0, 1)
    metrics.request_finished("late", "late", 0)
    metrics.request_finished("late", "late", 0)
    metrics.request_finished("first", "first", 0)

    scrape = Scrape(registry)
    running = "inference_model_running_requests"
    values = [scrape.value(running, model_name=name) for name in ("first", "late", "other")]
    assert values == [0, 0, 0]


def test_names_that_cannot_be_written_do_not_spoil_the_page(
    metrics: Metrics, registry: CollectorRegistry
) -> None:
    metrics.request_failed("\ud800", "x" * 5000, 0, "BadRequest")
    metrics.request_failed('a"b\\c\nd', "", 0, "BadRequest")

    scrape = Scrape(registry)

    errors = "inference_model_request_error_total"
    code = {"error_code": "BadRequest"}
    assert scrape.value(errors, model_name="other", target_model_name="other", **code) == 1
    assert scrape.value(errors, model_name='a"b\\c\nd', target_model_name="", **code) == 1


def test_scheduler_runs_are_counted_by_first_pick(
    metrics: Metrics, registry: CollectorRegistry
) -> None:
    metrics.scheduler_run(
        0.0003, True, target_model="foo-v1", endpoint_name="p-rank-0", namespace="d", port=8000
    )
    metrics.scheduler_run(0.0001, False, target_model="foo-v1", endpoint_name="p-rank-0")

    scrape = Scrape(registry)

    attempts = "inference_extension_scheduler_attempts_total"
    where = {"pod_name": "p-rank-0", "namespace": "d", "port": "8000"}
    nowhere = dict.fromkeys(where, "")
    model = {"target_model_name": "foo-v1"}
    assert scrape.value(attempts, status="success", **where, **model) == 1
    assert scrape.value(attempts, status="failure", **nowhere, **model) == 1
    assert scrape.bucket("inference_extension_scheduler_e2e_duration_seconds", "0.0005") == 2


def test_series_of_a_removed_endpoint_are_forgotten(
    metrics: Metrics, registry: CollectorRegistry
) -> None:
    for name in ("a-rank-0", "b-rank-0"):
        metrics.scheduler_run(0.1, True, endpoint_name=name, namespace="d", port=1)

    metrics.endpoint_removed("a-rank-0", "d")

    scrape = Scrape(registry)
    shown = [dict(labels) for name, labels in scrape.samples if name.endswith("attempts_total")]
    assert {labels.get("endpoint_name", "b-rank-0") for labels in shown} == {"b-rank-0"}


def test_a_plugin_call_is_timed_and_its_failure_counted_not_swallowed(
    registry: CollectorRegistry,
) -> None:
    clock = FakeClock()
    metrics = Metrics(registry, clock=clock, process_metrics=False)
    plugin = TypedName("queue-scorer", "q")
    labels = {"extension_point": "Scorer", "plugin_type": "queue-scorer", "plugin_name": "q"}

    with metrics.plugin_timer("Scorer", plugin):
        clock.now += 0.25
    with pytest.raises(ZeroDivisionError), metrics.plugin_timer("Scorer", plugin):
        raise ZeroDivisionError

    scrape = Scrape(registry)
    assert scrape.value("llm_d_epp_plugin_duration_seconds_sum", **labels) == 0.25
    assert scrape.value("inference_extension_plugin_duration_seconds_count", **labels) == 2
    assert scrape.value("epp_plugin_errors_total", **labels) == 1


def test_nested_plugin_timers_do_not_disturb_each_other(registry: CollectorRegistry) -> None:
    clock = FakeClock()
    metrics = Metrics(registry, clock=clock, process_metrics=False)
    tree = TypedName("tree", "tree")

    with metrics.plugin_timer("Filter", tree):
        clock.now += 1
        with metrics.plugin_timer("Filter", tree):
            clock.now += 2

    labels = {"extension_point": "Filter", "plugin_type": "tree", "plugin_name": "tree"}
    assert Scrape(registry).value("llm_d_epp_plugin_duration_seconds_sum", **labels) == 5


@pytest.mark.parametrize(
    "name, labels",
    [
        pytest.param("epp_requests_served_without_epp_total", {}, id="without-epp"),
        pytest.param("epp_picks_not_honoured_total", {}, id="picks"),
        pytest.param("epp_manifest_problems", {}, id="manifests"),
        pytest.param("epp_scrape_failures_total", {"reason": "timeout"}, id="scrape"),
        pytest.param("epp_scrapes_incomplete_total", {"reason": "missing"}, id="extract"),
        pytest.param("epp_reconciles_total", {"kind": "Pod", "outcome": "success"}, id="reconcile"),
        pytest.param(
            "llm_d_epp_datalayer_poll_errors_total",
            {"source_type": "metrics-data-source"},
            id="poll-errors",
        ),
    ],
)
def test_known_series_start_at_zero(
    metrics: Metrics, registry: CollectorRegistry, name: str, labels: Any
) -> None:
    metrics.declare(
        scrape_failure_reasons=["timeout"],
        scrape_partial_reasons=["missing"],
        reconciles=[("Pod", "success")],
    )

    assert Scrape(registry).value(name, **labels) == 0


def test_counters_of_the_gateway_and_of_sources(
    metrics: Metrics, registry: CollectorRegistry
) -> None:
    metrics.served_without_epp(3)
    metrics.pick_not_honoured()
    metrics.scrape_failed("timeout")
    metrics.scrape_partial("missing")
    metrics.reconcile_done("Pod", "error")
    metrics.manifest_problems(2)
    metrics.observe_streams(lambda: 7)

    scrape = Scrape(registry)

    assert scrape.value("epp_requests_served_without_epp_total") == 3
    assert scrape.value("epp_picks_not_honoured_total") == 1
    assert scrape.value("epp_scrape_failures_total", reason="timeout") == 1
    assert scrape.value("epp_scrapes_incomplete_total", reason="missing") == 1
    assert scrape.value("epp_reconciles_total", kind="Pod", outcome="error") == 1
    assert scrape.value("epp_manifest_problems") == 2
    assert scrape.value("llm_d_epp_extproc_streams_inflight") == 7
    source = {"source_type": "metrics-data-source"}
    twin = "llm_d_inference_scheduler_datalayer_poll_errors_total"
    assert scrape.value(twin, **source) == 1


def test_processing_times_are_observed_and_nothing_done_is_not(
    metrics: Metrics, registry: CollectorRegistry
) -> None:
    metrics.request_processing(0.002)
    metrics.response_processing(0.0)

    scrape = Scrape(registry)

    assert scrape.bucket("llm_d_epp_request_processing_duration_seconds", "0.002") == 1
    assert scrape.value("llm_d_epp_response_processing_duration_seconds_count") == 0


@pytest.mark.parametrize(
    "name_sets, want",
    [
        pytest.param([NameSet.LLM_D], {"llm_d_epp", "epp"}, id="newest"),
        pytest.param(
            [NameSet.INFERENCE],
            {"inference_objective", "inference_extension", "llm_d_inference_scheduler", "epp"},
            id="v1",
        ),
        pytest.param(
            [NameSet.INFERENCE_MODEL], {"inference_model", "inference_extension", "epp"}, id="v0"
        ),
        pytest.param([], {"epp"}, id="none"),
    ],
)
def test_only_chosen_generations_are_exposed(
    registry: CollectorRegistry, name_sets: list[NameSet], want: Any
) -> None:
    metrics = Metrics(registry, name_sets=name_sets, process_metrics=False)
    serve_one(metrics, usage=TokenUsage(prompt_tokens=1, completion_tokens=1))

    families = {family.name for family in registry.collect()}

    prefixes = {
        "inference_model", "inference_objective", "inference_extension", "inference_pool",
        "llm_d_inference_scheduler", "llm_d_epp", "epp",
    }  # fmt: skip
    assert {p for p in prefixes if any(name.startswith(f"{p}_") for name in families)} == want


def test_help_texts_are_marked_alpha_and_nothing_is_created(
    metrics: Metrics, registry: CollectorRegistry
) -> None:
    serve_one(metrics, usage=TokenUsage(prompt_tokens=1))

    scrape = Scrape(registry)

    assert all(f.documentation.startswith("[ALPHA] ") for f in scrape.families.values())
    assert not [name for name in scrape.names() if name.endswith("_created")]


def test_process_metrics_are_on_our_own_registry(registry: CollectorRegistry) -> None:
    Metrics(registry)

    names = Scrape(registry).names()

    assert "process_cpu_seconds_total" in names
    assert "python_gc_collections_total" in names


def test_the_info_metric_names_the_build(registry: CollectorRegistry) -> None:
    Metrics(registry, commit="abc123", process_metrics=False)

    families = {family.name: family for family in registry.collect()}

    [sample] = families["inference_extension_info"].samples
    assert (sample.value, sample.labels["commit"]) == (1, "abc123")
