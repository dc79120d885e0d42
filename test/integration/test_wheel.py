"""The wheel, built and installed into an empty environment: what a user of ``pip install`` gets."""

import asyncio
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from epp.standalone import local_http
from epp.testing.serve import Serve
from epp.testing.stack import Manifests, eventually, free_port

ROOT = Path(__file__).parents[2]
POD = "127.0.43.1"

pytestmark = [pytest.mark.xdist_group("wheel"), pytest.mark.timeout(180)]


def run(*argv, **settings):
    """Run a program to its end; its output. A failure shows what it printed."""
    done = subprocess.run(
        argv, capture_output=True, text=True, timeout=150, check=False, **settings
    )
    assert done.returncode == 0, f"{' '.join(map(str, argv))}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    """Built without a network: the build backend is a development dependency."""
    out = tmp_path_factory.mktemp("dist")
    run(
        *(sys.executable, "-m", "build", "--wheel", "--no-isolation"),
        *("--outdir", str(out), str(ROOT)),
    )
    [built] = out.glob("*.whl")
    return built


@pytest.fixture(scope="session")
def environment(wheel, tmp_path_factory):
    """An environment of its own that holds the wheel; dependencies are those of this one."""
    home = tmp_path_factory.mktemp("environment") / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", str(home))
    python = home / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check"]
    run(*pip, "install", "--quiet", "--no-index", "--no-deps", str(wheel))
    packages = run(str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))")
    # A path file of a directory that is itself on a path file is not read: ours, which would
    # bring the sources of this tree, stays without effect.
    dependencies = Path(packages.strip()) / "dependencies.pth"
    dependencies.write_text(sysconfig.get_path("purelib") + "\n")
    return home


@pytest.fixture
def epp(environment):
    return str(environment / "bin" / "epp")


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A working directory and an environment that know nothing of this tree."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    return tmp_path


@pytest.fixture
def manifests(tmp_path):
    """A pool with a model and a pod."""
    written = Manifests(tmp_path / "manifests")
    written.pool(8000)
    written.model("tiny", criticality="Critical")
    written.pods([POD])
    return written


def test_the_packages_come_from_the_wheel(environment, elsewhere):
    code = "import epp, epp_api, epp_cmd; print(epp.__file__, epp_api.__file__, epp_cmd.__file__)"

    found = run(str(environment / "bin" / "python"), "-c", code).split()

    assert len(found) == 3
    assert all(path.startswith(f"{environment}/") for path in found)


@pytest.mark.parametrize(
    "arguments, want",
    [
        pytest.param(["--help"], "epp standalone --demo", id="help"),
        pytest.param(["serve", "--help"], "--pool-name", id="serve-help"),
        pytest.param(["standalone", "--help"], "--no-envoy", id="standalone-help"),
        pytest.param(["envoy-config", "--path", "lean"], "ext_proc", id="templates"),
    ],
)
def test_the_command_is_there(epp, elsewhere, arguments, want):
    assert want in run(epp, *arguments)


def test_the_module_is_the_command(environment, elsewhere, epp):
    python = str(environment / "bin" / "python")

    assert run(python, "-m", "epp", "--version") == run(epp, "--version")


async def test_it_serves_manifests(epp, elsewhere, manifests):
    arguments = ["--manifests", str(manifests.directory), "--secure-serving=false"]

    async with Serve(elsewhere, *arguments, program=[epp]) as serving:
        view = await local_http.get_json("127.0.0.1", serving.metrics_port, "/debug/pool")

        assert await serving.health("readiness") == "SERVING"
        assert view["pool"]["name"] == "p"
        assert [endpoint["address"] for endpoint in view["endpoints"]] == [f"{POD}:8000"]


async def test_it_validates_manifests_with_the_crds_it_brings(epp, elsewhere, manifests):
    ports = [{"number": 8000}, {"number": 8000}]
    manifests.write(
        "bad",
        {
            "apiVersion": "inference.networking.k8s.io/v1",
            "kind": "InferencePool",
            "metadata": {"name": "bad", "namespace": "test"},
            "spec": {"selector": {"matchLabels": {"app": "sim"}}, "targetPorts": ports},
        },
    )
    arguments = ["--manifests", str(manifests.directory), "--secure-serving=false"]

    async with Serve(elsewhere, *arguments, "--pool-name", "p", program=[epp]) as serving:
        await eventually(lambda: "bad.yaml" in serving.log_text(), what="the complaint")

        assert await serving.health() == "SERVING"


async def test_standalone_without_envoy_serves(epp, elsewhere, manifests):
    grpc, health, metrics = free_port(), free_port(), free_port()
    log = elsewhere / "standalone.log"
    with log.open("wb") as sink:
        process = await asyncio.create_subprocess_exec(
            *(epp, "standalone", "--no-envoy", "--manifests", str(manifests.directory)),
            *("--grpc-port", str(grpc), "--grpc-health-port", str(health)),
            *("--metrics-port", str(metrics), "--state-dir", str(elsewhere / "state")),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
        )
    try:
        await eventually(lambda: "no Envoy: ext_proc on" in log.read_text(), seconds=30)
        ready = await local_http.answers("127.0.0.1", metrics, "/readyz")
    finally:
        process.terminate()
        status = await asyncio.wait_for(process.wait(), 30)

    assert ready
    assert status == 0, log.read_text()
    assert "Traceback" not in log.read_text()
