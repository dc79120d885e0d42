"""Flags of the reference that choose nothing here.

A flag of a feature that is not built is accepted at the values that change nothing and refused,
by name and with a way out, at any other: a drop-in never ignores what it was told.
Reference: llm-d-router ebab687 pkg/epp/server/options.go, GAIE v0.3.0 cmd/epp/main.go.
"""

from epp.server.flags import Flag
from epp.server.quantities import parse_bool, parse_duration_or_zero

_FIXED = "accepted for compatibility"
_NOT_YET = "is not in this version yet"


def _fixed(
    name: str,
    *,
    accepted: tuple[object, ...],
    refusal: str,
    help: str,  # noqa: A002 - the field's name
    switch: bool = True,
    default_text: str = "",
) -> Flag:
    default = accepted[0]
    if isinstance(default, bool):
        default_text = "true" if default else "false"
    return Flag(
        name=name,
        group=_FIXED,
        parse=parse_bool if switch else str,
        default=default,
        default_text=default_text,
        switch=switch,
        accepted=accepted,
        refusal=refusal,
        help=help,
    )


_EITHER = (True, False)
_OFF = (False,)
_EMPTY = ("",)

FIXED_FLAGS = (
    Flag(
        name="refresh-prometheus-metrics-interval",
        group=_FIXED,
        parse=parse_duration_or_zero,
        default=5.0,
        default_text="5s",
        metavar="TIME",
        help="any value: pool gauges are computed at each scrape and are never older than that",
    ),
    _fixed(
        "destination-endpoint-hint-key",
        accepted=("x-gateway-destination-endpoint",),
        refusal="the destination header has a fixed name; configure the gateway to read it",
        help="header and metadata key that carries the pick",
        switch=False,
        default_text="x-gateway-destination-endpoint",
    ),
    _fixed(
        "destination-endpoint-hint-metadata-namespace",
        accepted=("envoy.lb",),
        refusal="the metadata namespace is fixed; configure the gateway to read it",
        help="metadata namespace of the pick",
        switch=False,
        default_text="envoy.lb",
    ),
    _fixed(
        "emit-endpoint-scores",
        accepted=_OFF,
        refusal=f"scores in dynamic metadata {_NOT_YET}; see /debug/decisions on the metrics port",
        help="put scores into dynamic metadata",
    ),
    _fixed(
        "config-file",
        accepted=_EMPTY,
        refusal=f"EndpointPickerConfig {_NOT_YET}",
        help="EndpointPickerConfig document",
        switch=False,
    ),
    _fixed(
        "config-text",
        accepted=_EMPTY,
        refusal=f"EndpointPickerConfig {_NOT_YET}",
        help="EndpointPickerConfig document as text",
        switch=False,
    ),
    _fixed(
        "allow-experimental-plugins",
        accepted=_EITHER[::-1],
        refusal="",
        help="either value: there are no experimental plugins to permit",
    ),
    _fixed(
        "enable-pprof",
        accepted=_EITHER,
        refusal="",
        help="either value: pprof is Go's, there is none here",
    ),
    _fixed(
        "tracing",
        accepted=_EITHER,
        refusal="",
        help="either value: this version sends no traces",
    ),
    _fixed(
        "zap-devel",
        accepted=_EITHER[::-1],
        refusal="",
        help="either value: choose with --log-format and -v",
    ),
    _fixed(
        "zap-stacktrace-level",
        accepted=("", "info", "error", "panic"),
        refusal="must be info, error or panic (no level adds stack traces to logs)",
        help="any level: a stack trace is logged only where a reconciler raises, once per place",
        switch=False,
    ),
    _fixed(
        "zap-time-encoding",
        accepted=("", "iso8601", "rfc3339", "rfc3339nano"),
        refusal="times in logs are ISO 8601, nothing else",
        help="format of times in logs",
        switch=False,
        default_text="iso8601",
    ),
)
