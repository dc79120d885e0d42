"""Merging a page: the vectors of the reference with our column, recorded pages, every engine."""

from collections.abc import Callable
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epp.backend.endpoint import Endpoint
from epp.backend.endpoint_rows import EndpointRows
from epp.backend.lora_info import MAX_COUNT, LoraRule
from epp.backend.metrics_spec import parse_metric_spec
from epp.backend.metrics_state import UNKNOWN_STATE, MetricsState
from epp.backend.providers.engines import BUILTIN_ENGINES
from epp.backend.providers.mapping import CustomMetric, EngineMapping, metric
from epp.backend.providers.sglang import SGLANG
from epp.backend.providers.triton import TRITON
from epp.backend.providers.triton_tensorrt_llm import TRITON_TENSORRT_LLM
from epp.backend.providers.trtllm import TRTLLM_SERVE
from epp.backend.providers.vllm import VLLM
from epp.backend.scrape_plan import ScrapePlan, ScrapeRules

V03 = ScrapeRules(lora=LoraRule.NON_EMPTY)
OURS = ScrapeRules()

WAITING = '# TYPE vllm:num_requests_waiting gauge\nvllm:num_requests_waiting{model_name="m"} 7\n'
RUNNING = '# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running{model_name="m"} 3\n'
KV = '# TYPE vllm:gpu_cache_usage_perc gauge\nvllm:gpu_cache_usage_perc{model_name="m"} 0.25\n'
LORA_FIRST = (
    'vllm:lora_requests_info{max_lora="4",running_lora_adapters="a1,a2",'
    'waiting_lora_adapters="a3"} 1700000000.5\n'
)
LORA_SECOND = (
    'vllm:lora_requests_info{max_lora="4",running_lora_adapters="a1",'
    'waiting_lora_adapters=""} 1700000002.5\n'
)
LORA_IDLE = (
    'vllm:lora_requests_info{max_lora="4",running_lora_adapters="",'
    'waiting_lora_adapters=""} 1700000009.5\n'
)
LORA = "# TYPE vllm:lora_requests_info gauge\n" + LORA_FIRST + LORA_SECOND + LORA_IDLE
BASE = WAITING + RUNNING + KV
PAGE_A = BASE + LORA
LOADED = MetricsState(
    waiting_requests=1,
    running_requests=1,
    kv_usage=0.5,
    active_adapters=frozenset({"z"}),
    max_adapters=4,
)


def lora_line(*, running: str = "", max_lora: str = "4", value: str = "1") -> str:
    return (
        f'vllm:lora_requests_info{{max_lora="{max_lora}",running_lora_adapters="{running}",'
        f'waiting_lora_adapters=""}} {value}\n'
    )


def fields(state: MetricsState, wanted: dict[str, Any]) -> dict[str, Any]:
    return {name: getattr(state, name) for name in wanted}


