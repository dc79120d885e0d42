"""Which mapping a pod gets, and what flags and user engines change in it."""

import pytest

from epp.backend.metrics_spec import MetricSpec
from epp.backend.providers.engines import BUILTIN_ENGINES, EngineMappings, MetricOverrides
from epp.backend.providers.mapping import EngineMapping, metric
from epp.backend.providers.sglang import SGLANG
from epp.backend.providers.triton import TRITON
from epp.backend.providers.vllm import VLLM
from epp.errors import ConfigError

LABEL = "llm-d.ai/engine-type"
LEGACY = "inference.networking.k8s.io/engine-type"


@pytest.mark.parametrize(
    ("labels", "want"),
    [
        pytest.param({}, "vllm", id="no-label-is-vllm"),
        pytest.param({LABEL: "sglang"}, "sglang", id="label"),
        pytest.param({LEGACY: "triton"}, "triton", id="legacy-label"),
        pytest.param({LABEL: "trtllm-serve", LEGACY: "triton"}, "trtllm-serve", id="label-first"),
        pytest.param({LABEL: "nobody-knows"}, "vllm", id="unknown-engine-is-the-default"),
    ],
)
def test_a_pod_names_its_engine_in_a_label(labels: dict[str, str], want: str) -> None:
    assert EngineMappings().for_labels(labels).name == want


def test_every_builtin_engine_maps_a_queue() -> None:
    assert [engine.name for engine in BUILTIN_ENGINES] == [
        "vllm",
        "sglang",
        "trtllm-serve",
        "triton-tensorrt-llm",
        "triton",
    ]
    assert all(engine.queued for engine in BUILTIN_ENGINES)


def test_vllm_kv_usage_has_both_names_new_one_first() -> None:
    assert [spec.name for spec in VLLM.kv_usage] == [
        "vllm:kv_cache_usage_perc",
        "vllm:gpu_cache_usage_perc",
    ]


def test_the_default_engine_can_be_another_one() -> None:
    assert EngineMappings(default_engine="sglang").for_labels({}) is SGLANG


def test_an_unknown_default_engine_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"known are sglang, .*got 'sgl'"):
        EngineMappings(default_engine="sgl")


def test_a_label_key_of_the_operator_is_read_before_the_legacy_one() -> None:
    mappings = EngineMappings(engine_label="example.com/engine")

    assert mappings.for_labels({"example.com/engine": "sglang", LEGACY: "triton"}) is SGLANG
    assert mappings.for_labels({LEGACY: "triton"}) is TRITON
    assert mappings.for_labels({LABEL: "triton"}) is VLLM


def test_flags_change_single_signals_of_the_default_engine_only() -> None:
    overrides = MetricOverrides(queued="my_queue{a=b}", lora="")

    mappings = EngineMappings(overrides=overrides)

    assert mappings.default.queued == (MetricSpec(name="my_queue", labels=(("a", "b"),)),)
    assert mappings.default.lora == ()
    assert mappings.default.kv_usage == VLLM.kv_usage
    assert mappings.for_labels({LABEL: "vllm"}) is mappings.default
    assert mappings.for_labels({LABEL: "sglang"}) is SGLANG


@pytest.mark.parametrize(
    ("overrides", "flag"),
    [
        pytest.param(MetricOverrides(queued="m{"), "--total-queued-requests-metric", id="queued"),
        pytest.param(MetricOverrides(running="{"), "--total-running-requests-metric", id="running"),
        pytest.param(
            MetricOverrides(kv_usage="{"), "--kv-cache-usage-percentage-metric", id="kv-usage"
        ),
        pytest.param(MetricOverrides(lora="{"), "--lora-info-metric", id="lora"),
        pytest.param(MetricOverrides(cache_info="{"), "--cache-info-metric", id="cache-info"),
    ],
)
def test_a_bad_flag_is_named(overrides: MetricOverrides, flag: str) -> None:
    with pytest.raises(ConfigError, match=flag):
        EngineMappings(overrides=overrides)


def test_a_user_engine_replaces_the_builtin_one_entirely() -> None:
    mine = EngineMapping(name="vllm", queued=metric("q"))

    mappings = EngineMappings([mine])

    assert mappings.for_labels({}) is mine
    assert mappings.for_labels({LABEL: "sglang"}) is SGLANG


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(("",), id="empty-name"),
        pytest.param(("default",), id="reserved-name"),
        pytest.param(("x", "x"), id="twice"),
    ],
)
def test_a_user_engine_needs_a_name_of_its_own(names: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="engineConfigs"):
        EngineMappings([EngineMapping(name=name) for name in names])
