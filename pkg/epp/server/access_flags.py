"""Flags about Kubernetes as the source, certificates, and who may read the metrics port.

Reference: llm-d-router ebab687 pkg/epp/server/options.go; kubeconfig and lease timings carry the
names of controller-runtime and kube-controller-manager.
"""

from pathlib import Path

from epp.server.flags import Flag, one_of
from epp.server.label_selector import parse_label_selector
from epp.server.quantities import parse_bool, parse_int, parse_positive_duration
from epp.server.tls_settings import DEFAULT_TLS_VERSION, TLS_VERSIONS, parse_cipher_suites

POOL_GROUPS = ("inference.networking.k8s.io", "inference.networking.x-k8s.io")
"""API groups that serve InferencePools: v1 and v1alpha2."""

_KUBERNETES = "kubernetes"
_ACCESS = "TLS and access"


def parse_path(text: str) -> Path | None:
    """A path; empty is none."""
    return Path(text) if text else None


def _target_ports(text: str) -> tuple[int, ...]:
    ports = tuple(parse_int(word.strip()) for word in text.split(",") if word.strip())
    if any(not 1 <= port <= 65535 for port in ports):
        raise ValueError("holds a number that is no port (1 to 65535)")
    return ports


def _tls_version(text: str) -> str:
    return one_of(*TLS_VERSIONS)(text) if text else DEFAULT_TLS_VERSION


KUBERNETES_FLAGS = (
    Flag(
        name="kubeconfig",
        field="kubeconfig",
        group=_KUBERNETES,
        parse=parse_path,
        default=None,
        default_text="$KUBECONFIG, else the pod's ServiceAccount, else ~/.kube/config",
        metavar="FILE",
        help="how to reach the API server from outside of the cluster",
    ),
    Flag(
        name="kube-context",
        field="kube_context",
        group=_KUBERNETES,
        parse=str,
        default="",
        default_text="the current one",
        metavar="NAME",
        help="context of the kubeconfig",
    ),
    Flag(
        name="pool-group",
        field="pool_group",
        group=_KUBERNETES,
        parse=lambda text: one_of(*POOL_GROUPS)(text) if text else "",
        default="",
        default_text="whichever the cluster serves, v1 if it has both",
        metavar="GROUP",
        help="API group of the InferencePool: inference.networking.k8s.io (v1) or "
        "inference.networking.x-k8s.io (v1alpha2)",
    ),
    Flag(
        name="endpoint-selector",
        field="endpoint_selector",
        group=_KUBERNETES,
        parse=lambda text: parse_label_selector(text) if text.strip() else None,
        default=None,
        metavar="SELECTOR",
        help="serve these pods without an InferencePool, e.g. 'app=vllm,tier in (gold,silver)'; "
        "needs --endpoint-target-ports, and the name of the pod in POD_NAME",
    ),
    Flag(
        name="endpoint-target-ports",
        field="endpoint_target_ports",
        group=_KUBERNETES,
        parse=_target_ports,
        default=(),
        metavar="PORTS",
        repeatable=True,
        help="1 to 8 ports of the pods that --endpoint-selector names, e.g. 8000,8001",
    ),
    Flag(
        name="ha-enable-leader-election",
        field="leader_election",
        group=_KUBERNETES,
        parse=parse_bool,
        default=False,
        default_text="false",
        switch=True,
        help="of several replicas only the holder of a Lease is ready; the others stay warm",
    ),
    Flag(
        name="leader-elect-lease-duration",
        field="lease_duration_seconds",
        group=_KUBERNETES,
        parse=parse_positive_duration,
        default=15.0,
        default_text="15s",
        metavar="TIME",
        help="how long the others wait for a leader that is silent: whole seconds",
    ),
    Flag(
        name="leader-elect-renew-deadline",
        field="lease_renew_seconds",
        group=_KUBERNETES,
        parse=parse_positive_duration,
        default=10.0,
        default_text="10s",
        metavar="TIME",
        help="how long a leader that cannot renew its Lease goes on; below the lease duration",
    ),
    Flag(
        name="leader-elect-retry-period",
        field="lease_retry_seconds",
        group=_KUBERNETES,
        parse=parse_positive_duration,
        default=2.0,
        default_text="2s",
        metavar="TIME",
        help="time between tries to get or renew the Lease; below the renew deadline",
    ),
)

ACCESS_FLAGS = (
    Flag(
        name="secure-serving",
        field="secure_serving",
        group=_ACCESS,
        parse=parse_bool,
        default=True,
        default_text="true",
        switch=True,
        help="TLS on the gRPC port, self-signed without --cert-path",
    ),
    Flag(
        name="cert-path",
        field="cert_path",
        group=_ACCESS,
        parse=parse_path,
        default=None,
        metavar="DIR",
        help="directory with tls.crt and tls.key, e.g. a mounted Secret",
    ),
    Flag(
        name="enable-cert-reload",
        field="cert_reload",
        group=_ACCESS,
        parse=parse_bool,
        default=None,
        default_text="true with --cert-path or --grpc-client-ca-file",
        switch=True,
        help="follow changes of these files; a bad one is logged and not used",
    ),
    Flag(
        name="grpc-client-ca-file",
        field="grpc_client_ca_file",
        group=_ACCESS,
        parse=parse_path,
        default=None,
        metavar="FILE",
        help="CA whose certificates gateways must show on the gRPC port; native transport only",
    ),
    Flag(
        name="tls-min-version",
        field="tls_min_version",
        group=_ACCESS,
        parse=_tls_version,
        default=DEFAULT_TLS_VERSION,
        default_text=DEFAULT_TLS_VERSION,
        metavar="NAME",
        help="lowest TLS version of the gRPC port: VersionTLS10 to VersionTLS13; the transport "
        "grpcio takes VersionTLS12 only",
    ),
    Flag(
        name="tls-cipher-suites",
        field="tls_cipher_suites",
        group=_ACCESS,
        parse=parse_cipher_suites,
        default=(),
        default_text="the library's choice",
        metavar="LIST",
        repeatable=True,
        help="cipher suites of the gRPC port up to TLS 1.2, by their names in Go, e.g. "
        "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256; those of TLS 1.3 cannot be chosen",
    ),
    Flag(
        name="health-checking",
        field="health_checking",
        group=_ACCESS,
        parse=parse_bool,
        default=False,
        default_text="false",
        switch=True,
        help="a health service on the gRPC port too, SERVING as long as it answers at all; "
        "readiness is on --grpc-health-port",
    ),
    Flag(
        name="metrics-endpoint-auth",
        field="metrics_endpoint_auth",
        group=_ACCESS,
        parse=parse_bool,
        default=None,
        default_text="true with Kubernetes",
        switch=True,
        help="readers of /metrics and /debug need a bearer token that Kubernetes accepts and that "
        "may `get` the path; without Kubernetes there is nobody to ask and the port is open",
    ),
    Flag(
        name="metrics-cert-dir",
        field="metrics_cert_dir",
        group=_ACCESS,
        parse=parse_path,
        default=None,
        metavar="DIR",
        help="TLS on the metrics port with the tls.crt and tls.key of DIR, read again on change; "
        "needs --metrics-endpoint-auth or --metrics-client-ca-file",
    ),
    Flag(
        name="metrics-client-ca-file",
        field="metrics_client_ca_file",
        group=_ACCESS,
        parse=parse_path,
        default=None,
        metavar="FILE",
        help="clients of the metrics port need a certificate of this CA; needs --metrics-cert-dir",
    ),
)