@pytest.mark.parametrize(
    ("page", "previous", "v03", "ours"),
    [
        pytest.param(
            PAGE_A,
            UNKNOWN_STATE,
            {"waiting_requests": 7, "kv_usage": 0.25, "active_adapters": {"a1"}, "max_adapters": 4},
            {
                "waiting_requests": 7,
                "running_requests": 3,
                "kv_usage": 0.25,
                "active_adapters": set(),
                "waiting_adapters": set(),
                "max_adapters": 4,
            },
            id="S1-page-a",
        ),
        pytest.param(
            BASE + LORA_FIRST + LORA_SECOND,
            UNKNOWN_STATE,
            {"active_adapters": {"a1"}},
            {"active_adapters": {"a1"}},
            id="S2-without-the-idle-series",
        ),
        pytest.param(
            BASE + LORA_FIRST,
            UNKNOWN_STATE,
            {"active_adapters": {"a1", "a2"}, "waiting_adapters": {"a3"}},
            {"active_adapters": {"a1", "a2"}, "waiting_adapters": {"a3"}},
            id="S3-two-sets-whose-union-is-v0.3",
        ),
        pytest.param(
            BASE,
            LOADED,
            {"active_adapters": {"z"}, "waiting_requests": 7},
            {"active_adapters": {"z"}, "waiting_requests": 7},
            id="S4-no-lora-family-keeps-the-adapters",
        ),
        pytest.param(
            RUNNING + KV + LORA,
            LOADED,
            {"waiting_requests": 1, "running_requests": 3, "kv_usage": 0.25},
            {"waiting_requests": 1, "running_requests": 3, "kv_usage": 0.25},
            id="S5-no-waiting-family-keeps-the-queue",
        ),
        pytest.param(
            "vllm:num_requests_waiting 7.9\n",
            LOADED,
            {"waiting_requests": 7},
            {"waiting_requests": 7},
            id="S8-truncated",
        ),
        pytest.param(
            'vllm:num_requests_waiting{e="0"} 5\nvllm:num_requests_waiting{e="1"} 9\n',
            LOADED,
            {"waiting_requests": 5},
            {"waiting_requests": 5},
            id="S9-first-series",
        ),
        pytest.param(
            'vllm:num_requests_waiting{e="0"} 5 1000\nvllm:num_requests_waiting{e="1"} 9 2000\n',
            LOADED,
            {"waiting_requests": 9},
            {"waiting_requests": 9},
            id="S10-greatest-timestamp",
        ),
        pytest.param(
            WAITING.replace("gauge", "counter"),
            LOADED,
            {"waiting_requests": 7},
            {"waiting_requests": 7},
            id="S11-a-counter-is-a-number",
        ),
        pytest.param(
            WAITING.partition("\n")[2],
            LOADED,
            {"waiting_requests": 7},
            {"waiting_requests": 7},
            id="S12-no-type-line",
        ),
        pytest.param(
            lora_line(running="a1, a2"),
            LOADED,
            {"active_adapters": {"a1", "a2"}},
            {"active_adapters": {"a1", "a2"}},
            id="S13-trimmed",
        ),
        pytest.param(
            lora_line(running="a", max_lora="x"),
            LOADED,
            {"max_adapters": 4},
            {"max_adapters": 4},
            id="S14-bad-slots-keep-the-old-ones",
        ),
        pytest.param(
            lora_line(running="a", max_lora=""),
            LOADED,
            {"max_adapters": 4},
            {"max_adapters": 4},
            id="S15-empty-slots-keep-the-old-ones",
        ),
    ],
)
def test_vectors_of_the_reference(
    page: str, previous: MetricsState, v03: dict[str, Any], ours: dict[str, Any]
) -> None:
    strict = ScrapePlan(VLLM, V03).apply(page.encode(), previous)
    default = ScrapePlan(VLLM, OURS).apply(page.encode(), previous)

    assert fields(strict.state, v03) == v03
    assert fields(default.state, ours) == ours
    assert default.updated


def test_s6_an_empty_page_updates_nothing() -> None:
    outcome = ScrapePlan(VLLM).apply(b"", LOADED)

    assert outcome.state is LOADED
    assert not outcome.updated
    assert outcome.missing == ("queued", "running", "kv_usage", "lora", "cache_info")


def test_s14_bad_slots_are_counted() -> None:
    outcome = ScrapePlan(VLLM).apply(lora_line(running="a", max_lora="x").encode(), LOADED)

    assert outcome.malformed == 1
    assert not outcome.complete


def test_s16_a_spec_with_labels_picks_its_series() -> None:
    page = (
        b'nv_trt_llm_request_metrics{request_type="max",model="x"} 99\n'
        b'nv_trt_llm_request_metrics{request_type="waiting",model="x"} 2\n'
    )

    outcome = ScrapePlan(TRITON_TENSORRT_LLM).apply(page, UNKNOWN_STATE)

    assert outcome.state.waiting_requests == 2
    assert "running" in outcome.missing


@pytest.mark.parametrize(
    ("name", "want"),
    [
        pytest.param("idle", {"waiting_requests": 0, "running_requests": 0}, id="idle"),
        pytest.param(
            "load-a",
            {
                "waiting_requests": 6,
                "running_requests": 4,
                "kv_usage": pytest.approx(0.506, abs=0.001),
                "active_adapters": {"sql"},
                "max_adapters": 1,
                "block_size_tokens": 32,
                "num_blocks": 80,
            },
            id="load-a",
        ),
        pytest.param(
            "load-b",
            {"waiting_requests": 6, "kv_usage": pytest.approx(0.91, abs=0.01)},
            id="load-b",
        ),
        pytest.param(
            "after-load",
            {"waiting_requests": 0, "active_adapters": set(), "waiting_adapters": set()},
            id="after-load",
        ),
    ],
)
def test_a_page_of_a_real_vllm(
    recorded_page: Callable[[str], bytes], name: str, want: dict[str, Any]
) -> None:
    outcome = ScrapePlan(VLLM).apply(recorded_page(name), UNKNOWN_STATE)

    assert fields(outcome.state, want) == want
    assert outcome.malformed == 0


