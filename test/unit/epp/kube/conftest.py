"""Shared by the tests of configuration."""

from pathlib import Path

import pytest

from epp.testing.kubeconfigs import CA, SECRET


@pytest.fixture
def service_account(tmp_path: Path) -> Path:
    folder = tmp_path / "sa"
    folder.mkdir()
    (folder / "token").write_text(SECRET)
    (folder / "ca.crt").write_bytes(CA)
    (folder / "namespace").write_text("demo\n")
    return folder
