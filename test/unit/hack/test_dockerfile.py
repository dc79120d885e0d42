"""The Dockerfile, read: images are not built on every machine, but their recipe can be checked."""

import fnmatch
import json
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruction:
    """One instruction and the stage that it belongs to."""

    stage: int
    word: str
    text: str


def instructions() -> list[Instruction]:
    """Every instruction; comments are left out and continued lines joined."""
    lines = (ROOT / "Dockerfile").read_text("utf-8").splitlines()
    joined = "\n".join(line for line in lines if not line.startswith("#")).replace("\\\n", "")
    found: list[Instruction] = []
    stage = 0
    for line in filter(None, joined.splitlines()):
        word, _, text = line.partition(" ")
        stage += word == "FROM"
        found.append(Instruction(stage=stage, word=word, text=text.strip()))
    return found


def texts(word: str, *, stage: int | None = None) -> list[str]:
    """Texts of the instructions of a kind."""
    return [i.text for i in instructions() if i.word == word and stage in (None, i.stage)]


def build_context() -> set[Path]:
    """Top-level paths that .dockerignore lets through."""
    rules = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    assert "*" in rules
    return {ROOT / rule[1:] for rule in rules if rule.startswith("!")}


def test_it_consists_of_known_instructions_only() -> None:
    known = {"ARG", "FROM", "ENV", "WORKDIR", "COPY", "RUN", "USER", "EXPOSE", "ENTRYPOINT", "CMD"}

    assert {i.word for i in instructions()} == known


def test_both_stages_use_the_same_pinned_base() -> None:
    (argument,) = texts("ARG")
    name, _, image = argument.partition("=")

    assert texts("FROM") == [f"${{{name}}} AS build", f"${{{name}}}"]
    assert re.fullmatch(r"python:\d+\.\d+\.\d+-slim-\w+(@sha256:[0-9a-f]{64})?", image)


def test_the_base_is_a_python_that_the_project_supports() -> None:
    (argument,) = texts("ARG")
    found = re.search(r":(\d+)\.(\d+)", argument)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    least = re.search(r">=(\d+)\.(\d+)", project["requires-python"])

    assert found is not None
    assert least is not None
    assert tuple(map(int, found.groups())) >= tuple(map(int, least.groups()))


def test_every_source_of_the_build_is_in_its_context() -> None:
    context = build_context()

    for text in texts("COPY", stage=1):
        *sources, _ = text.split()
        for source in sources:
            path = ROOT / source
            assert path.exists(), source
            assert any(path.is_relative_to(root) for root in context), source


def test_everything_in_the_context_is_copied() -> None:
    copied = {ROOT / source for text in texts("COPY", stage=1) for source in text.split()[:-1]}

    assert build_context() == copied


def test_what_the_wheel_needs_is_copied() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = [*wheel["packages"], *wheel["force-include"], project["project"]["readme"]]
    needed += project["project"]["license-files"]
    copied = [source for text in texts("COPY", stage=1) for source in text.split()[:-1]]

    missing = [
        path
        for path in needed
        if not any(path == source or path.startswith(f"{source}/") for source in copied)
    ]
    assert missing == []


def test_dependencies_are_held_to_the_constraints() -> None:
    environment = " ".join(texts("ENV", stage=1))
    (workdir,) = texts("WORKDIR", stage=1)

    assert f"PIP_CONSTRAINT={workdir}/constraints.txt" in environment
    assert all("--pre" not in run for run in texts("RUN"))


def test_the_image_has_the_environment_and_nothing_else() -> None:
    assert texts("RUN", stage=2) == []
    assert texts("COPY", stage=2) == ["--from=build /opt/epp /opt/epp"]
    assert "/opt/epp/bin:$PATH" in " ".join(texts("ENV", stage=2))


def test_it_runs_as_a_number_that_is_not_root() -> None:
    (user,) = texts("USER")

    assert re.fullmatch(r"[1-9]\d{4,}:[1-9]\d{4,}", user)


def test_it_runs_the_program_that_the_wheel_installs() -> None:
    (entry_point,) = texts("ENTRYPOINT")
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["scripts"]

    assert json.loads(entry_point) == [*scripts]


@pytest.mark.parametrize("path", [".git", ".venv", "test", "config/samples", "hack"])
def test_the_context_leaves_out_what_no_image_needs(path: str) -> None:
    allowed = [str(root.relative_to(ROOT)) for root in build_context()]

    assert not any(fnmatch.fnmatch(path, pattern) for pattern in allowed)
