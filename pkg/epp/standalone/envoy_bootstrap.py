"""Envoy's bootstrap for both data paths, commented for people who adapt it.

One template (``templates/envoy.yaml``) holds what the paths share; what differs is filled in here.
Reference: each piece was tried on Envoy 1.40; its reason stands beside it in the template.
"""

import json
import shlex
from dataclasses import dataclass
from importlib import resources
from ipaddress import ip_address
from string import Template
from typing import Literal

from epp.errors import ConfigError

_MIB = 1 << 20
_MAX_BUFFER_BYTES = (1 << 32) - 1
_TLS_HINTS = {
    False: "Without TLS, for one machine. `epp serve` has TLS unless told otherwise: --epp-tls fits it.",
    True: "With TLS, as `epp serve` has it by default; its certificate is not verified.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class BootstrapSettings:
    """What the bootstrap depends on. Raises ConfigError for what Envoy would refuse.

    Attributes:
        path: Data path.
        listen_address: Where clients connect: an IP address.
        listen_port: Port for clients.
        admin_port: Envoy's own admin interface, on loopback.
        epp_address: Where the EPP listens: an IP address, or a name that DNS resolves.
        epp_port: Its ext_proc port.
        epp_health_port: Its gRPC health port, plain text always.
        epp_tls: TLS towards the EPP, without verification (self-signed by default).
        eds_file: File of endpoints that the EPP writes.
        fail_open: Serve without the EPP while it cannot be asked.
        buffer_limit_bytes: Largest request body that Envoy buffers, 413 above; lean path only.
        message_timeout_seconds: How long Envoy waits for an answer of the EPP.
        access_log_flush_seconds: How long a finished request may take to be reported to the EPP.
    """

    path: Literal["lean", "gateway"] = "lean"
    listen_address: str = "127.0.0.1"
    listen_port: int = 8080
    admin_port: int = 9901
    epp_address: str = "127.0.0.1"
    epp_port: int = 9002
    epp_health_port: int = 9003
    epp_tls: bool = False
    eds_file: str = "./endpoints.yaml"
    fail_open: bool = True
    buffer_limit_bytes: int = 32 * _MIB
    message_timeout_seconds: float = 2.0
    access_log_flush_seconds: float = 0.02

    def __post_init__(self) -> None:
        """Refuse what Envoy would refuse, or worse, take."""
        _require(
            _is_ip(self.listen_address), "listen_address", self.listen_address, "an IP address"
        )
        _require(bool(self.epp_address), "epp_address", self.epp_address, "an IP address or a name")
        for name in ("listen_port", "admin_port", "epp_port", "epp_health_port"):
            port = getattr(self, name)
            _require(1 <= port <= 65535, name, port, "a port (1 to 65535)")
        for name in ("message_timeout_seconds", "access_log_flush_seconds"):
            seconds = getattr(self, name)
            _require(seconds >= 0.001, name, seconds, "at least a millisecond")
        _require(
            1 <= self.buffer_limit_bytes <= _MAX_BUFFER_BYTES,
            "buffer_limit_bytes",
            self.buffer_limit_bytes,
            "between 1 and 4294967295",
        )
        _require(bool(self.eds_file), "eds_file", self.eds_file, "a path")


def render_bootstrap(settings: BootstrapSettings) -> str:
    """Return the YAML text."""
    lean = settings.path == "lean"
    flush = {"flush_interval": _seconds(settings.access_log_flush_seconds)}
    values = {
        "listen_address": _quoted(settings.listen_address),
        "listen_port": settings.listen_port,
        "admin_port": settings.admin_port,
        "epp_address": _quoted(settings.epp_address),
        "epp_cluster_type": "STATIC" if _is_ip(settings.epp_address) else "STRICT_DNS",
        "epp_port": settings.epp_port,
        "epp_health_port": settings.epp_health_port,
        "eds_file": _quoted(settings.eds_file),
        "eds_file_flag": shlex.quote(settings.eds_file.replace("\n", " ")),
        "secure_serving": str(settings.epp_tls).lower(),
        "tls_hint": _TLS_HINTS[settings.epp_tls],
        "buffer_limit_bytes": settings.buffer_limit_bytes,
        "fail_open": str(settings.fail_open).lower(),
        "message_timeout": _seconds(settings.message_timeout_seconds),
        "path": settings.path,
        "processing": _text("lean_processing.yaml" if lean else "gateway_processing.yaml"),
        "usage_filters": _text("usage_filters.yaml") if lean else "",
        "access_log": Template(_text("access_log.yaml")).substitute(flush),
        "epp_tls": _text("epp_tls.yaml") if settings.epp_tls else "",
        "health_over_plain_text": _text("epp_health_plain.yaml") if settings.epp_tls else "",
    }
    return Template(_text("envoy.yaml")).substitute(values)


def _require(holds: bool, field: str, value: object, what: str) -> None:
    if not holds:
        raise ConfigError(f"must be {what}", source="Envoy bootstrap", field=field, value=value)


def _is_ip(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _quoted(text: str) -> str:
    """Quote for YAML, whose double-quoted strings are a superset of JSON's."""
    return json.dumps(text)


def _seconds(value: float) -> str:
    """Return a duration as Envoy reads it: decimal, without an exponent."""
    return f"{value:.3f}".rstrip("0").rstrip(".") + "s"


def _text(name: str) -> str:
    return resources.files("epp.standalone").joinpath("templates", name).read_text("utf-8")
