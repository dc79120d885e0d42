"""Every object that ``config/`` renders to is one that a real API server would store.

Each distinct object of a core kind or of one of our CRDs goes through a strict dry run, so an
unknown field, a wrong type and a broken rule are errors. Kinds of others are listed, so that a new
one is a decision; ``test/integration/deploy`` checks what those refer to.
"""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from epp.testing.api_admin import identity
from epp.testing.api_connection import StatusError

ROOT = Path(__file__).resolve().parents[3]
NAMESPACES = ("inference", "prod")

OF_OTHERS = {
    "gateway.networking.k8s.io/v1": {"Gateway", "HTTPRoute"},
    "monitoring.coreos.com/v1": {"ServiceMonitor"},
    "networking.istio.io/v1": {"DestinationRule"},
    "networking.istio.io/v1alpha3": {"EnvoyFilter"},
}
"""Kinds that the gateways and the Prometheus operator bring; their CRDs are not ours."""


@pytest.fixture(scope="module")
def overlays():
    path = ROOT / "hack" / "overlays.py"
    spec = importlib.util.spec_from_file_location("hack_overlays_dry_run", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def rendered(overlays, pytestconfig):
    """Every distinct object of every combination, and one more with a user's own names."""
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        kustomize = overlays.find_kustomize()
    combinations = overlays.combinations()
    renamed = overlays.Combination(
        overlay="overlays/istio",
        components=("monitoring", "ha", "serving-certificate"),
        prefix="team-",
        namespace="prod",
    )
    distinct = {
        json.dumps(manifest, sort_keys=True): manifest
        for combination in (*combinations, renamed)
        for manifest in overlays.render(kustomize, combination)
    }
    return list(distinct.values())


def is_of_others(manifest):
    return manifest["kind"] in OF_OTHERS.get(manifest["apiVersion"], ())


async def refusal(admin, manifest):
    """Why the API server would not store it; empty when it would."""
    try:
        await admin.dry_run(manifest)
    except StatusError as exc:
        return f"{manifest['kind']} {manifest['metadata']['name']}: {exc}"
    return ""


async def test_a_strict_dry_run_takes_every_object(admin, rendered):
    await admin.apply([identity("v1", "Namespace", name) for name in NAMESPACES])
    ours = [m for m in rendered if m["kind"] != "Namespace" and not is_of_others(m)]

    refused = [await refusal(admin, manifest) for manifest in ours]

    assert [text for text in refused if text] == []
    assert {"Deployment", "Service", "InferencePool", "InferenceModel", "Role", "ClusterRole"} <= {
        m["kind"] for m in ours
    }


async def test_the_namespaces_are_taken_too(admin, rendered):
    namespaces = [m for m in rendered if m["kind"] == "Namespace"]
    fresh = [
        {**m, "metadata": {**m["metadata"], "name": f"x-{i}"}} for i, m in enumerate(namespaces)
    ]

    refused = [await refusal(admin, manifest) for manifest in fresh]

    assert refused == [""] * len(namespaces)
    assert namespaces


async def test_a_misspelt_field_of_ours_would_be_seen(admin, rendered):
    await admin.apply([identity("v1", "Namespace", name) for name in NAMESPACES])
    deployment = json.loads(json.dumps(next(m for m in rendered if m["kind"] == "Deployment")))
    deployment["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}

    text = await refusal(admin, deployment)

    assert "unknown field" in text
    assert "readynessProbe" in text


async def test_the_rest_are_kinds_that_we_know_of(rendered):
    found: dict[str, set[str]] = {}
    for manifest in rendered:
        if is_of_others(manifest):
            found.setdefault(manifest["apiVersion"], set()).add(manifest["kind"])

    assert found == OF_OTHERS
