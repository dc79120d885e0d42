"""The generator of the Envoy configuration that config/ ships."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    path = ROOT / "hack" / "gen_envoy_config.py"
    spec = importlib.util.spec_from_file_location("gen_envoy_config", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tree_is_what_the_generator_writes(
    generator: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    status = generator.main(["--check"])

    assert (status, capsys.readouterr().err) == (0, "")


def test_check_names_a_file_that_differs_and_leaves_it(
    generator: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = tmp_path / "envoy.yaml"
    changed.write_text("changed", "utf-8")

    status = generator.main(["--check", "--target", str(changed)])

    assert status == 1
    assert str(changed) in capsys.readouterr().err
    assert changed.read_text("utf-8") == "changed"


def test_it_writes_what_check_accepts(generator: ModuleType, tmp_path: Path) -> None:
    target = tmp_path / "envoy.yaml"

    written = generator.main(["--target", str(target)])

    assert written == 0
    assert generator.main(["--check", "--target", str(target)]) == 0
