"""The Dockerfile, read: images are not built on every machine, but their recipe can be checked."""

import re
import shutil
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
TEXT = (ROOT / "Dockerfile").read_text("utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


@pytest.fixture
def reader(hack):
    return hack("lint_dockerfile")


@pytest.fixture
def texts(reader):
    """Texts of the instructions of a kind, of one stage or of all."""
    instructions = reader.parse(TEXT)

    def found(word, stage=None):
        return [i.text for i in instructions if i.word == word and stage in {None, i.stage}]

    return found


@pytest.fixture
def copied(reader):
    """Paths of the tree that the first stage takes."""
    return [
        source
        for i in reader.parse(TEXT)
        if i.word == "COPY" and i.stage == 1
        for source in i.words[:-1]
    ]


def test_ours_has_no_problems(reader, capsys):
    status = reader.main([])

    assert (status, capsys.readouterr().err) == (0, "")


@pytest.mark.parametrize(
    ("old", "new", "want"),
    [
        pytest.param(
            "python:3.11.14-slim-bookworm", "python:3.11-slim", "is not pinned", id="minor-release"
        ),
        pytest.param("python:3.11.14-slim-bookworm", "python", "is not pinned", id="no-tag"),
        pytest.param("ARG PYTHON_IMAGE=", "ARG OTHER=", "base '' is not pinned", id="no-argument"),
        pytest.param(
            "python:3.11.14-slim-bookworm", f"python@sha256:{'a' * 64}", "", id="digest-alone"
        ),
        pytest.param(
            "slim-bookworm\n", f"slim-bookworm@sha256:{'a' * 64}\n", "", id="tag-and-digest"
        ),
        pytest.param("AS build", "AS other", "there is no stage build before", id="stage-renamed"),
        pytest.param("AS build", "as BUILD", "", id="stage-in-capitals"),
        pytest.param("--from=build", "--from=0", "", id="stage-by-number"),
        pytest.param("--from=build", "--from=1", "there is no stage 1 before", id="stage-itself"),
        pytest.param("COPY pkg pkg", "COPY package pkg", "there is no package", id="no-source"),
        pytest.param("COPY pkg pkg", "copy pkg pkg", "", id="small-letters"),
        pytest.param("COPY pkg pkg", 'COPY ["pkg", "pkg"]', "", id="copy-in-json"),
        pytest.param("COPY pkg pkg", "COPY --chown=1:1 pkg pkg", "", id="copy-with-an-owner"),
        pytest.param("COPY pkg pkg", "COPY test test", "leaves out test", id="not-in-the-context"),
        pytest.param(
            "COPY pkg pkg", "COPY ../x x", "there is no ../x to copy", id="outside-the-context"
        ),
        pytest.param("COPY pkg pkg", "COPY \\\n # why\n pkg pkg", "", id="comment-in-between"),
        pytest.param("COPY pkg pkg", "ADD pkg pkg", "ADD unpacks", id="add"),
        pytest.param("COPY pkg pkg", "COPI pkg pkg", "COPI is no instruction", id="misspelt"),
        pytest.param("USER 65532:65532", "", "has no USER", id="root-by-default"),
        pytest.param("USER 65532:65532", "USER 0", "not a number above 0", id="root-by-number"),
        pytest.param("USER 65532:65532", "USER root", "not a number", id="root-by-name"),
        pytest.param("USER 65532:65532", "USER epp", "not a number", id="user-by-name"),
        pytest.param("USER 65532:65532", "USER 65532", "", id="user-without-group"),
        pytest.param("USER 65532:65532", "USER 1\nUSER 0", "not a number", id="the-last-counts"),
        pytest.param('ENTRYPOINT ["epp"]', "ENTRYPOINT epp", "JSON form", id="shell-form"),
        pytest.param('ENTRYPOINT ["epp"]', "", "has no ENTRYPOINT", id="no-entry-point"),
        pytest.param('CMD ["--help"]', "CMD --help", "CMD needs the JSON form", id="shell-command"),
        pytest.param("EXPOSE", "ENV API_TOKEN=x\nEXPOSE", "would keep a secret", id="secret-value"),
        pytest.param("EXPOSE", "ARG GIT_PASSWORD\nEXPOSE", "would keep a secret", id="secret-argument"),
        pytest.param("EXPOSE", "ENV TOKENIZERS=x\nEXPOSE", "", id="no-secret"),
        pytest.param("COPY pkg pkg", "COPY tls.pem pkg", "looks like a secret", id="secret-file"),
        pytest.param("COPY pkg pkg", "RUN <<END\nUSER 0\nEND\n", "", id="here-document"),
        pytest.param("FROM ${PYTHON_IMAGE} AS build", "RUN x", "RUN comes before FROM", id="too-early"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(reader, old, new, want):
    changed = TEXT.replace(old, new)
    assert changed != TEXT

    found = reader.problems(changed, ROOT)

    assert want in "\n".join(found)
    assert bool(found) == bool(want)


def test_a_file_without_stages_is_a_problem(reader, tmp_path, capsys):
    (tmp_path / "Dockerfile").write_text("# nothing\n")

    status = reader.main([str(tmp_path)])

    assert (status, capsys.readouterr().err) == (1, "Dockerfile: there is no FROM\n")


def test_what_is_missing_in_the_context_is_said(reader, tmp_path):
    shutil.copy(ROOT / ".dockerignore", tmp_path)

    found = reader.problems(TEXT, tmp_path)

    assert [line for line in found if "there is no pkg to copy" in line]


def test_the_stages_share_one_base_that_the_project_supports(reader):
    images = {stage.image for stage in reader.stages(reader.parse(TEXT))}
    least = re.search(r">=(\d+)\.(\d+)", PROJECT["project"]["requires-python"])

    (image,) = images
    found = re.fullmatch(r"python:(\d+)\.(\d+)\.\d+-slim-\w+(@sha256:[0-9a-f]{64})?", image)
    assert found is not None
    assert least is not None
    assert (int(found[1]), int(found[2])) >= (int(least[1]), int(least[2]))


def test_everything_in_the_context_is_copied(reader, copied):
    allowed = [rule[1:] for rule in reader.ignore_rules(ROOT) if rule.startswith("!")]

    assert sorted(allowed) == sorted(copied)


def test_what_the_wheel_needs_is_copied(copied):
    wheel = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = [*wheel["packages"], *wheel["force-include"], PROJECT["project"]["readme"]]
    needed += PROJECT["project"]["license-files"]

    missing = [
        path
        for path in needed
        if not any(path == source or path.startswith(f"{source}/") for source in copied)
    ]
    assert missing == []


def test_dependencies_are_held_to_the_constraints(texts):
    environment = " ".join(texts("ENV", 1))
    (workdir,) = texts("WORKDIR", 1)

    assert f"PIP_CONSTRAINT={workdir}/constraints.txt" in environment
    assert all("--pre" not in run for run in texts("RUN"))


def test_the_image_has_the_environment_and_nothing_else(reader, texts):
    (copy,) = [i for i in reader.parse(TEXT) if i.word == "COPY" and i.stage == 2]

    assert texts("RUN", 2) == []
    assert (copy.flags, copy.words) == ({"from": "build"}, ["/opt/epp", "/opt/epp"])
    assert "/opt/epp/bin:$PATH" in " ".join(texts("ENV", 2))


def test_it_runs_the_program_that_the_wheel_installs(reader):
    (entry_point,) = [i for i in reader.parse(TEXT) if i.word == "ENTRYPOINT"]

    assert entry_point.exec_form == [*PROJECT["project"]["scripts"]]


@pytest.mark.parametrize(
    "path", [".git", ".venv", "test", "config/samples", "hack", "pkg/__pycache__"]
)
def test_the_context_leaves_out_what_no_image_needs(reader, path):
    assert reader.is_ignored(Path(path), reader.ignore_rules(ROOT))


@pytest.mark.parametrize("path", ["pkg", "pkg/epp/version.py", "config/crd/bases/x.yaml"])
def test_the_context_has_what_it_needs(reader, path):
    assert not reader.is_ignored(Path(path), reader.ignore_rules(ROOT))