def test_the_adapters_of_an_idle_vllm_persist_by_the_v0_rule(
    recorded_page: Callable[[str], bytes],
) -> None:
    outcome = ScrapePlan(VLLM, V03).apply(recorded_page("after-load"), UNKNOWN_STATE)

    assert outcome.state.active_adapters == {"code"}


@pytest.mark.parametrize(
    ("mapping", "page", "want"),
    [
        pytest.param(
            SGLANG,
            'sglang:num_queue_reqs{model_name="m"} 5\nsglang:num_running_reqs 2\n'
            'sglang:token_usage 0.28\nsglang:cache_config_info{page_size="64",num_pages="900"} 1\n',
            MetricsState(
                waiting_requests=5,
                running_requests=2,
                kv_usage=0.28,
                block_size_tokens=64,
                num_blocks=900,
            ),
            id="sglang",
        ),
        pytest.param(
            TRTLLM_SERVE,
            "trtllm_num_requests_waiting 5\ntrtllm_num_requests_running 2\n"
            "trtllm_kv_cache_utilization 0.5\ntrtllm_kv_cache_tokens_per_block 32\n"
            "trtllm_kv_cache_max_blocks 101\n",
            MetricsState(
                waiting_requests=5,
                running_requests=2,
                kv_usage=0.5,
                block_size_tokens=32,
                num_blocks=101,
            ),
            id="trtllm-serve",
        ),
        pytest.param(
            TRITON_TENSORRT_LLM,
            'nv_trt_llm_request_metrics{request_type="waiting"} 5\n'
            'nv_trt_llm_request_metrics{request_type="scheduled"} 2\n'
            'nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="fraction"} 0.75\n'
            'nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="tokens_per"} 64\n'
            'nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="max"} 40\n',
            MetricsState(
                waiting_requests=5,
                running_requests=2,
                kv_usage=0.75,
                block_size_tokens=64,
                num_blocks=40,
            ),
            id="triton-tensorrt-llm",
        ),
        pytest.param(
            TRITON,
            'nv_inference_pending_request_count{model="m",version="1"} 5\n'
            "# TYPE nv_inference_exec_count counter\n"
            'nv_inference_exec_count{model="m",version="1"} 12\n',
            MetricsState(waiting_requests=5, running_requests=12),
            id="triton",
        ),
    ],
)
def test_every_engine_is_read(mapping: EngineMapping, page: str, want: MetricsState) -> None:
    outcome = ScrapePlan(mapping).apply(page.encode(), UNKNOWN_STATE)

    assert outcome.state == want
    assert outcome.complete


@pytest.mark.parametrize(
    ("page", "want"),
    [
        pytest.param("vllm:gpu_cache_usage_perc 0.2\n", 0.2, id="old-name"),
        pytest.param("vllm:kv_cache_usage_perc 0.3\n", 0.3, id="new-name"),
        pytest.param(
            "vllm:gpu_cache_usage_perc 0.2\nvllm:kv_cache_usage_perc 0.3\n", 0.3, id="new-name-wins"
        ),
        pytest.param("vllm:kv_cache_usage_perc 1.01\n", 1.0, id="at-most-one"),
        pytest.param("vllm:kv_cache_usage_perc -1\n", 0.0, id="at-least-zero"),
        pytest.param("vllm:kv_cache_usage_perc NaN\n", 0.5, id="not-a-number-is-missing"),
        pytest.param("vllm:kv_cache_usage_perc +Inf\n", 0.5, id="infinity-is-missing"),
    ],
)
def test_kv_usage(page: str, want: float) -> None:
    assert ScrapePlan(VLLM).apply(page.encode(), LOADED).state.kv_usage == want


