"""What the control plane does when it cannot be had; real ones are in test/integration/kube."""

import sys

import pytest
import yaml

from epp.testing.envtest import ControlPlaneError, LocalControlPlane, find_assets

SLEEPS = "#!/bin/sh\nexec sleep 60\n"


@pytest.fixture
def assets(tmp_path):
    """Make a directory of programs from shell scripts."""

    def make(**programs):
        directory = tmp_path / "assets"
        directory.mkdir(exist_ok=True)
        for name, text in programs.items():
            path = directory / name.replace("_", "-")
            path.write_text(text)
            path.chmod(0o755)
        return directory

    return make


def script(tmp_path, text):
    path = tmp_path / "script.py"
    path.write_text(text)
    return path


def test_assets_are_what_the_script_prints(tmp_path):
    found = find_assets(script(tmp_path, "print('/some/where')"))

    assert str(found) == "/some/where"


def test_assets_that_cannot_be_had_are_an_error_with_a_command(tmp_path, capfd):
    failing = script(tmp_path, "import sys; sys.exit('error: no network')")

    with pytest.raises(ControlPlaneError, match="run `make envtest`"):
        find_assets(failing)

    assert "error: no network" in capfd.readouterr().err


@pytest.mark.parametrize("broken", ["etcd", "kube_apiserver"])
async def test_a_program_that_ends_is_an_error_with_its_last_words(assets, tmp_path, broken):
    programs = {"etcd": SLEEPS, "kube_apiserver": SLEEPS}
    programs[broken] = "#!/bin/sh\necho no such flag >&2\nexit 1\n"
    plane = LocalControlPlane(assets(**programs), tmp_path / "plane")

    with pytest.raises(ControlPlaneError) as caught:
        await plane.__aenter__()

    name = broken.replace("_", "-")
    assert str(caught.value) == f"{name} ended\n{name} said last:\nno such flag\n"
    assert plane.process_ids == {}


async def test_a_port_that_is_taken_is_given_up_for_another(assets, tmp_path):
    taken = f"#!{sys.executable}\nimport sys\nprint(*sys.argv)\nsys.exit('bind: address already in use')"
    plane = LocalControlPlane(assets(etcd=SLEEPS, kube_apiserver=taken), tmp_path / "plane")

    with pytest.raises(ControlPlaneError, match="address already in use"):
        await plane.__aenter__()

    log = (tmp_path / "plane" / "kube-apiserver.log").read_text()
    ports = [word for word in log.split() if word.startswith("--secure-port=")]
    assert len(ports) == len(set(ports)) == 3


async def test_more_flags_come_last(assets, tmp_path):
    shows = f"#!{sys.executable}\nimport sys\nsys.exit(sys.argv[-1])"
    directory = assets(etcd=SLEEPS, kube_apiserver=shows)
    plane = LocalControlPlane(directory, tmp_path / "plane", api_server_flags=["--v=4"])

    with pytest.raises(ControlPlaneError, match="--v=4"):
        await plane.__aenter__()


def test_secrets_are_for_the_owner_alone(tmp_path):
    plane = LocalControlPlane(tmp_path, tmp_path, users={"alice": ("dev", "ops")})

    path = plane.kubeconfig(plane.token("alice"), server="https://127.0.0.1:1", namespace="n")

    assert path.stat().st_mode & 0o077 == 0
    config = yaml.safe_load(path.read_text())
    assert config["users"][0]["user"] == {"token": plane.token("alice")}
    assert config["clusters"][0]["cluster"]["server"] == "https://127.0.0.1:1"
    assert plane.token("alice") != plane.token()
