"""Kubeconfigs for tests: documents, files, and what is in them."""

import base64
from pathlib import Path
from typing import Any

import yaml

from epp.kube.config import load_settings
from epp.kube.connection_settings import ConnectionSettings
from epp.testing.authority import Authority

SECRET = "s3cr3t-t0ken"  # noqa: S105 - of no server
AUTHORITY = Authority()
CA = AUTHORITY.pem
PAIR = AUTHORITY.issue("client")
POD = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}
"""What Kubernetes tells every container."""

V1 = "client.authentication.k8s.io/v1"


def b64(data: bytes) -> str:
    """Bytes as a kubeconfig has them."""
    return base64.b64encode(data).decode()


def document(
    *, cluster: dict[str, Any] | None = None, user: dict[str, Any] | None = None, **context: Any
) -> dict[str, Any]:
    """A kubeconfig with one context, cluster and user."""
    return {
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u", **context}}],
        "clusters": [{"name": "c", "cluster": {"server": "https://api:6443", **(cluster or {})}}],
        "users": [{"name": "u", "user": user or {}}],
    }


def write(folder: Path, content: Any, name: str = "config") -> Path:
    """Write a kubeconfig, or any text."""
    file = folder / name
    file.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return file


def load(folder: Path, content: Any, env: dict[str, str] | None = None) -> ConnectionSettings:
    """What a kubeconfig comes to."""
    return load_settings(write(folder, content), "", env or {}, service_account=folder / "sa")
