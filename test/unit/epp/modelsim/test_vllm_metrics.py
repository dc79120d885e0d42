"""The metrics page beside one that was recorded from vLLM 0.32."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from epp.modelsim.faults import parse_fault
from epp.modelsim.model_sim import ModelSim
from epp.modelsim.sequence import Sequence
from epp.modelsim.step_model import EngineSettings, StepModel
from epp.modelsim.vllm_metrics import VllmMetrics

RECORDING = Path(__file__).parents[3] / "testdata/vllm-0.32/metrics-after-load.txt"

StartSim = Callable[..., Awaitable[ModelSim]]
Connect = Callable[[ModelSim], Awaitable[Any]]


@dataclass
class Page:
    """A page taken apart by hand, since the official parser drops what is compared here."""

    types: dict[str, str] = field(default_factory=dict)
    labels: dict[str, set[tuple[str, ...]]] = field(default_factory=dict)
    values: dict[str, float] = field(default_factory=dict)

    @classmethod
    def read(cls, text: str) -> "Page":
        page, family = cls(), ""
        for line in text.splitlines():
            if line.startswith("# TYPE "):
                family, page.types[line.split()[2]] = line.split()[2], line.split()[3]
            elif not line.startswith("#"):
                name = line.partition("{")[0].partition(" ")[0]
                inside = line.partition("{")[2].rpartition("}")[0]
                names = tuple(pair.partition("=")[0] for pair in inside.split('",') if pair)
                assert name.startswith(family)
                page.labels.setdefault(name, set()).add(names)
                page.values[line.rpartition(" ")[0]] = float(line.rpartition(" ")[2])
        return page


@pytest.fixture(scope="module")
def recorded() -> Page:
    return Page.read(RECORDING.read_text())


def metrics_of(model: StepModel, *, has_loras: bool = True, page_bytes: int = 0) -> VllmMetrics:
    return VllmMetrics(
        model,
        model_name="tiny",
        has_loras=has_loras,
        page_bytes=page_bytes,
        wall_clock=lambda: 1.7955763e9,
    )


def page_of(metrics: VllmMetrics) -> Page:
    return Page.read(metrics.render().decode())


def run(model: StepModel, metrics: VllmMetrics, *, steps: int = 1000, at: float = 0.0) -> None:
    for _ in range(steps):
        duration = model.begin_step(at)
        if duration is None:
            return
        at += duration
        result = model.end_step(at)
        metrics.step_finished(result)
        for sequence in result.advanced:
            if sequence.is_over:
                metrics.sequence_finished(sequence)


@pytest.fixture
async def busy_page(start: StartSim, connect: Connect) -> Page:
    """The page of a pod that has served the base model and an adapter."""
    engine = EngineSettings(
        speed=1000.0, max_loras=1, num_gpu_blocks=80, block_size=32, max_num_seqs=4
    )
    sim = await start(model="tiny", loras=("sql",), engine=engine)
    client = await connect(sim)
    for model in ("tiny", "sql"):
        await client.ask("POST", "/v1/completions", {"model": model, "prompt": "x" * 500})
    return Page.read((await client.ask("GET", "/metrics")).body.decode())


async def test_families_have_the_recorded_types_in_the_recorded_order(
    busy_page: Page, recorded: Page
) -> None:
    assert list(busy_page.types.items()) == list(recorded.types.items())


async def test_samples_have_the_recorded_names_and_labels(busy_page: Page, recorded: Page) -> None:
    assert busy_page.labels == recorded.labels


async def test_buckets_and_split_labels_are_the_recorded_ones(
    busy_page: Page, recorded: Page
) -> None:
    def of_engine(page: Page) -> set[str]:
        left_out = ("cache_config_info", "lora_requests_info")
        return {
            series
            for series in page.values
            if series.startswith("vllm:") and not any(name in series for name in left_out)
        }

    assert of_engine(busy_page) == of_engine(recorded)


async def test_the_page_is_read_by_the_official_parser(start: StartSim, connect: Connect) -> None:
    client = await connect(await start(metrics_page_kb=94))

    reply = await client.ask("GET", "/metrics")

    families = {
        family.name: family for family in text_string_to_metric_families(reply.body.decode())
    }
    assert families["vllm:num_requests_waiting"].samples[0].labels == {
        "engine": "0",
        "model_name": "base",
    }
    assert families["vllm:prompt_tokens"].type == "counter"


async def test_the_answer_has_the_recorded_headers(start: StartSim, connect: Connect) -> None:
    client = await connect(await start())

    headers = (await client.ask("GET", "/metrics")).headers

    assert headers["content-type"] == "text/plain; version=1.0.0; charset=utf-8"
    assert headers["vary"] == "Origin"
    assert int(headers["content-length"]) > 40_000


@pytest.mark.parametrize("size", [0, 60, 94])
async def test_the_page_is_at_least_as_long_as_asked(
    start: StartSim, connect: Connect, size: int
) -> None:
    client = await connect(await start(metrics_page_kb=size))

    length = len((await client.ask("GET", "/metrics")).body)

    assert size * 1000 <= length < max(size * 1000, 50_000) + 3_000


async def test_the_name_parameter_is_ignored_as_vllm_does(
    start: StartSim, connect: Connect
) -> None:
    client = await connect(await start())

    reply = await client.ask("GET", "/metrics?name[]=vllm:num_requests_waiting")

    assert b"vllm:num_requests_running{" in reply.body


async def test_a_server_that_honours_names_sends_these_samples_only(
    start: StartSim, connect: Connect
) -> None:
    client = await connect(await start(honour_name_param=True))
    names = ["vllm:num_requests_waiting", "vllm:kv_cache_usage_perc", "process_start_time_seconds"]

    query = "&".join(f"name%5B%5D={name}" for name in names)
    page = Page.read((await client.ask("GET", f"/metrics?{query}")).body.decode())
    full = await client.ask("GET", "/metrics")

    assert set(page.types) == set(page.labels) == set(names)
    assert len(full.body) > 40_000


def test_gauges_are_those_of_the_engine() -> None:
    model = StepModel(EngineSettings(max_num_seqs=1, num_gpu_blocks=10, max_loras=1))
    metrics = metrics_of(model)
    model.submit(Sequence(prompt_tokens=30, output_tokens=5, adapter="sql"), 0.0)
    model.submit(Sequence(prompt_tokens=30, output_tokens=5), 0.0)
    model.submit(Sequence(prompt_tokens=30, output_tokens=5, adapter="chat"), 0.0)
    run(model, metrics, steps=1)

    values = page_of(metrics).values

    base = 'engine="0",model_name="tiny"'
    by_reason = "vllm:num_requests_waiting_by_reason"
    assert values[f"vllm:num_requests_running{{{base}}}"] == 1
    assert values[f"vllm:num_requests_waiting{{{base}}}"] == 2
    assert values[f"vllm:kv_cache_usage_perc{{{base}}}"] == 0.2
    assert values[f'{by_reason}{{{base},reason="capacity"}}'] == 1
    assert values[f'{by_reason}{{{base},reason="deferred"}}'] == 1


def test_counters_and_histograms_follow_a_request() -> None:
    model = StepModel(
        EngineSettings(prefill_tokens_per_second=100.0, decode_step_seconds=0.05, block_size=16)
    )
    metrics = metrics_of(model)
    model.submit(Sequence(prompt_tokens=150, output_tokens=3), 0.0)
    run(model, metrics)

    values = page_of(metrics).values

    base = 'engine="0",model_name="tiny"'
    want = {
        f"vllm:prompt_tokens_total{{{base}}}": 150,
        f"vllm:generation_tokens_total{{{base}}}": 3,
        'vllm:request_success_total{engine="0",finished_reason="length",model_name="tiny"}': 1,
        f"vllm:time_to_first_token_seconds_sum{{{base}}}": 1.5,
        f"vllm:inter_token_latency_seconds_count{{{base}}}": 2,
        f"vllm:inter_token_latency_seconds_sum{{{base}}}": pytest.approx(0.1),
        f"vllm:request_decode_time_seconds_sum{{{base}}}": pytest.approx(0.1),
        f"vllm:e2e_request_latency_seconds_sum{{{base}}}": pytest.approx(1.6),
        f"vllm:iteration_tokens_total_sum{{{base}}}": 152,
        f"vllm:prefix_cache_queries_total{{{base}}}": 150,
        f"vllm:prefix_cache_hits_total{{{base}}}": 0,
    }
    assert {name: values[name] for name in want} == want


def test_the_newest_combination_of_adapters_has_the_greatest_value() -> None:
    times = iter(range(1_000_000))
    model = StepModel(EngineSettings(max_loras=2, max_num_seqs=2))
    metrics = VllmMetrics(
        model, model_name="m", has_loras=True, page_bytes=0, wall_clock=lambda: next(times)
    )
    for adapter in ("sql", "chat", "code"):
        model.submit(Sequence(prompt_tokens=1, output_tokens=2, adapter=adapter), 0.0)
    run(model, metrics)

    values = page_of(metrics).values
    found = {name: at for name, at in values.items() if name.startswith("vllm:lora_requests_info")}

    newest = max(found, key=lambda name: found[name])
    assert 'running_lora_adapters="",waiting_lora_adapters=""' in newest
    assert (
        'vllm:lora_requests_info{max_lora="2",running_lora_adapters="sql,chat",'
        'waiting_lora_adapters="code"}'
    ) in found


def test_a_server_without_adapters_has_no_such_family() -> None:
    page = page_of(metrics_of(StepModel(EngineSettings()), has_loras=False))

    assert "vllm:lora_requests_info" not in page.types


def test_combinations_of_adapters_are_bounded() -> None:
    model = StepModel(EngineSettings(max_loras=1, max_num_seqs=1, speed=1e6))
    metrics = metrics_of(model)
    for number in range(1100):
        model.submit(Sequence(prompt_tokens=1, output_tokens=2, adapter=f"a{number}"), 0.0)
        run(model, metrics)

    lines = [name for name in page_of(metrics).values if "lora_requests_info" in name]

    assert len(lines) == 1000
    assert any('running_lora_adapters="a1099"' in line for line in lines)


def test_the_cache_is_described_by_labels() -> None:
    text = metrics_of(StepModel(EngineSettings(block_size=32, num_gpu_blocks=80))).render().decode()

    (line,) = [line for line in text.splitlines() if line.startswith("vllm:cache_config_info{")]
    assert ',block_size="32",' in line
    assert ',num_gpu_blocks="80",' in line
    assert line.endswith("} 1.0")


async def test_an_aborted_request_is_counted_as_such(start: StartSim, connect: Connect) -> None:
    sim = await start()
    client = await connect(sim)
    sim.faults.set(parse_fault("cut"))
    client.send("POST", "/v1/completions", {"prompt": "x", "max_tokens": 100_000})
    await sim.until(lambda: sim.state.outcomes["faulted"] == 1)

    values = Page.read(sim.metrics.render().decode()).values

    series = 'vllm:request_success_total{engine="0",finished_reason="abort",model_name="base"}'
    assert values[series] == 1
