"""Envoy's bootstrap for both data paths, commented for people who adapt it.

One template (``templates/envoy.yaml``) holds what the paths share; what differs is filled in here.
Reference: each piece was tried on Envoy 1.40; its reason stands beside it in the template.
"""

from dataclasses import dataclass
from importlib import resources
from string import Template
from typing import Literal

_MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class BootstrapSettings:
    """What the bootstrap depends on.

    Attributes:
        path: Data path.
        listen_address: Where clients connect.
        listen_port: Port for clients.
        admin_port: Envoy's own admin interface, on loopback.
        epp_address: Where the EPP listens.
        epp_port: Its ext_proc port.
        epp_health_port: Its gRPC health port.
        epp_tls: TLS towards the EPP, without verification (self-signed by default).
        eds_file: File of endpoints that the EPP writes.
        fail_open: Serve without the EPP while it cannot be asked; lean path only.
        buffer_limit_bytes: Largest request body that Envoy buffers, 413 above; lean path only.
        message_timeout_seconds: How long Envoy waits for an answer of the EPP.
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


def render_bootstrap(settings: BootstrapSettings) -> str:
    """Return the YAML text."""
    lean = settings.path == "lean"
    values = {
        "listen_address": settings.listen_address,
        "listen_port": settings.listen_port,
        "admin_port": settings.admin_port,
        "epp_address": settings.epp_address,
        "epp_port": settings.epp_port,
        "epp_health_port": settings.epp_health_port,
        "eds_file": settings.eds_file,
        "buffer_limit_bytes": settings.buffer_limit_bytes,
        "fail_open": str(settings.fail_open).lower(),
        "message_timeout": f"{settings.message_timeout_seconds:g}s",
        "path": settings.path,
        "processing": _text("lean_processing.yaml" if lean else "gateway_processing.yaml"),
        "usage_filters": _text("usage_filters.yaml") if lean else "",
        "access_log": _text("access_log.yaml") if lean else "",
        "epp_tls": _text("epp_tls.yaml") if settings.epp_tls else "",
    }
    return Template(_text("envoy.yaml")).substitute(values)


def _text(name: str) -> str:
    return resources.files("epp.standalone").joinpath("templates", name).read_text()
