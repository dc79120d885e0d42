"""Families about our own work: scheduling, plugins, the gateway, sources of data."""

from collections.abc import Mapping

from epp.metrics import buckets
from epp.metrics.families import Exposed, Family, Kind, NameSet, newest_only, own_name

_PLUGIN = ("extension_point", "plugin_type", "plugin_name")
_SOURCE = ("source_type",)
_EXTRACTOR = ("source_type", "extractor_type")


def _extension_names(
    rest: str, labels: tuple[str, ...] = (), *, pod_label: bool = False
) -> Mapping[NameSet, Exposed]:
    renamed = {"pod_name": "endpoint_name"} if pod_label else {}
    twin_labels = tuple("pod_name" if renamed and x == "endpoint_name" else x for x in labels)
    twin = Exposed(f"inference_extension_{rest}", twin_labels, renamed=renamed)
    return {
        NameSet.LLM_D: Exposed(f"llm_d_epp_{rest}", labels),
        NameSet.INFERENCE: twin,
        NameSet.INFERENCE_MODEL: twin,
    }


# Scheduler and plugins

INFO = Family(
    key="info",
    kind=Kind.GAUGE,
    unit="",
    help="Always 1; the labels tell which build runs.",
    labels=("commit", "build_ref"),
    names=_extension_names("info", ("commit", "build_ref")),
)
SCHEDULER_DURATION = Family(
    key="scheduler_e2e_duration_seconds",
    kind=Kind.HISTOGRAM,
    unit="seconds",
    help="One scheduling run, successful or not.",
    buckets=buckets.PLUGIN_SECONDS,
    names=_extension_names("scheduler_e2e_duration_seconds"),
)
SCHEDULER_ATTEMPTS = Family(
    key="scheduler_attempts_total",
    kind=Kind.COUNTER,
    unit="runs",
    help="Scheduling runs by outcome and first pick; a failure has no endpoint labels.",
    labels=("status", "target_model_name", "endpoint_name", "namespace", "port"),
    names=_extension_names(
        "scheduler_attempts_total",
        ("status", "target_model_name", "endpoint_name", "namespace", "port"),
        pod_label=True,
    ),
)
PLUGIN_DURATION = Family(
    key="plugin_duration_seconds",
    kind=Kind.HISTOGRAM,
    unit="seconds",
    help="One call of a plugin at an extension point.",
    labels=_PLUGIN,
    buckets=buckets.PLUGIN_SECONDS,
    names=_extension_names("plugin_duration_seconds", _PLUGIN),
)
PLUGIN_ERRORS = Family(
    key="plugin_errors_total",
    kind=Kind.COUNTER,
    unit="errors",
    help="Plugin calls that failed. The request was served without that plugin's opinion.",
    labels=_PLUGIN,
    names=own_name("plugin_errors_total", _PLUGIN),
)

# The gateway

SERVED_WITHOUT_EPP = Family(
    key="requests_served_without_epp_total",
    kind=Kind.COUNTER,
    unit="requests",
    help="Requests that the gateway's access log told of and that never came here: it failed open. "
    "A lower bound: what it tells while this process dies or is away may be lost.",
    names=own_name("requests_served_without_epp_total"),
)
PICKS_NOT_HONOURED = Family(
    key="picks_not_honoured_total",
    kind=Kind.COUNTER,
    unit="requests",
    help="Requests that the gateway sent to another endpoint than any that was picked.",
    names=own_name("picks_not_honoured_total"),
)
STREAMS_IN_FLIGHT = Family(
    key="extproc_streams_inflight",
    kind=Kind.GAUGE,
    unit="streams",
    help="Open ext_proc streams: one per request that the gateway is working on.",
    names=newest_only("extproc_streams_inflight"),
)

# Sources of data

POLL_ERRORS = Family(
    key="datalayer_poll_errors_total",
    kind=Kind.COUNTER,
    unit="errors",
    help="Scrapes of a model server that brought nothing.",
    labels=_SOURCE,
    names={
        NameSet.LLM_D: Exposed("llm_d_epp_datalayer_poll_errors_total", _SOURCE),
        NameSet.INFERENCE: Exposed(
            "llm_d_inference_scheduler_datalayer_poll_errors_total", _SOURCE
        ),
    },
)
EXTRACT_ERRORS = Family(
    key="datalayer_extract_errors_total",
    kind=Kind.COUNTER,
    unit="errors",
    help="Scrapes of a model server that lacked a metric or held a value we cannot use.",
    labels=_EXTRACTOR,
    names={
        NameSet.LLM_D: Exposed("llm_d_epp_datalayer_extract_errors_total", _EXTRACTOR),
        NameSet.INFERENCE: Exposed(
            "llm_d_inference_scheduler_datalayer_extract_errors_total", _EXTRACTOR
        ),
    },
)
SCRAPE_FAILURES = Family(
    key="scrape_failures_total",
    kind=Kind.COUNTER,
    unit="errors",
    help="Scrapes that brought nothing, by reason.",
    labels=("reason",),
    names=own_name("scrape_failures_total", ("reason",)),
)
SCRAPE_INCOMPLETE = Family(
    key="scrapes_incomplete_total",
    kind=Kind.COUNTER,
    unit="errors",
    help="Scrapes that lacked a metric or held a value we cannot use, by reason.",
    labels=("reason",),
    names=own_name("scrapes_incomplete_total", ("reason",)),
)
RECONCILES = Family(
    key="reconciles_total",
    kind=Kind.COUNTER,
    unit="runs",
    help="Reconcile runs by kind of object and outcome.",
    labels=("kind", "outcome"),
    names=own_name("reconciles_total", ("kind", "outcome")),
)
MANIFEST_PROBLEMS = Family(
    key="manifest_problems",
    kind=Kind.GAUGE,
    unit="problems",
    help="Manifests or files that cannot be used as they stand now; the last good state is kept.",
    names=own_name("manifest_problems"),
)
