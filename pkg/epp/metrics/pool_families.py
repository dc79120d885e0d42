"""Families about the pool and its endpoints, computed when scraped."""

from collections.abc import Mapping

from epp.metrics.families import Exposed, Family, Kind, NameSet, newest_only, own_name


def _pool_names(rest: str, newest: str) -> Mapping[NameSet, Exposed]:
    twin = Exposed(f"inference_pool_{rest}", ("name",))
    return {
        NameSet.LLM_D: Exposed(f"llm_d_epp_{newest}", ("name",)),
        NameSet.INFERENCE: twin,
        NameSet.INFERENCE_MODEL: twin,
    }


POOL_KV_CACHE = Family(
    key="average_kv_cache_utilization",
    kind=Kind.GAUGE,
    unit="ratio",
    help="Mean used share of the KV cache, 0 to 1, over endpoints with fresh metrics.",
    labels=("name",),
    names=_pool_names("average_kv_cache_utilization", "average_kv_cache_utilization"),
)
POOL_QUEUE = Family(
    key="average_queue_size",
    kind=Kind.GAUGE,
    unit="requests",
    help="Mean number of waiting requests over endpoints with fresh metrics.",
    labels=("name",),
    names=_pool_names("average_queue_size", "average_queue_size"),
)
POOL_RUNNING = Family(
    key="average_running_requests",
    kind=Kind.GAUGE,
    unit="requests",
    help="Mean number of running requests over endpoints with fresh metrics.",
    labels=("name",),
    names=_pool_names("average_running_requests", "average_running_requests"),
)
POOL_READY = Family(
    key="ready_endpoints",
    kind=Kind.GAUGE,
    unit="endpoints",
    help="Endpoints of the pool with fresh metrics; an endpoint is one port of one pod.",
    labels=("name",),
    names=_pool_names("ready_pods", "ready_endpoints"),
)
POOL_STD_DEV_KV_CACHE = Family(
    key="std_dev_kv_cache_utilization",
    kind=Kind.GAUGE,
    unit="ratio",
    help="Sample standard deviation of the used share of the KV cache, two decimals.",
    labels=("name",),
    names=newest_only("std_dev_kv_cache_utilization", ("name",)),
)
POOL_STD_DEV_QUEUE = Family(
    key="std_dev_queue_size",
    kind=Kind.GAUGE,
    unit="requests",
    help="Sample standard deviation of the number of waiting requests, two decimals.",
    labels=("name",),
    names=newest_only("std_dev_queue_size", ("name",)),
)
POOL_STD_DEV_RUNNING = Family(
    key="std_dev_running_requests",
    kind=Kind.GAUGE,
    unit="requests",
    help="Sample standard deviation of the number of running requests, two decimals.",
    labels=("name",),
    names=newest_only("std_dev_running_requests", ("name",)),
)
_QUEUE_TWIN = Exposed(
    "inference_pool_per_pod_queue_size",
    ("name", "model_server_pod"),
    renamed={"model_server_pod": "model_server_endpoint"},
)
ENDPOINT_QUEUE = Family(
    key="per_endpoint_queue_size",
    kind=Kind.GAUGE,
    unit="requests",
    help="Waiting requests of one endpoint, fresh or not; absent until its first good scrape.",
    labels=("name", "model_server_endpoint"),
    names={
        NameSet.LLM_D: Exposed(
            "llm_d_epp_per_endpoint_queue_size", ("name", "model_server_endpoint")
        ),
        NameSet.INFERENCE: _QUEUE_TWIN,
        NameSet.INFERENCE_MODEL: _QUEUE_TWIN,
    },
)
ENDPOINT_IN_FLIGHT = Family(
    key="endpoint_in_flight_requests",
    kind=Kind.GAUGE,
    unit="requests",
    help="Requests that this EPP sent to one endpoint and that have not ended.",
    labels=("name", "model_server_endpoint"),
    names=own_name("endpoint_in_flight_requests", ("name", "model_server_endpoint")),
)
ENDPOINT_METRICS_AGE = Family(
    key="endpoint_metrics_age_seconds",
    kind=Kind.GAUGE,
    unit="seconds",
    help="Time since the last good scrape of one endpoint; absent until there was one.",
    labels=("name", "model_server_endpoint"),
    names=own_name("endpoint_metrics_age_seconds", ("name", "model_server_endpoint")),
)

POOL_FAMILIES = (
    POOL_READY,
    POOL_KV_CACHE,
    POOL_QUEUE,
    POOL_RUNNING,
    POOL_STD_DEV_KV_CACHE,
    POOL_STD_DEV_QUEUE,
    POOL_STD_DEV_RUNNING,
    ENDPOINT_QUEUE,
    ENDPOINT_IN_FLIGHT,
    ENDPOINT_METRICS_AGE,
)
"""Every family of this module, in the order of the documentation."""
