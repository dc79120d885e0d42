import pytest


@pytest.fixture
def h2spec(hack):
    return hack("h2spec")


def test_that_of_the_machine_is_taken(h2spec, env, program, tmp_path, go):
    made = program(tmp_path / "tools" / "h2spec", "#!/bin/sh\n")
    env = {**env, "PATH": f"{made.parent}:{env['PATH']}"}

    assert h2spec.provide(env) == made
    assert go.calls == []


def test_every_module_that_is_built_is_pinned(h2spec):
    required = [line.split() for line in h2spec.GO_MOD.splitlines() if line.startswith("\t")]

    assert ["github.com/summerwind/h2spec", f"v{h2spec.VERSION}+incompatible"] in required
    assert all(version.startswith("v") for _, version in required)


def test_one_is_built_where_there_is_none_and_kept(h2spec, env, tmp_path, go):
    first = h2spec.provide(env)
    second = h2spec.provide(env)

    assert first == second
    assert first.is_relative_to(tmp_path / "cache")
    [build] = go.builds
    assert build.endswith("github.com/summerwind/h2spec/cmd/h2spec")