@pytest.mark.parametrize(
    ("value", "want"),
    [
        pytest.param("-5", 0, id="negative-is-zero"),
        pytest.param("-0.5", 0, id="toward-zero"),
        pytest.param("NaN", 1, id="not-a-number-keeps-the-old-one"),
        pytest.param("-Inf", 1, id="infinity-keeps-the-old-one"),
        pytest.param("1e300", MAX_COUNT, id="clamped"),
    ],
)
def test_counts(value: str, want: int) -> None:
    outcome = ScrapePlan(VLLM).apply(f"vllm:num_requests_waiting {value}\n".encode(), LOADED)

    assert outcome.state.waiting_requests == want
    assert ("queued" in outcome.missing) == (want == 1)


@pytest.mark.parametrize(
    ("lines", "rule", "want"),
    [
        pytest.param([("a", "2"), ("b", "9"), ("c", "5")], OURS, {"b"}, id="newest-wins"),
        pytest.param([("a", "5"), ("b", "5")], OURS, {"a"}, id="first-of-equals"),
        pytest.param([("a", "5"), ("", "9")], OURS, set(), id="idle-clears"),
        pytest.param([("a", "5"), ("", "9")], V03, {"a"}, id="v0-idle-persists"),
        pytest.param([("a", "0")], OURS, {"a"}, id="zero-counts"),
        pytest.param([("a", "0")], V03, {"z"}, id="v0-zero-does-not-count"),
        pytest.param([("a", "-1")], OURS, {"z"}, id="minus-one-does-not-count"),
        pytest.param([("a", "NaN"), ("b", "+Inf"), ("c", "3")], OURS, {"c"}, id="numbers-only"),
        pytest.param([("a,,b, ", "3")], OURS, {"a", "b"}, id="empty-names-dropped"),
    ],
)
def test_the_lora_series_that_counts(
    lines: list[tuple[str, str]], rule: ScrapeRules, want: set[str]
) -> None:
    page = "".join(lora_line(running=running, value=value) for running, value in lines)

    assert ScrapePlan(VLLM, rule).apply(page.encode(), LOADED).state.active_adapters == want


def test_a_lora_series_without_list_labels_empties_the_sets() -> None:
    page = b'vllm:lora_requests_info{max_lora="2"} 5\n'

    state = ScrapePlan(VLLM).apply(page, LOADED).state

    assert not state.active_adapters | state.waiting_adapters
    assert state.max_adapters == 2


def test_labels_of_a_lora_spec_are_honoured() -> None:
    spec = parse_metric_spec("vllm:lora_requests_info{max_lora=2}")
    assert spec is not None
    page = lora_line(running="a", max_lora="4", value="9")
    page += lora_line(running="b", max_lora="2", value="1")

    state = ScrapePlan(EngineMapping(name="x", lora=(spec,))).apply(page.encode(), LOADED).state

    assert state.active_adapters == {"b"}


@pytest.mark.parametrize(
    ("labels", "block_size", "num_blocks", "malformed"),
    [
        pytest.param('block_size="16",num_gpu_blocks="8"', 16, 8, 0, id="both"),
        pytest.param('num_gpu_blocks="8"', 0, 8, 0, id="block-size-is-forgotten"),
        pytest.param('block_size="16"', 16, 99, 0, id="block-count-is-kept"),
        pytest.param('block_size="",num_gpu_blocks=""', 0, 99, 0, id="empty-is-no-error"),
        pytest.param('block_size="16",num_gpu_blocks="None"', 16, 99, 1, id="bad-count-is-kept"),
        pytest.param('block_size="x",num_gpu_blocks="8"', 0, 8, 1, id="bad-block-size"),
        pytest.param('block_size="-1",num_gpu_blocks="9e9"', 0, 99, 1, id="negative-is-zero"),
        pytest.param(
            f'block_size="{"9" * 5000}",num_gpu_blocks="8"', MAX_COUNT, 8, 0, id="huge-is-clamped"
        ),
    ],
)
def test_cache_info(labels: str, block_size: int, num_blocks: int, malformed: int) -> None:
    previous = MetricsState(block_size_tokens=32, num_blocks=99)

    outcome = ScrapePlan(VLLM).apply(f"vllm:cache_config_info{{{labels}}} 1\n".encode(), previous)

    assert outcome.state.block_size_tokens == block_size
    assert outcome.state.num_blocks == num_blocks
    assert outcome.malformed == malformed


def test_series_are_added_up_when_asked_for() -> None:
    page = (
        b'vllm:num_requests_waiting{engine="0"} 5\nvllm:num_requests_waiting{engine="1"} 9\n'
        b'vllm:num_requests_running{engine="0"} 1\nvllm:num_requests_running{engine="1"} 2\n'
        b'vllm:kv_cache_usage_perc{engine="0"} 0.1\nvllm:kv_cache_usage_perc{engine="1"} 0.8\n'
    )

    state = ScrapePlan(VLLM, ScrapeRules(aggregate=True)).apply(page, UNKNOWN_STATE).state

    assert (state.waiting_requests, state.running_requests, state.kv_usage) == (14, 3, 0.8)


def test_custom_metrics_are_kept_by_key_and_missing_ones_keep_their_value() -> None:
    mapping = EngineMapping(
        name="x",
        custom=(
            CustomMetric(attribute_key="tokens", candidates=metric("tokens_total")),
            CustomMetric(attribute_key="gone", candidates=metric("gone")),
        ),
    )
    previous = MetricsState(custom=MappingProxyType({"gone": 1.0, "tokens": 2.0}))

    outcome = ScrapePlan(mapping).apply(b"tokens_total 3.5\n", previous)

    assert outcome.state.custom == {"gone": 1.0, "tokens": 3.5}
    assert outcome.missing == ("custom.gone",)


def test_a_disabled_signal_is_never_updated_and_never_missing() -> None:
    plan = ScrapePlan(EngineMapping(name="x", queued=metric("vllm:num_requests_waiting")))

    outcome = plan.apply(PAGE_A.encode(), LOADED)

    assert outcome.state.waiting_requests == 7
    assert outcome.state.kv_usage == LOADED.kv_usage
    assert outcome.complete


def test_a_mapping_without_signals_is_content_with_any_page() -> None:
    outcome = ScrapePlan(EngineMapping(name="x")).apply(b"anything", UNKNOWN_STATE)

    assert outcome.updated
    assert outcome.state is UNKNOWN_STATE


def test_an_equal_page_gives_the_same_object() -> None:
    plan = ScrapePlan(VLLM)
    first = plan.apply(PAGE_A.encode(), UNKNOWN_STATE).state

    assert plan.apply(PAGE_A.encode(), first).state is first


def test_the_lack_of_lora_alone_is_no_fault() -> None:
    page = BASE + 'vllm:cache_config_info{block_size="1",num_gpu_blocks="1"} 1\n'

    outcome = ScrapePlan(VLLM).apply(page.encode(), UNKNOWN_STATE)

    assert outcome.missing == ("lora",)
    assert outcome.complete


def test_the_question_names_every_sample_once() -> None:
    assert ScrapePlan(TRITON_TENSORRT_LLM).query == (
        "name%5B%5D=nv_trt_llm_request_metrics&name%5B%5D=nv_trt_llm_kv_cache_block_metrics"
    )


_HOSTILE = st.text(
    alphabet='vllm:num_requests_waiting{}="\\,\n 0123456789.eE+-NaIf#\r\t', max_size=80
)


@st.composite
def _mutated_pages(draw: st.DrawFn) -> bytes:
    """A good page with a few bytes replaced, cut out or doubled."""
    page = bytearray(PAGE_A.encode() + b'vllm:cache_config_info{block_size="16",num="1"} 1\n')
    for _ in range(draw(st.integers(0, 6))):
        start = draw(st.integers(0, len(page)))
        end = min(len(page), start + draw(st.integers(0, 12)))
        page[start:end] = draw(st.binary(max_size=6) | st.just(bytes(page[start:end]) * 2))
    return bytes(page)


@pytest.mark.fuzz
@settings(max_examples=1500)
@given(page=st.binary(max_size=200) | _HOSTILE.map(str.encode) | _mutated_pages())
def test_no_page_breaks_the_state(page: bytes) -> None:
    rows = EndpointRows()
    endpoint = Endpoint(namespace="n", pod_name="p", address="10.0.0.1", port=1)
    rows.put(endpoint)

    for mapping in BUILTIN_ENGINES:
        outcome = ScrapePlan(mapping, ScrapeRules(aggregate=True)).apply(page, LOADED)
        rows.publish(endpoint.key, outcome.state, now=1.0, due_at=2.0)
        table = rows.snapshot(1.0)

        assert 0 <= outcome.state.waiting_requests <= MAX_COUNT
        assert 0 <= outcome.state.running_requests <= MAX_COUNT
        assert 0.0 <= outcome.state.kv_usage <= 1.0
        assert np.isfinite(table.waiting).all()
