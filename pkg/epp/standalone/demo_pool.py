"""The demo's pool: four simulated pods and the manifests that declare them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from epp.standalone.options import DEMO_PODS

BASE_MODEL = "tiny-llm"
ADAPTERS = ("support-r1", "support-r2")
NAMESPACE = "demo"
POD_ADDRESSES = tuple(f"127.0.1.{number}" for number in range(1, DEMO_PODS + 1))
"""Where a second demo on this machine would collide: the pods' port must be free on all of them."""
POOL = "demo"


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoPod:
    """One simulated pod on a loopback address of its own."""

    name: str
    address: str
    port: int


def demo_pods(port: int) -> list[DemoPod]:
    """Four pods on 127.0.1.1 to 127.0.1.4, one port."""
    return [
        DemoPod(name=f"sim-{number}", address=address, port=port)
        for number, address in enumerate(POD_ADDRESSES, 1)
    ]


def pod_arguments(pod: DemoPod) -> list[str]:
    """Arguments of ``epp modelsim`` for a pod."""
    return [
        *("--host", pod.address, "--port", str(pod.port), "--name", pod.name),
        *("--model", BASE_MODEL, "--lora", ",".join(ADAPTERS), "--max-loras", "2"),
        *("--max-num-seqs", "8", "--speed", "4"),
    ]


def write_manifests(directory: Path, pods: Sequence[DemoPod]) -> Path:
    """Write the demo's manifests as a user would: one file for the pool, one a pod."""
    directory.mkdir(parents=True, exist_ok=True)
    port = pods[0].port
    _write(directory / "pool.yaml", [_pool(port), *_models()])
    for pod in pods:
        _write(directory / f"pod-{pod.name}.yaml", [_pod(pod)])
    return directory


def _write(path: Path, documents: Sequence[Mapping[str, Any]]) -> None:
    path.write_text(yaml.safe_dump_all(documents, sort_keys=False))


def _pool(port: int) -> dict[str, Any]:
    return {
        "apiVersion": "inference.networking.k8s.io/v1",
        "kind": "InferencePool",
        "metadata": {"name": POOL, "namespace": NAMESPACE},
        "spec": {
            "selector": {"matchLabels": {"app": "sim"}},
            "targetPorts": [{"number": port}],
            "endpointPickerRef": {
                "name": "epp",
                "port": {"number": 9002},
                "failureMode": "FailOpen",
            },
        },
    }


def _models() -> list[dict[str, Any]]:
    split = [{"name": ADAPTERS[0], "weight": 90}, {"name": ADAPTERS[1], "weight": 10}]
    return [
        _model("base", BASE_MODEL, "Critical", []),
        _model("support", "support", "Standard", split),
        _model("nightly", "nightly-eval", "Sheddable", [{"name": BASE_MODEL}]),
    ]


def _model(
    name: str, model_name: str, criticality: str, targets: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "modelName": model_name,
        "criticality": criticality,
        "poolRef": {"name": POOL},
    }
    if targets:
        spec["targetModels"] = [dict(target) for target in targets]
    return {
        "apiVersion": "inference.networking.x-k8s.io/v1alpha2",
        "kind": "InferenceModel",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": spec,
    }


def _pod(pod: DemoPod) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": pod.name, "namespace": NAMESPACE, "labels": {"app": "sim"}},
        "status": {
            "podIP": pod.address,
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }
