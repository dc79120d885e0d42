"""FileSource: a directory of manifests, watched, as a source of objects.

Change notifications make it fast; a cheap look at sizes and times every second makes it
certain. It owns its caches and one task. Nothing a file contains can stop it: what is wrong is
reported once, and the last good state stays.
"""

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from watchfiles import awatch

from epp.errors import ConfigError
from epp.logs import get_logger
from epp.sources.caches import SourceCaches
from epp.sources.kinds import TypeId
from epp.sources.manifest_set import Change, ManifestSet
from epp.sources.problems import ManifestProblem
from epp.sources.validation import ManifestValidator

log = get_logger(__name__)

MAX_FILE_BYTES = 4 * 1024 * 1024
RESCAN_MILLISECONDS = 1000
DEBOUNCE_MILLISECONDS = 50
GONE_SECONDS = 0.5
"""How often to look for a directory that has disappeared."""

SUFFIXES = frozenset({".yaml", ".yml", ".json"})


class Stamp(NamedTuple):
    """A change of any field means other contents, or another right to read them."""

    size: int
    modified_ns: int
    changed_ns: int
    inode: int


def _wall_clock() -> datetime:
    return datetime.now(UTC)


class FileSource:
    """Feeds the caches from a directory.

    Args:
        directory: Looked through recursively; hidden files and folders are skipped.
        default_namespace: Of objects that name none.
        on_problems: Called with the number of current problems after every change.
        wall_clock: First-seen time of objects without a creation timestamp.
    """

    def __init__(
        self,
        directory: Path,
        *,
        default_namespace: str = "default",
        on_problems: Callable[[int], None] = lambda _count: None,
        wall_clock: Callable[[], datetime] = _wall_clock,
    ) -> None:
        self.caches = SourceCaches()
        self._directory = directory
        self._on_problems = on_problems
        self._wall_clock = wall_clock
        self._set = ManifestSet(ManifestValidator(default_namespace))
        self._stamps: dict[str, Stamp] = {}
        self._emptied: set[str] = set()
        self._dangling: set[Path] = set()
        self._problems: tuple[ManifestProblem, ...] = ()
        self._stop = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def problems(self) -> tuple[ManifestProblem, ...]:
        """Everything that is wrong now, by file."""
        return self._problems

    @property
    def broken_pools(self) -> tuple[str, ...]:
        """``namespace/name`` of the pools that cannot be used as they stand now."""
        objects = {problem.object for problem in self._problems}
        prefix = "InferencePool "
        return tuple(sorted(o.removeprefix(prefix) for o in objects if o.startswith(prefix)))

    async def start(self) -> None:
        """Load everything, then watch. Raises ConfigError when there is no such directory."""
        if not self._directory.is_dir():
            raise ConfigError("no such directory", source="--manifests", value=str(self._directory))
        self.scan()
        self.caches.mark_synced()
        self._task = asyncio.create_task(self._watch(), name="manifest watch")

    async def stop(self) -> None:
        """Stop watching. Idempotent."""
        self._stop.set()
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def wait_ended(self) -> None:
        """Wait until watching has ended by itself, which it should not."""
        if self._task is not None:
            await asyncio.shield(self._task)

    def scan(self) -> bool:
        """Look at the directory and take over what changed; True when something did."""
        try:
            found = dict(self._files())
        except OSError as exc:
            log.warning("manifest directory cannot be read, last state stays", error=exc)
            return False
        found = {name: self._settled(name, stamp) for name, stamp in found.items()}
        gone = set(self._stamps) - set(found)
        changed = [name for name, stamp in found.items() if self._stamps.get(name) != stamp]
        if not gone and not changed and self.caches.pods.has_synced:
            return False
        for name in gone:
            self._set.drop_file(name)
        for name in changed:
            self._read(name)
        self._stamps = found
        now = self._wall_clock().isoformat(timespec="microseconds")
        self._publish(self._set.resolve(now))
        return True

    def _settled(self, name: str, stamp: Stamp) -> Stamp:
        """An emptied file is believed at the next look: many writers truncate before they write."""
        known = self._stamps.get(name)
        if stamp.size or not known or not known.size or name in self._emptied:
            self._emptied.discard(name)
            return stamp
        self._emptied.add(name)
        return known

    async def _watch(self) -> None:
        while not self._stop.is_set():
            try:
                await self._watch_until_gone()
            except asyncio.CancelledError:
                raise
            except Exception as exc:  # the notifier fails in its own ways; the scan does not
                log.debug("change notification failed, looking again", error=exc)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), GONE_SECONDS)
            if self._directory.is_dir():
                self.scan()

    async def _watch_until_gone(self) -> None:
        changes = awatch(
            self._directory,
            watch_filter=None,
            debounce=DEBOUNCE_MILLISECONDS,
            step=10,
            stop_event=self._stop,
            rust_timeout=RESCAN_MILLISECONDS,
            yield_on_timeout=True,
        )
        async for _ in changes:
            if not self._directory.is_dir():
                log.warning(
                    "manifest directory is gone, last state stays", path=str(self._directory)
                )
                return
            self.scan()

    def _files(self) -> Iterator[tuple[str, Stamp]]:
        if not self._directory.is_dir():
            raise FileNotFoundError(f"{self._directory} is gone")
        for folder, folders, names in os.walk(self._directory):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in sorted(names):
                path = Path(folder, name)
                if name.startswith(".") or path.suffix not in SUFFIXES:
                    continue
                try:
                    stat = path.stat()
                except OSError:  # gone between two looks, or a link to what is not there
                    self._note_missing(path)
                    continue
                self._dangling.discard(path)
                stamp = Stamp(stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)
                yield str(path.relative_to(self._directory)), stamp

    def _note_missing(self, path: Path) -> None:
        """A link to nothing declares nothing, as when a ConfigMap lost a key; say so once."""
        if path.is_symlink() and path not in self._dangling:
            self._dangling.add(path)
            log.warning("manifest is a link to nothing, ignored", file=path.name)

    def _read(self, name: str) -> None:
        path = self._directory / name
        try:
            if not path.is_file():
                self._set.unreadable(name, "is no regular file")
                return
            if path.stat().st_size > MAX_FILE_BYTES:
                self._set.unreadable(name, f"is larger than {MAX_FILE_BYTES >> 20} MiB")
                return
            self._set.put_file(name, path.read_bytes())
        except OSError as exc:
            self._set.unreadable(name, f"cannot be read: {exc.strerror}")

    def _publish(self, change: Change) -> None:
        for problem in change.problems:
            if problem not in self._problems:
                log.error("manifest refused", problem=str(problem))
        if self._problems and not change.problems:
            log.info("every manifest is valid again")
        self._problems = change.problems
        self._on_problems(len(change.problems))
        by_type: Mapping[TypeId, list[object]] = {t: [] for t in self.caches.by_type}
        for (type_id, key), obj in change.objects.items():
            if (type_id, key) in change.replaced:
                self.caches.by_type[type_id].delete(key)
            by_type[type_id].append(obj)
        for type_id, objects in by_type.items():
            self.caches.by_type[type_id].replace(objects)
