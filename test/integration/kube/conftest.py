"""Fixtures: one real control plane per run, a fresh namespace per test, a proxy with faults.

The tests below this folder run in two workers at most, each with a control plane of its own: one
costs two seconds of CPU to start and 300 MB, and a test that kills the API server must not hit
another. Those that mostly wait, for processes, Leases and restarts, are one of the two groups.
"""

import importlib.util
import json
import secrets
import sys
from pathlib import Path

import pytest
import pytest_asyncio
import yaml

from epp.testing.api_admin import identity
from epp.testing.api_faults import ApiFaults
from epp.testing.envtest import LocalControlPlane, find_assets
from epp.testing.kube_account import pool_account
from epp.testing.kube_world import KubeWorld, PoolNamespace
from epp_api.crd_files import crd_files

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
USERS = {"alice": (), "bob": ("operators",)}
TEST_SECONDS = 120
WAITING = {
    "test_control_plane",
    "test_crd_lifecycle",
    "test_election_outage",
    "test_leader_election",
    "test_outages",
    "test_replicas",
}
TEMPLATE = "of-the-template"
"""Rendered once with this namespace; each test has its own put in, which is quicker."""


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items):
    """One worker for each group; what is built on first use does not count as a test's time."""
    for item in items:
        if item.path.is_relative_to(HERE):
            group = "kube-waiting" if item.path.stem in WAITING else "kube"
            item.add_marker(pytest.mark.xdist_group(group))
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(TEST_SECONDS, func_only=True))


@pytest.fixture(scope="session")
def crds():
    """Our CRDs, as objects."""
    return [yaml.safe_load(path.read_text("utf-8")) for path in crd_files().values()]


@pytest.fixture(scope="session")
def assets(pytestconfig):
    """Directory of kube-apiserver and etcd; progress of a build is shown, not captured."""
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        return find_assets(ROOT / "hack" / "envtest.py")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def control_plane(assets, crds, tmp_path_factory):
    """etcd and kube-apiserver with our CRDs; tests share it and keep to their namespace."""
    directory = tmp_path_factory.mktemp("control-plane")
    async with LocalControlPlane(assets, directory, users=USERS) as running:
        async with running.admin() as admin:
            await admin.apply(crds)
        yield running


@pytest_asyncio.fixture
async def admin(control_plane):
    """The administrator, connected in the loop of the test."""
    if "kube-apiserver" not in control_plane.process_ids:
        await control_plane.restart_apiserver()  # a test has failed between its kill and restart
    async with control_plane.admin() as connected:
        yield connected


@pytest_asyncio.fixture
async def namespace(admin):
    """A namespace of the test's own; after it nothing can be created there any more."""
    name = f"t-{secrets.token_hex(4)}"
    manifest = identity("v1", "Namespace", name)
    await admin.apply([manifest])
    yield name
    await admin.delete(manifest)


@pytest_asyncio.fixture
async def faults(control_plane):
    """A proxy with faults in front of the API server."""
    async with ApiFaults(control_plane) as proxy:
        yield proxy


@pytest.fixture(scope="session")
def shipped(pytestconfig):
    """Renders the whole of ``config/`` for a namespace, with names of its own."""
    path = ROOT / "hack" / "overlays.py"
    spec = importlib.util.spec_from_file_location("hack_overlays_of_kube", path)
    assert spec is not None
    assert spec.loader is not None
    overlays = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = overlays
    spec.loader.exec_module(overlays)
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        kustomize = overlays.find_kustomize()

    combination = overlays.Combination(
        overlay="default",
        components=("monitoring", "ha"),
        prefix=f"{TEMPLATE}-",
        namespace=TEMPLATE,
    )
    text = json.dumps(overlays.render(kustomize, combination))
    return lambda namespace: json.loads(text.replace(TEMPLATE, namespace))


@pytest_asyncio.fixture
async def account(control_plane, admin, namespace, shipped):
    """The endpoint picker's ServiceAccount, with the rules that we ship and no others."""
    made = pool_account(control_plane, admin, shipped(namespace))
    await made.create()
    yield made
    await made.delete()


@pytest.fixture
def people(admin, namespace):
    """Whoever writes objects of the namespace."""
    return PoolNamespace(admin, namespace)


@pytest.fixture
def make_world(account, people):
    """A world of the namespace's pool, connected as the endpoint picker's ServiceAccount."""

    def made(server="", **more):
        return KubeWorld(account.connection(server), people.pool_key, **more)

    return made


@pytest_asyncio.fixture
async def world(make_world):
    """A world that has seen an empty namespace."""
    async with make_world() as made:
        yield made
