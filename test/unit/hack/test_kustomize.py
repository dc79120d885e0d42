import pytest


@pytest.fixture
def kustomize(hack):
    return hack("kustomize")


def on_path(env, program, tmp_path, text):
    made = program(tmp_path / "tools" / "kustomize", text)
    return made, {**env, "PATH": f"{made.parent}:{env['PATH']}"}


@pytest.mark.parametrize("said", ["v5.4.2", "v6.0.0", "{kustomize/v5.0.1  2023-01-01}"])
def test_that_of_the_machine_is_taken(kustomize, env, program, tmp_path, go, said):
    made, env = on_path(env, program, tmp_path, f"#!/bin/sh\necho '{said}'\n")

    assert kustomize.provide(env) == made
    assert go.calls == []


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("#!/bin/sh\necho v4.5.7\n", id="old"),
        pytest.param("#!/bin/sh\necho '(devel)'\n", id="unknown"),
        pytest.param("#!/bin/sh\nexit 1\n", id="broken"),
    ],
)
def test_another_is_built_and_kept_where_that_will_not_do(
    kustomize, env, program, tmp_path, go, text
):
    made, env = on_path(env, program, tmp_path, text)

    first = kustomize.provide(env)
    second = kustomize.provide(env)

    assert first == second != made
    assert first.is_relative_to(tmp_path / "cache")
    [build] = go.builds
    assert build.endswith("sigs.k8s.io/kustomize/kustomize/v5@v5.7.1")


def test_one_is_built_where_there_is_none(kustomize, env, go):
    assert kustomize.provide(env).name == "kustomize"
    assert len(go.builds) == 1
