"""Print the path of kustomize: the machine's, else the cache's, else one built with Go.

The machine's counts from version 5 on. ``kubectl kustomize`` is not used: it is another command
line, and its version is kubectl's. A build takes about 15 seconds, once.
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from toolcache import (
    answer,
    cache_directory,
    cached,
    find_go,
    go_environment,
    platform_name,
    run,
    say,
)

PROGRAM = "kustomize"
VERSION = "5.7.1"
MINIMUM_MAJOR = 5
GO_MINIMUM = (1, 22)
_VERSION = re.compile(r"v(\d+)\.\d+\.\d+")


def provide(env: Mapping[str, str]) -> Path:
    """Return the path. Raises ToolError."""
    found = shutil.which(PROGRAM, path=env.get("PATH"))
    if found is not None:
        if _major(Path(found)) >= MINIMUM_MAJOR:
            return Path(found)
        say(f"kustomize of this machine is older than version {MINIMUM_MAJOR}: {found}")
    entry = cache_directory(env) / PROGRAM / f"{VERSION}-{platform_name()}"
    return cached(entry, [PROGRAM], lambda draft: _build(draft, env)) / PROGRAM


def _major(program: Path) -> int:
    """Major version; 0 when it does not say."""
    argv = [str(program), "version"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    stated = _VERSION.search(done.stdout)
    return int(stated[1]) if stated else 0


def _build(directory: Path, env: Mapping[str, str]) -> None:
    go = find_go(GO_MINIMUM, env)
    module = f"sigs.k8s.io/kustomize/kustomize/v5@v{VERSION}"
    argv = [str(go), "install", "-v", "-trimpath", "-buildvcs=false", module]
    run(f"Building kustomize {VERSION}", argv, env={**go_environment(env), "GOBIN": str(directory)})


if __name__ == "__main__":
    sys.exit(answer(provide))
