"""What a pod knows of itself: its namespace, and the Deployment that made it.

Reference: llm-d-router ebab687 cmd/epp/runner/runner.go, where a pool without an InferencePool is
named after the Deployment of the EPP.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from epp.errors import ConfigError
from epp.server.object_names import parse_object_name

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
DEFAULT_NAMESPACE = "default"

_POD_OF_DEPLOYMENT = re.compile(r"(.+)-[a-z0-9]+-[a-z0-9]+")


def own_namespace(env: Mapping[str, str], service_account: Path) -> str:
    """Namespace of our pod; ``default`` when we are in none, or use a kubeconfig of $KUBECONFIG."""
    if env.get("KUBECONFIG") or not env.get("KUBERNETES_SERVICE_HOST"):
        return DEFAULT_NAMESPACE
    try:
        return (service_account / "namespace").read_text("utf-8").strip() or DEFAULT_NAMESPACE
    except (OSError, UnicodeDecodeError):
        return DEFAULT_NAMESPACE


def deployment_of(pod_name: str) -> str:
    """Name of the Deployment of a pod: without the hashes of ReplicaSet and pod.

    Raises:
        ConfigError: There is no pod name, or it is not one of a Deployment's pod.
    """
    if not pod_name:
        text = "is required with --endpoint-selector: it names the pool (use the downward API)"
        raise ConfigError(text, source="POD_NAME")
    match = _POD_OF_DEPLOYMENT.fullmatch(pod_name)
    try:
        return parse_object_name("" if match is None else match[1])
    except ValueError as exc:
        text = "is not the name of a Deployment's pod, such as name-6b7f9c5d4-x2x9z"
        raise ConfigError(text, source="POD_NAME", value=pod_name) from exc
