"""Settings that have an environment variable and no flag: our pod's name, the thresholds of v0.

The thresholds are defaults of the decision code until a configuration document says otherwise. A
value that cannot be parsed is ignored with a notice; ranges are checked for the ``SD_`` variables
only.
Reference: GAIE v0.3.0 pkg/epp/scheduling/config.go, v0.4.0 pkg/epp/saturationdetector/config.go.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from epp.server.flags import Notice, ignored_variable
from epp.server.quantities import (
    parse_float,
    parse_int,
    parse_positive_duration,
    parse_positive_int,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvSetting:
    """One variable.

    Attributes:
        name: Of the variable.
        field: Of ``Options``.
        parse: Text to value; raises ValueError with half a sentence.
        default_text: The default of the field, as a user would write it; empty is the empty text.
        help: What it means.
    """

    name: str
    field: str
    parse: Callable[[str], object]
    default_text: str
    help: str


def _between_zero_and_one(text: str) -> float:
    number = parse_float(text)
    if not 0 < number < 1:
        raise ValueError("must be above 0 and below 1")
    return number


ENV_SETTINGS = (
    EnvSetting(
        name="POD_NAME",
        field="pod_name",
        parse=str,
        default_text="",
        help="name of the pod that we run in: who reports our Events and, with a random suffix, "
        "holds the Lease; empty is the host's name; with --endpoint-selector the pool is named "
        "after its Deployment",
    ),
    EnvSetting(
        name="KV_CACHE_THRESHOLD",
        field="kv_cache_threshold",
        parse=parse_float,
        default_text="0.8",
        help="sheddable requests need an endpoint with at most this KV-cache use",
    ),
    EnvSetting(
        name="QUEUE_THRESHOLD_CRITICAL",
        field="queue_threshold_critical",
        parse=parse_int,
        default_text="5",
        help="sheddable requests need an endpoint with at most this many waiting requests",
    ),
    EnvSetting(
        name="QUEUING_THRESHOLD_LORA",
        field="queuing_threshold_lora",
        parse=parse_int,
        default_text="128",
        help="below this many waiting requests, LoRA affinity comes first",
    ),
    EnvSetting(
        name="LORA_AFFINITY_THRESHOLD",
        field="lora_affinity_threshold",
        parse=parse_float,
        default_text="0.999",
        help="probability to prefer endpoints that have the adapter",
    ),
    EnvSetting(
        name="SD_QUEUE_DEPTH_THRESHOLD",
        field="saturation_queue_depth",
        parse=parse_positive_int,
        default_text="5",
        help="an endpoint with at most this many waiting requests has capacity",
    ),
    EnvSetting(
        name="SD_KV_CACHE_UTIL_THRESHOLD",
        field="saturation_kv_cache_threshold",
        parse=_between_zero_and_one,
        default_text="0.8",
        help="an endpoint with at most this KV-cache use has capacity",
    ),
    EnvSetting(
        name="SD_METRICS_STALENESS_THRESHOLD",
        field="saturation_staleness_seconds",
        parse=parse_positive_duration,
        default_text="200ms",
        help="endpoints with older metrics have no known capacity",
    ),
)


def read_env_settings(env: Mapping[str, str]) -> tuple[dict[str, object], list[Notice]]:
    """Values by field for the variables that are set and usable, and notices for the others."""
    values: dict[str, object] = {}
    notices: list[Notice] = []
    for setting in ENV_SETTINGS:
        text = env.get(setting.name, "")
        if not text:
            continue
        try:
            values[setting.field] = setting.parse(text)
        except ValueError as exc:
            notices.append(ignored_variable(setting.name, text, setting.default_text, str(exc)))
    return values, notices
