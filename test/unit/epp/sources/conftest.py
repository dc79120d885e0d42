"""Valid manifests of every kind, and one word to edit them: ``edited("pool", {path: value})``.

A path reads ``spec.targetPorts.0.number``; the value ``...`` takes the field away.
"""

import copy
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from epp.sources.validation import ManifestValidator

Edited = Callable[..., dict[str, Any]]

VALID: Mapping[str, dict[str, Any]] = {
    "pool": {
        "apiVersion": "inference.networking.k8s.io/v1",
        "kind": "InferencePool",
        "metadata": {"name": "chat-pool"},
        "spec": {
            "selector": {"matchLabels": {"app": "chat"}},
            "targetPorts": [{"number": 8000}],
            "endpointPickerRef": {"name": "epp", "port": {"number": 9002}},
        },
    },
    "old pool": {
        "apiVersion": "inference.networking.x-k8s.io/v1alpha2",
        "kind": "InferencePool",
        "metadata": {"name": "chat-pool"},
        "spec": {
            "selector": {"app": "chat"},
            "targetPortNumber": 8200,
            "extensionRef": {"name": "epp"},
        },
    },
    "model": {
        "apiVersion": "inference.networking.x-k8s.io/v1alpha2",
        "kind": "InferenceModel",
        "metadata": {"name": "bot"},
        "spec": {
            "modelName": "bot",
            "poolRef": {"name": "chat-pool"},
            "targetModels": [{"name": "r7", "weight": 95}, {"name": "r8", "weight": 5}],
        },
    },
    "objective": {
        "apiVersion": "llm-d.ai/v1alpha2",
        "kind": "InferenceObjective",
        "metadata": {"name": "batch"},
        "spec": {"priority": -5, "poolRef": {"name": "chat-pool"}},
    },
    "rewrite": {
        "apiVersion": "llm-d.ai/v1alpha2",
        "kind": "InferenceModelRewrite",
        "metadata": {"name": "canary"},
        "spec": {
            "poolRef": {"name": "chat-pool"},
            "rules": [
                {
                    "matches": [{"model": {"value": "bot"}}, {"model": {"value": "bot-latest"}}],
                    "targets": [
                        {"modelRewrite": "r7", "weight": 95},
                        {"modelRewrite": "r8", "weight": 5},
                    ],
                },
                {"targets": [{"modelRewrite": "base"}]},
            ],
        },
    },
    "pod": {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "chat-0", "labels": {"app": "chat"}},
        "status": {"podIP": "10.0.0.1", "conditions": [{"type": "Ready", "status": "True"}]},
    },
}


def _edited(kind: str, edits: Mapping[str, Any] | None = None) -> dict[str, Any]:
    document = copy.deepcopy(VALID[kind])
    for path, value in (edits or {}).items():
        place: Any = document
        *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
        for part in parents:
            place = place[part]
        if value is ...:
            del place[last]
        else:
            place[last] = value
    return document


@pytest.fixture
def edited() -> Edited:
    return _edited


@pytest.fixture(scope="session")
def checker() -> ManifestValidator:
    return ManifestValidator()
