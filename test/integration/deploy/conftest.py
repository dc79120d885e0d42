"""Fixtures: what kustomize makes of ``config/``, rendered once for each combination."""

import importlib
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
HACK = str(ROOT / "hack")


def load(name):
    """A module of hack/, which is no package: it finds its neighbours as when it is run."""
    sys.path.insert(0, HACK)
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(HACK)


OVERLAYS = load("overlays")
LINT = load("lint_manifests")


def pytest_generate_tests(metafunc):
    """Run a test that asks for ``combination`` with each of them."""
    if "combination" in metafunc.fixturenames:
        metafunc.parametrize(
            "combination", OVERLAYS.combinations(), ids=lambda combination: combination.name
        )


@pytest.fixture(scope="session")
def root():
    return ROOT


@pytest.fixture(scope="session")
def overlays():
    return OVERLAYS


@pytest.fixture(scope="session")
def lint():
    """Problems of an output, with the references of ours that lead out of it."""
    return lambda manifests: LINT.problems(manifests, OVERLAYS.EXTERNAL)


@pytest.fixture(scope="session")
def lint_with():
    """Problems of an output, with what is said to be elsewhere."""
    return LINT.problems


@pytest.fixture(scope="session")
def kustomize(pytestconfig):
    """The binary; progress of a build is shown, not captured."""
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        return OVERLAYS.find_kustomize()


@pytest.fixture(scope="session")
def render(kustomize):
    """Objects of a combination; the same ones when asked again, so do not change them."""
    seen = {}

    def rendered(combination=None, /, **fields):
        wanted = combination or OVERLAYS.Combination(**fields)
        key = repr(wanted)
        if key not in seen:
            seen[key] = OVERLAYS.render(kustomize, wanted)
        return seen[key]

    return rendered


@pytest.fixture
def manifests(render, combination):
    """Objects of the combination at hand."""
    return render(combination)


@pytest.fixture(scope="session")
def one():
    """The object of a kind and, where there are several, a name."""

    def found(manifests, kind, name=None):
        matches = [
            manifest
            for manifest in manifests
            if manifest["kind"] == kind and name in (None, manifest["metadata"]["name"])
        ]
        assert len(matches) == 1, (kind, name, len(matches))
        return matches[0]

    return found


@pytest.fixture(scope="session")
def containers():
    """Every container of an output, those that prepare a pod included."""

    def found(manifests):
        return [
            container
            for manifest in manifests
            if manifest["kind"] == "Deployment"
            for pod in [manifest["spec"]["template"]["spec"]]
            for container in (*pod.get("initContainers", ()), *pod["containers"])
        ]

    return found
