"""Fixtures: a cluster, and what a user gets who applies ``config/`` to it.

``EPP_E2E_CLUSTER`` chooses the cluster: ``local`` (default) or ``kind``, which ``make
test-e2e-kind`` sets after it has made one. All tests share one worker, one event loop and one
installation, and leave it as they found it.
"""

import importlib.util
import os
import sys
from pathlib import Path

import pytest
import pytest_asyncio

from epp.testing.envtest import LocalControlPlane, find_assets
from epp.testing.installation import Installation, containers_patch
from epp.testing.kind_cluster import KindCluster, KindSettings
from epp.testing.local_cluster import LocalCluster
from epp.testing.traffic import Client

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CLUSTER = os.environ.get("EPP_E2E_CLUSTER", "local")
TEST_SECONDS = {"local": 120, "kind": 400}
SMALL = {"requests": {"cpu": "50m"}}


def pytest_collection_modifyitems(items):
    """One worker and one loop for all; what is built on first use is not a test's time."""
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.xdist_group("e2e"))
            item.add_marker(pytest.mark.envoy)
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(TEST_SECONDS.get(CLUSTER, 0), func_only=True))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """A test that fails shows its cluster."""
    report = yield
    cluster = getattr(item, "funcargs", {}).get("cluster")
    if report.failed and cluster is not None and item.path.is_relative_to(HERE):
        report.sections.append(("cluster", cluster.describe()))
    return report


@pytest.fixture(scope="session")
def overlays():
    """The renderer of ``hack/``, which is no package."""
    spec = importlib.util.spec_from_file_location(
        "hack_overlays_e2e", ROOT / "hack" / "overlays.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def kustomize(overlays, pytestconfig):
    """The binary; progress of a build is shown, not captured."""
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        return overlays.find_kustomize()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def cluster(pytestconfig, tmp_path_factory, overlays, kustomize):
    """A cluster that has our CRDs: the first of the two steps of a user."""
    directory = tmp_path_factory.mktemp("cluster")
    crds = overlays.build(kustomize, ROOT / "config" / "crd")
    if CLUSTER == "kind":
        async with KindCluster(KindSettings.read(os.environ), directory) as running:
            await running.admin.apply(crds)
            yield running
        return
    assert CLUSTER == "local", f"EPP_E2E_CLUSTER={CLUSTER}: must be local or kind"
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        assets = find_assets(ROOT / "hack" / "envtest.py")
    async with (
        LocalControlPlane(assets, directory / "control-plane") as control_plane,
        LocalCluster(control_plane, directory / "pods") as running,
    ):
        await running.admin.apply(crds)
        yield running


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def install(cluster, overlays, kustomize):
    """Apply an overlay with components and patches, the second step, and wait for its pods."""

    async def applied(*, ready, into="inference", **combination):
        chosen = overlays.Combination(**combination)
        manifests = overlays.render(kustomize, chosen)
        installed = Installation(cluster, into, manifests)
        await installed.apply(*manifests)
        for deployment in ready:
            await installed.rolled_out(deployment, seconds=90)
        return installed

    return applied


@pytest.fixture(scope="session")
def small():
    """Patches without which the pods of an update would not fit into a CI machine."""
    return (
        containers_patch("epp", {"name": "epp", "resources": SMALL}),
        containers_patch("modelsim", {"name": "modelsim", "resources": SMALL}),
    )


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def standalone(install, small):
    """``config/overlays/standalone``; its Envoy waits six seconds for the end, not thirty."""
    soon = {"preStop": {"sleep": {"seconds": 6}}}
    envoy = {"name": "envoy", "resources": SMALL, "lifecycle": soon}
    return await install(
        ready=("modelsim", "epp"),
        overlay="overlays/standalone",
        patches=(*small, containers_patch("epp", envoy)),
    )


@pytest_asyncio.fixture(loop_scope="session")
async def gateway(standalone):
    """A client of the Service ``epp-gateway``, with a connection for each request."""
    address = await standalone.cluster.service("inference", "epp-gateway", "http")
    async with Client(address) as client:
        yield client
