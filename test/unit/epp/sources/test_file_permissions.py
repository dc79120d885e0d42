"""Files that this process may not read."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from epp.sources.files import FileSource


def pod(name: str, ip: str = "10.0.0.1") -> str:
    return f"apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nstatus: {{podIP: {ip}}}\n"


@contextmanager
def nobody() -> Iterator[None]:
    """Without the rights of root, for whom every file is readable."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def open_directory() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def test_a_file_without_permission_is_a_problem(open_directory: Path) -> None:
    (open_directory / "a.yaml").write_text(pod("a"))
    (open_directory / "a.yaml").chmod(0)
    source = FileSource(open_directory)

    with nobody():
        source.scan()

    assert [str(found) for found in source.problems] == [
        "a.yaml: cannot be read: Permission denied"
    ]


def test_a_file_that_becomes_readable_is_read(open_directory: Path) -> None:
    (open_directory / "a.yaml").write_text(pod("a"))
    (open_directory / "a.yaml").chmod(0)
    source = FileSource(open_directory)
    with nobody():
        source.scan()
    source.caches.mark_synced()

    (open_directory / "a.yaml").chmod(0o644)
    source.scan()

    assert source.problems == ()
