"""Every metric of this EPP, as data: the source of the exposition and of ``docs/metrics.md``.

Names, types, labels and buckets are the field's; the help texts are ours. ``epp_*`` names are
metrics that no other EPP has. To add a metric: one family in its module, one line here, one store.
Reference: GAIE v0.3.0 to v1.5 and llm-d-router ebab687 pkg/epp/metrics.
"""

from collections.abc import Mapping

from epp.metrics import pool_families as pool
from epp.metrics import request_families as request
from epp.metrics import system_families as system
from epp.metrics.families import Family
from epp.metrics.kube_metrics import KUBE_FAMILIES
from epp.metrics.stream_metrics import STREAM_FAMILIES

GROUPS: Mapping[str, tuple[Family, ...]] = {
    "Requests": (
        request.REQUEST_TOTAL,
        request.REQUEST_ERROR_TOTAL,
        request.REQUEST_DURATION,
        request.REQUEST_SIZE,
        request.RESPONSE_SIZE,
        request.INPUT_TOKENS,
        request.OUTPUT_TOKENS,
        request.CACHED_TOKENS,
        request.RUNNING_REQUESTS,
        request.TIME_PER_OUTPUT_TOKEN,
        request.TIME_TO_FIRST_TOKEN,
        request.STREAMING_TIME_PER_TOKEN,
        request.REQUEST_PROCESSING,
        request.RESPONSE_PROCESSING,
    ),
    "Pool": pool.POOL_FAMILIES,
    "Scheduler and plugins": (
        system.INFO,
        system.SCHEDULER_DURATION,
        system.SCHEDULER_ATTEMPTS,
        system.PLUGIN_DURATION,
        system.PLUGIN_ERRORS,
    ),
    "Gateway": (system.SERVED_WITHOUT_EPP, system.PICKS_NOT_HONOURED, system.STREAMS_IN_FLIGHT),
    "Scrapes and manifests": (
        system.POLL_ERRORS,
        system.EXTRACT_ERRORS,
        system.SCRAPE_FAILURES,
        system.SCRAPE_INCOMPLETE,
        system.RECONCILES,
        system.MANIFEST_PROBLEMS,
    ),
    "Kubernetes": KUBE_FAMILIES,
    "gRPC port (with --enable-grpc-stream-metrics)": STREAM_FAMILIES,
}
"""Every family, in the order of the documentation."""
