"""The generator of pkg/epp/gen: reproducible, and able to say what is out of date."""

import importlib.util
import shutil
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[3]
STUB = "envoy/service/accesslog/v3/als_pb2.pyi"


@pytest.fixture(scope="module")
def gen_protos() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gen_protos", ROOT / "hack" / "gen_protos.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(ROOT / "pkg" / "epp" / "gen", tmp_path / "gen"))


def test_the_tree_is_what_the_generator_writes(
    gen_protos: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    status = gen_protos.main(["--check"])

    assert (status, capsys.readouterr().err) == (0, "")


def test_check_names_every_file_that_differs_and_writes_nothing(
    gen_protos: ModuleType, copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (copy / STUB).write_text("changed", "utf-8")
    (copy / "envoy" / "left_over_pb2.py").write_text("", "utf-8")
    (copy / "google" / "protobuf" / "struct_pb2.py").unlink()

    status = gen_protos.main(["--check", "--gen-dir", str(copy)])

    named = [line.split(": ")[0] for line in capsys.readouterr().err.splitlines()]
    assert status == 1
    assert named == [
        str(copy / "envoy" / "left_over_pb2.py"),
        str(copy / STUB),
        str(copy / "google" / "protobuf" / "struct_pb2.py"),
    ]
    assert (copy / STUB).read_text("utf-8") == "changed"


def test_generating_repairs_the_tree(gen_protos: ModuleType, copy: Path) -> None:
    (copy / STUB).write_text("changed", "utf-8")
    (copy / "envoy" / "left_over_pb2.py").write_text("", "utf-8")

    status = gen_protos.main(["--gen-dir", str(copy)])

    assert status == 0
    assert gen_protos.main(["--check", "--gen-dir", str(copy)]) == 0


def test_a_faulty_proto_file_is_an_error(gen_protos: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "bad.proto").write_text("syntax = 'proto3'; message {", "utf-8")

    with pytest.raises(SystemExit, match="protoc failed"):
        gen_protos.generate(tmp_path)
