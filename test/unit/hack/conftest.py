"""The scripts of hack/ as modules, and stand-ins for the programs they call."""

import importlib
import sys
from pathlib import Path

import pytest
import yaml

HACK = Path(__file__).resolve().parents[3] / "hack"
GO = """#!/bin/sh
echo "$PWD CGO_ENABLED=$CGO_ENABLED GOTOOLCHAIN=$GOTOOLCHAIN $*" >> {log}
case "$1" in
  env) echo {version} ;;
  build|install)
    {before}
    while [ $# -gt 0 ]; do
      if [ "$1" = -o ]; then target="$2"; fi
      shift
    done
    target="${{target:-$GOBIN/kustomize}}"
    printf '#!/bin/sh\\necho %s version 9\\n' "${{target##*/}}" > "$target"
    /bin/chmod +x "$target" ;;
esac
"""


def write_program(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    path.chmod(0o755)
    return path


class FakeGo:
    """A program ``go`` that makes scripts instead of programs, and writes down its calls."""

    def __init__(self, directory):
        self._log = directory / "go.log"
        self._program = directory / "bin" / "go"
        self.install()

    def install(self, *, version="go1.26.8", before=""):
        text = GO.format(log=self._log, version=version, before=before)
        write_program(self._program, text)

    @property
    def path(self):
        """PATH for the scripts: this Go and nothing else of the machine."""
        return str(self._program.parent)

    @property
    def calls(self):
        return self._log.read_text("utf-8").splitlines() if self._log.exists() else []

    @property
    def builds(self):
        return [call for call in self.calls if " build " in call or " install " in call]


@pytest.fixture
def program():
    return write_program


@pytest.fixture
def go(tmp_path):
    return FakeGo(tmp_path / "fake-go")


@pytest.fixture
def env(tmp_path, go):
    """Environment of a script: its cache in a directory of the test."""
    return {"PATH": go.path, "XDG_CACHE_HOME": str(tmp_path / "cache")}


@pytest.fixture
def hack(monkeypatch):
    """Import a script the way it imports its neighbours."""
    monkeypatch.syspath_prepend(str(HACK))
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if Path(getattr(sys.modules[name], "__file__", None) or "/").parent == HACK:
            del sys.modules[name]


@pytest.fixture
def toolcache(hack):
    return hack("toolcache")


@pytest.fixture
def lint(hack):
    return hack("lint_manifests")


@pytest.fixture
def check(lint):
    """Problems of YAML."""
    return lambda text, external=(): lint.problems(list(yaml.safe_load_all(text)), external)
