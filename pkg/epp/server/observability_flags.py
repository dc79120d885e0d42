"""Flags about what this EPP says of itself: metrics and logs."""

from epp.metrics.families import SELECTABLE_NAME_SETS, NameSet
from epp.metrics.label_cap import DEFAULT_MAX_LABEL_VALUES
from epp.server.flags import Flag, one_of
from epp.server.quantities import parse_bool, parse_int, parse_positive_duration, parse_positive_int

_METRICS = "metrics of this EPP"
_LOGS = "logs"


def _metric_names(text: str) -> tuple[NameSet, ...]:
    words = [word.strip() for word in text.split(",") if word.strip()]
    known = {name_set.value: name_set for name_set in SELECTABLE_NAME_SETS}
    if not words or any(word not in known for word in words):
        raise ValueError(f"must be a comma-separated list of {', '.join(known)}")
    return tuple(dict.fromkeys(known[word] for word in words))


def _log_level(text: str) -> int:
    """A zap level as a verbosity; levels above info cannot be hidden and mean the lowest."""
    words = {"debug": 4, "info": 2, "warn": 2, "error": 2, "panic": 2}
    if text in words:
        return words[text]
    if not text.isascii() or not text.isdigit():
        raise ValueError("must be debug, info, error, panic or a number")
    return parse_int(text)


METRICS_FLAGS = (
    Flag(
        name="metrics-staleness-threshold",
        field="metrics_staleness_seconds",
        group=_METRICS,
        parse=parse_positive_duration,
        default=2.0,
        default_text="2s",
        metavar="TIME",
        help="endpoints with older metrics are left out of the pool gauges",
    ),
    Flag(
        name="enable-grpc-stream-metrics",
        field="grpc_stream_metrics",
        group=_METRICS,
        parse=parse_bool,
        default=False,
        default_text="false",
        switch=True,
        help="connections, streams, messages, resets and errors of the gRPC port; with the grpcio "
        "transport open streams only",
    ),
    Flag(
        name="max-label-values",
        field="max_label_values",
        group=_METRICS,
        parse=parse_positive_int,
        default=DEFAULT_MAX_LABEL_VALUES,
        default_text=str(DEFAULT_MAX_LABEL_VALUES),
        metavar="N",
        help="undeclared model names that get a label of their own; the rest is `other`",
    ),
    Flag(
        name="metric-names",
        field="metric_names",
        group=_METRICS,
        parse=_metric_names,
        default=SELECTABLE_NAME_SETS,
        default_text=",".join(SELECTABLE_NAME_SETS),
        metavar="LIST",
        help="generations of metric names to expose; fewer make shorter pages",
    ),
)

LOG_FLAGS = (
    Flag(
        name="v",
        field="verbosity",
        group=_LOGS,
        parse=parse_int,
        default=2,
        default_text="2",
        metavar="N",
        help="2: changes of state, 3: a line per request, 4: per endpoint, 5: protocol steps",
    ),
    Flag(
        name="log-format",
        field="log_format",
        group=_LOGS,
        parse=one_of("console", "json"),
        default=None,
        default_text="console",
        metavar="FORMAT",
        help="console or json",
    ),
    Flag(
        name="zap-log-level",
        field="zap_log_level",
        group=_LOGS,
        parse=_log_level,
        default=None,
        metavar="LEVEL",
        help="debug (as -v=4), info (as -v=2), error, panic, or a number as -v; wins over -v",
    ),
    Flag(
        name="zap-encoder",
        field="zap_encoder",
        group=_LOGS,
        parse=one_of("console", "json"),
        default=None,
        metavar="FORMAT",
        help="the reference's name of --log-format",
    ),
)
