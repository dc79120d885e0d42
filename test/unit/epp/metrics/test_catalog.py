"""The catalog: names, labels and buckets that dashboards rely on, and its own consistency."""

import re

import pytest

from epp.metrics import buckets
from epp.metrics.catalog import GROUPS
from epp.metrics.families import Exposed, Family, Kind, NameSet

FAMILIES = [family for group in GROUPS.values() for family in group]
EXPOSED = [
    (family, exposed) for family in FAMILIES for exposed in family.exposed(frozenset(NameSet))
]


@pytest.mark.parametrize(
    "bounds, count, first, last",
    [
        pytest.param(buckets.LATENCY_SECONDS, 35, 0.005, 3600, id="latency"),
        pytest.param(buckets.REQUEST_BYTES, 25, 64, 1073741824, id="request-bytes"),
        pytest.param(buckets.RESPONSE_BYTES, 15, 1, 65536, id="response-bytes"),
        pytest.param(buckets.INPUT_TOKENS, 19, 1, 1048576, id="input-tokens"),
        pytest.param(buckets.OUTPUT_TOKENS, 12, 1, 8192, id="output-tokens"),
        pytest.param(buckets.NORMALIZED_SECONDS_PER_TOKEN, 13, 0.001, 10, id="ntpot"),
        pytest.param(buckets.PLUGIN_SECONDS, 10, 0.0001, 0.1, id="plugin"),
        pytest.param(buckets.FIRST_TOKEN_SECONDS, 24, 0.005, 120, id="ttft"),
        pytest.param(buckets.STREAMING_SECONDS_PER_TOKEN, 19, 0.0005, 2, id="tpot"),
        pytest.param(buckets.REQUEST_PROCESSING_SECONDS, 16, 0.0005, 10, id="request-processing"),
        pytest.param(buckets.RESPONSE_PROCESSING_SECONDS, 15, 0.0001, 5, id="response-processing"),
    ],
)
def test_bucket_sets_have_the_bounds_of_the_field(
    bounds: tuple[float, ...], count: int, first: float, last: float
) -> None:
    assert (len(bounds), bounds[0], bounds[-1]) == (count, first, last)
    assert list(bounds) == sorted(set(bounds))


V0_NAMES = {
    "inference_model_request_total": ("model_name", "target_model_name"),
    "inference_model_request_error_total": ("model_name", "target_model_name", "error_code"),
    "inference_model_request_duration_seconds": ("model_name", "target_model_name"),
    "inference_model_request_sizes": ("model_name", "target_model_name"),
    "inference_model_response_sizes": ("model_name", "target_model_name"),
    "inference_model_input_tokens": ("model_name", "target_model_name"),
    "inference_model_output_tokens": ("model_name", "target_model_name"),
    "inference_model_running_requests": ("model_name",),
    "inference_model_normalized_time_per_output_token_seconds": ("model_name", "target_model_name"),
    "inference_pool_average_kv_cache_utilization": ("name",),
    "inference_pool_average_queue_size": ("name",),
    "inference_pool_ready_pods": ("name",),
    "inference_pool_per_pod_queue_size": ("name", "model_server_pod"),
    "inference_extension_info": ("commit", "build_ref"),
}


@pytest.mark.parametrize("name", sorted(V0_NAMES))
def test_names_of_v0_have_their_labels(name: str) -> None:
    [exposed] = [
        e
        for f in FAMILIES
        for e in f.exposed(frozenset({NameSet.INFERENCE_MODEL}))
        if e.name == name
    ]

    assert exposed.labels == V0_NAMES[name]


def test_no_name_is_used_twice() -> None:
    names = [exposed.name for _, exposed in EXPOSED]

    assert len(names) == len(set(names))


@pytest.mark.parametrize("family, exposed", [pytest.param(f, e, id=e.name) for f, e in EXPOSED])
def test_every_name_is_well_formed(family: Family, exposed: Exposed) -> None:
    assert re.fullmatch(r"[a-z][a-z0-9_]*", exposed.name)
    assert exposed.name.endswith("_total") == (family.kind is Kind.COUNTER)
    assert bool(family.buckets) == (family.kind is Kind.HISTOGRAM)
    sources = {exposed.renamed.get(label, label) for label in exposed.labels}
    assert sources - set(exposed.fixed) <= set(family.labels)
    assert family.help.endswith(".")
