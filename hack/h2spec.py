"""Print the path of h2spec, the conformance suite of HTTP/2: the machine's, else one built with Go.

Its later tags are no versions to Go (a module of major version 2 must say so in its path), so the
one before them is built, in a module of our own that pins what it needs. Once, in about a minute
on a machine that has none of it.
"""

import shutil
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
)

PROGRAM = "h2spec"
VERSION = "2.2.1"
GO_MINIMUM = (1, 25)
PACKAGE = "github.com/summerwind/h2spec/cmd/h2spec"
GO_MOD = f"""\
module endpoint-picker/h2spec

go 1.25.0

require (
	github.com/fatih/color v1.19.0
	github.com/inconshreveable/mousetrap v1.1.0
	github.com/mattn/go-colorable v0.1.14
	github.com/mattn/go-isatty v0.0.20
	github.com/spf13/cobra v1.10.2
	github.com/spf13/pflag v1.0.9
	github.com/summerwind/h2spec v{VERSION}+incompatible
	golang.org/x/net v0.62.0
	golang.org/x/sys v0.49.0
	golang.org/x/text v0.43.0
)
"""


def provide(env: Mapping[str, str]) -> Path:
    """Return the path. Raises ToolError."""
    found = shutil.which(PROGRAM, path=env.get("PATH"))
    if found is not None:
        return Path(found)
    entry = cache_directory(env) / PROGRAM / f"{VERSION}-{platform_name()}"
    return cached(entry, [PROGRAM], lambda draft: _build(draft, env)) / PROGRAM


def _build(directory: Path, env: Mapping[str, str]) -> None:
    go = find_go(GO_MINIMUM, env)
    source = directory / "source"
    source.mkdir()
    (source / "go.mod").write_text(GO_MOD)
    argv = [
        *(str(go), "build", "-v", "-mod=mod", "-trimpath", "-buildvcs=false"),
        *("-o", str(directory / PROGRAM), PACKAGE),
    ]
    run(f"Building h2spec {VERSION}", argv, env=go_environment(env), cwd=source)
    shutil.rmtree(source)


if __name__ == "__main__":
    sys.exit(answer(provide))
