"""Running the suite on kind, as far as it can be seen without Docker."""

import re
from pathlib import Path

import pytest
import yaml

from epp.testing.kind_cluster import NODE_PORT
from epp.version import __version__

ROOT = Path(__file__).resolve().parents[3]
WORKFLOW = ROOT / ".github" / "workflows" / "e2e-kind.yaml"


@pytest.fixture
def kind(hack):
    return hack("kind")


def on_path(env, program, tmp_path, **scripts):
    for name, text in scripts.items():
        program(tmp_path / "tools" / name, f"#!/bin/sh\n{text}\n")
    return {**env, "PATH": f"{tmp_path / 'tools'}:{env['PATH']}"}


@pytest.mark.parametrize(
    ("there", "said"),
    [
        pytest.param({}, "docker is needed", id="no-docker"),
        pytest.param({"docker": "echo no daemon >&2; exit 1"}, "no daemon", id="no-daemon"),
        pytest.param({"docker": "echo 28"}, "kubectl is needed", id="no-kubectl"),
    ],
)
def test_what_is_missing_is_said_before_anything_is_made(
    kind, env, program, tmp_path, capsys, go, there, said
):
    status = kind.main([], on_path(env, program, tmp_path, **there))

    text = capsys.readouterr().err
    assert status == 1
    assert said in text
    assert "make test-e2e` runs the same tests without" in text
    assert go.calls == []


def test_kind_of_the_machine_is_taken(kind, env, program, tmp_path, go):
    env = on_path(env, program, tmp_path, kind="exit 0")

    assert kind.provide(env) == tmp_path / "tools" / "kind"
    assert go.calls == []


def test_kind_is_built_where_there_is_none(kind, env, go, monkeypatch):
    go.install(before='printf "#!/bin/sh\\n" > "$GOBIN/kind"; /bin/chmod +x "$GOBIN/kind"')

    built = kind.provide(env)

    [build] = go.builds
    assert built.name == "kind"
    assert build.endswith(f"sigs.k8s.io/kind@v{kind.VERSION}")


def test_the_gateway_of_the_node_is_published_on_loopback(kind):
    config = yaml.safe_load(kind.cluster_config(31234))

    [node] = config["nodes"]
    assert config["apiVersion"] == "kind.x-k8s.io/v1alpha4"
    assert node["extraPortMappings"] == [
        {"containerPort": NODE_PORT, "hostPort": 31234, "listenAddress": "127.0.0.1"}
    ]


def test_image_and_cluster_are_made_and_deleted_around_the_tests(
    kind, env, program, tmp_path, monkeypatch
):
    log = tmp_path / "calls"
    env = on_path(
        env,
        program,
        tmp_path,
        docker=f'echo "docker $*" >> {log}; echo 28',
        kubectl="exit 0",
        kind=f'echo "kind $*" >> {log}',
    )
    monkeypatch.setenv("PATH", env["PATH"])
    seen: dict[str, object] = {}

    def tests(words, env):
        seen.update(words=words, **env)
        return 3

    status = kind.main(["--logs", "kept", "-k", "split"], env, tests)

    assert status == 3
    assert seen["words"] == ["-k", "split"]
    assert seen["EPP_E2E_CLUSTER"] == "kind"
    calls = [" ".join(call.split()[:3]) for call in log.read_text().splitlines()]
    assert calls == [
        "docker version --format",
        "docker build --tag",
        "kind create cluster",
        "kind load docker-image",
        "kind export logs",
        "kind delete cluster",
    ]


def test_the_image_is_the_one_of_the_manifests(kind):
    deployment = (ROOT / "config" / "manager" / "deployment.yaml").read_text()

    assert f"endpoint-picker:{__version__}" == kind.OUR_IMAGE
    assert f"image: {kind.OUR_IMAGE}" in deployment


def test_the_workflow_runs_the_suite_with_our_kind(kind):
    text = WORKFLOW.read_text()
    workflow = yaml.safe_load(text)

    [job] = workflow["jobs"].values()
    commands = [step["run"] for step in job["steps"] if "run" in step]
    actions = [step["uses"] for step in job["steps"] if "uses" in step]
    assert set(workflow[True]) == {"push", "pull_request", "workflow_dispatch"}  # YAML reads `on`
    assert workflow["permissions"] == {"contents": "read"}
    assert job["timeout-minutes"] > 0
    assert any(f"sigs.k8s.io/kind@v{kind.VERSION}" in command for command in commands)
    assert any(command.startswith("make test-e2e-kind") for command in commands)
    assert all(re.fullmatch(r"actions/[\w-]+@v\d+", action) for action in actions)
