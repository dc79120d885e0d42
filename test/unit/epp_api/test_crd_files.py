import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from epp_api.crd_files import crd_files

ROOT = Path(__file__).parents[3]
BASES = ROOT / "config" / "crd" / "bases"

FROM_WHEEL = """
from epp_api.crd_files import crd_files
for name, path in crd_files().items():
    print(name, path)
"""


def test_a_checkout_has_the_files_of_config() -> None:
    assert dict(crd_files()) == {path.name: path for path in BASES.glob("*.yaml")}


@pytest.mark.timeout(300)
def test_a_wheel_carries_the_files(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, ROOT],
        check=True,
        capture_output=True,
    )
    [wheel] = tmp_path.glob("*.whl")
    unpacked = tmp_path / "unpacked"
    zipfile.ZipFile(wheel).extractall(unpacked)

    done = subprocess.run(
        [sys.executable, "-c", FROM_WHEEL],
        check=True,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(unpacked)},
    )

    found = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert set(found) == {path.name for path in BASES.glob("*.yaml")}
    for name, path in found.items():
        assert Path(path).parent == unpacked / "epp_api" / "crds"
        assert Path(path).read_bytes() == (BASES / name).read_bytes()
