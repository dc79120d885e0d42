"""The shape of the repository that nothing else would notice."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("folder", ["api", "cmd", "config", "docs", "hack", "pkg", "proto", "test"])
def test_no_top_level_folder_is_a_package(folder):
    """An ``__init__.py`` in ``cmd`` would hide the standard library's module of that name."""
    assert (ROOT / folder).is_dir()
    assert not list((ROOT / folder).glob("__init__.py"))


def test_no_package_lies_in_the_test_tree():
    assert not list((ROOT / "test").rglob("__init__.py"))


@pytest.mark.parametrize("package", ["pkg/epp", "api/epp_api", "cmd/epp_cmd"])
def test_every_import_package_is_typed(package):
    assert (ROOT / package / "py.typed").is_file()
