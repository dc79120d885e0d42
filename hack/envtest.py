"""Print the directory of a kube-apiserver and an etcd for tests; build them if need be.

The first of these that applies:

1. ``KUBEBUILDER_ASSETS`` names a directory that has both.
2. The cache has them, from an earlier run.
3. ``ENVTEST_ARCHIVE`` names a ``.tar.gz`` (a file, or a URL) with both below ``kubebuilder/bin``
   or ``controller-tools/envtest``, as the archives of the Kubernetes test tools have them.
4. They are built with Go from the modules in ``hack/envtest``: three to five minutes and 1 GB of
   downloads the first time.

2 to 4 end in the cache, under a name made of the versions and of the sources in ``hack/envtest``.
"""

import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import IO

from toolcache import (
    PROGRESS_SECONDS,
    ToolError,
    answer,
    cache_directory,
    cached,
    find_go,
    go_environment,
    is_complete,
    platform_name,
    run,
    say,
)

SOURCES = Path(__file__).resolve().parent / "envtest"
PROGRAMS = ("etcd", "kube-apiserver")
KUBERNETES_VERSION = "1.34.4"
GO_MINIMUM = (1, 25)
"""What etcd's module asks for."""

LAYOUTS = (("kubebuilder", "bin"), ("controller-tools", "envtest"))
SCHEMES = ("https://", "http://", "file://")
DOWNLOAD_TIMEOUT_SECONDS = 60.0
_CHUNK_BYTES = 1 << 20


def provide(env: Mapping[str, str]) -> Path:
    """Return the directory. Raises ToolError."""
    named = env.get("KUBEBUILDER_ASSETS", "")
    if named:
        return _named(Path(named))
    entry = cache_directory(env) / "envtest" / entry_name()
    archive = env.get("ENVTEST_ARCHIVE", "")
    if archive and is_complete(entry, PROGRAMS):
        say(f"{entry} is there already, ENVTEST_ARCHIVE is not read")
    if archive:
        return cached(entry, PROGRAMS, lambda draft: _unpack(archive, draft))
    return cached(entry, PROGRAMS, lambda draft: _build(draft, env))


def entry_name() -> str:
    """Name of the entry in the cache: it changes with everything the programs are built from."""
    digest = hashlib.sha256(" ".join(_linker_flags("kube-apiserver")).encode())
    for source in sorted(SOURCES.glob("*/*")):
        digest.update(source.read_bytes())
    return f"kubernetes-{KUBERNETES_VERSION}-{digest.hexdigest()[:12]}-{platform_name()}"


def _named(directory: Path) -> Path:
    missing = [name for name in PROGRAMS if not is_complete(directory, [name])]
    if missing:
        raise ToolError(
            f"KUBEBUILDER_ASSETS={directory}: {' and '.join(missing)} is not there, or no program"
        )
    return directory.absolute()


def _build(directory: Path, env: Mapping[str, str]) -> None:
    say("kube-apiserver and etcd for tests: neither given nor cached, so they are built with Go.")
    say("The first build takes three to five minutes on two cores, later ones seconds.")
    go = find_go(GO_MINIMUM, env)
    for program, source in (("etcd", "etcd"), ("kube-apiserver", "apiserver")):
        flags = ["-v", "-mod=readonly", "-trimpath", "-buildvcs=false"]
        linker = " ".join(_linker_flags(program))
        argv = [str(go), "build", *flags, "-ldflags", linker, "-o", str(directory / program), "."]
        run(f"Building {program}", argv, env=go_environment(env), cwd=SOURCES / source)
    _show_versions(directory)


def _linker_flags(program: str) -> list[str]:
    """Without a version of a release, clients refuse the API server or complain."""
    flags = ["-s", "-w"]
    if program == "kube-apiserver":
        major, minor, _ = KUBERNETES_VERSION.split(".")
        known = {"gitVersion": f"v{KUBERNETES_VERSION}", "gitMajor": major, "gitMinor": minor}
        for name, value in known.items():
            flags += ["-X", f"k8s.io/component-base/version.{name}={value}"]
    return flags


def _unpack(archive: str, directory: Path) -> None:
    started = time.monotonic()
    say(f"Unpacking ENVTEST_ARCHIVE {archive} ...")
    with tempfile.TemporaryFile() as copy:
        if archive.startswith(SCHEMES):
            _download(archive, copy)
            copy.seek(0)
            _extract(copy, archive, directory)
        elif "://" in archive:
            raise ToolError(f"ENVTEST_ARCHIVE={archive}: only {', '.join(SCHEMES)} can be read")
        else:
            try:
                with Path(archive).open("rb") as source:
                    _extract(source, archive, directory)
            except OSError as exc:
                raise ToolError(f"ENVTEST_ARCHIVE={archive}: {exc.strerror or exc}") from exc
    _show_versions(directory)
    say(f"Unpacking: done in {time.monotonic() - started:.1f} s")


def _download(url: str, sink: IO[bytes]) -> None:
    started = last = time.monotonic()
    try:
        with urllib.request.urlopen(url, timeout=DOWNLOAD_TIMEOUT_SECONDS) as answered:  # noqa: S310 (schemes are checked)
            while chunk := answered.read(_CHUNK_BYTES):
                sink.write(chunk)
                now = time.monotonic()
                if now - last >= PROGRESS_SECONDS:
                    say(f"  {now - started:.0f} s: {sink.tell() >> 20} MiB")
                    last = now
    except OSError as exc:
        raise ToolError(f"ENVTEST_ARCHIVE={url}: {exc}") from exc


def _extract(source: IO[bytes], archive: str, directory: Path) -> None:
    """Write the two programs, and nothing else that an archive may hold."""
    try:
        with tarfile.open(fileobj=source, mode="r:gz") as unpacked:
            for member in unpacked:
                path = PurePosixPath(member.name)
                content = unpacked.extractfile(member) if member.isfile() else None
                if content is None or path.name not in PROGRAMS:
                    continue
                if path.parts[-3:-1] in LAYOUTS:
                    program = directory / path.name
                    with content, program.open("wb") as sink:
                        shutil.copyfileobj(content, sink)
                    program.chmod(0o755)
    except (tarfile.TarError, EOFError, OSError) as exc:
        raise ToolError(f"ENVTEST_ARCHIVE={archive}: no .tar.gz that can be read: {exc}") from exc
    missing = [name for name in PROGRAMS if not is_complete(directory, [name])]
    if missing:
        places = " or ".join("/".join(layout) for layout in LAYOUTS)
        raise ToolError(
            f"ENVTEST_ARCHIVE={archive}: no {' and no '.join(missing)} below {places} in it"
        )


def _show_versions(directory: Path) -> None:
    """Say what was made, which shows as well that it runs on this machine."""
    for name in PROGRAMS:
        try:
            argv = [str(directory / name), "--version"]
            done = subprocess.run(
                argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
            )
        except OSError as exc:
            raise ToolError(f"{name} does not run on this machine: {exc.strerror}") from exc
        if done.returncode != 0:
            raise ToolError(f"{name} --version failed: {done.stderr.strip()[:500]}")
        say(f"  {name}: {done.stdout.strip().splitlines()[0]}")


if __name__ == "__main__":
    sys.exit(answer(provide))
