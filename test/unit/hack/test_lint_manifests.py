"""The command line of the check of rendered manifests; its rules: test/integration/deploy."""

import importlib.util
import io
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[3]
CLAIM = """\
apiVersion: v1
kind: ServiceAccount
metadata: {name: epp, namespace: demo}
"""


@pytest.fixture(scope="module")
def lint() -> ModuleType:
    path = ROOT / "hack" / "lint_manifests.py"
    spec = importlib.util.spec_from_file_location("lint_manifests", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_problem_is_a_line_and_a_status(
    lint: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(CLAIM))

    status = lint.main([])

    assert status == 1
    assert capsys.readouterr().err == "ServiceAccount demo/epp: there is no Namespace demo\n"


def test_what_comes_from_elsewhere_can_be_named(
    lint: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(CLAIM))

    status = lint.main(["--external", "Namespace/demo"])

    assert (status, capsys.readouterr().err) == (0, "")


def test_an_object_without_a_namespace_is_a_problem(lint: ModuleType) -> None:
    manifest = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "epp"}}

    assert lint.problems([manifest]) == ["ServiceAccount epp: has no namespace"]
