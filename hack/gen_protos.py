"""Generate ``pkg/epp/gen`` from ``proto/``; ``--check`` only compares.

Three things differ from what protoc writes: imports begin with ``epp.gen``, descriptors go to the
pool of ``epp.gen.pool`` instead of the process-wide one, and the demand for a protobuf runtime at
least as new as the generator is left out, because the output uses nothing that the oldest runtime
in ``pyproject.toml`` lacks.

The output depends on the files in ``proto/`` and the versions of grpcio-tools and mypy-protobuf
alone (pinned in ``constraints.txt``); ``--check`` exits with 1 and names the files that differ.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from grpc_tools import protoc  # type: ignore[import-untyped] # publishes no types

ROOT = Path(__file__).resolve().parent.parent
PROTO_DIR = ROOT / "proto"
GEN_DIR = ROOT / "pkg" / "epp" / "gen"
HANDWRITTEN = frozenset({"__init__.py", "pool.py"})

_DEFAULT_POOL = "from google.protobuf import descriptor_pool as _descriptor_pool"
_OWN_POOL = "from epp.gen import pool as _descriptor_pool"
_GENERATED_IMPORT = re.compile(r"^from ((?:envoy|google)\.[\w.]+) import (\w+_pb2)\b", re.MULTILINE)
_RUNTIME_CHECK = re.compile(
    r"^from google\.protobuf import runtime_version as _runtime_version\n"
    r"|^_runtime_version\.ValidateProtobufRuntimeVersion\(.*?^\)\n",
    re.MULTILINE | re.DOTALL,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Generate or check; return the exit status."""
    parser = argparse.ArgumentParser(description="Generate pkg/epp/gen from proto/.")
    parser.add_argument("--check", action="store_true", help="compare with the tree, write nothing")
    parser.add_argument("--gen-dir", type=Path, default=GEN_DIR, help="where the generated tree is")
    options = parser.parse_args(argv)
    fresh = generate(PROTO_DIR)
    stale = differences(fresh, options.gen_dir)
    if options.check:
        for name in stale:
            print(f"{options.gen_dir / name}: not what `make generate` writes", file=sys.stderr)
        return 1 if stale else 0
    write(fresh, stale, options.gen_dir)
    print(f"{len(fresh)} files generated, {len(stale)} changed")
    return 0


def generate(proto_dir: Path) -> dict[str, str]:
    """Return the text of every generated file by its path below the output directory."""
    with TemporaryDirectory() as directory:
        out = Path(directory)
        _run_protoc(proto_dir, out)
        files = {
            path.relative_to(out).as_posix(): _rewrite(path.read_text("utf-8"))
            for path in sorted(out.rglob("*_pb2.py*"))
        }
    for name in sorted(_packages(files)):
        files[name] = '"""Generated protobuf modules."""\n'
    return files


def differences(fresh: dict[str, str], gen_dir: Path) -> list[str]:
    """Return the paths that are missing, outdated or no longer generated."""
    there = {
        path.relative_to(gen_dir).as_posix(): path.read_text("utf-8")
        for pattern in ("*.py", "*.pyi")
        for path in gen_dir.rglob(pattern)
    }
    for name in HANDWRITTEN:
        there.pop(name, None)
    names = sorted(fresh.keys() | there.keys())
    return [name for name in names if fresh.get(name) != there.get(name)]


def write(fresh: dict[str, str], stale: Sequence[str], gen_dir: Path) -> None:
    """Bring the stale files up to date: write what is generated, delete what no longer is."""
    for name in stale:
        path = gen_dir / name
        if name in fresh:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(fresh[name], "utf-8")
        else:
            path.unlink()


def _run_protoc(proto_dir: Path, out: Path) -> None:
    sources = sorted(path.relative_to(proto_dir).as_posix() for path in proto_dir.rglob("*.proto"))
    plugin = Path(sys.executable).parent / "protoc-gen-mypy"
    status = protoc.main(
        [
            "protoc",
            f"--proto_path={proto_dir}",
            f"--plugin=protoc-gen-mypy={plugin}",
            f"--python_out={out}",
            f"--mypy_out=quiet:{out}",
            *sources,
        ]
    )
    if status != 0:
        raise SystemExit(f"protoc failed with status {status}")


def _rewrite(text: str) -> str:
    text = text.replace(_DEFAULT_POOL, _OWN_POOL)
    text = _RUNTIME_CHECK.sub("", text)
    return _GENERATED_IMPORT.sub(r"from epp.gen.\1 import \2", text)


def _packages(files: dict[str, str]) -> set[str]:
    folders = {parent for name in files for parent in Path(name).parents if parent != Path()}
    return {(folder / "__init__.py").as_posix() for folder in folders}


if __name__ == "__main__":
    raise SystemExit(main())
