"""Certificates that change while they are watched: every way in which files are replaced."""

import asyncio
import contextlib
import datetime as dt
import hashlib
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from epp.server.cert_reload import CertReloader
from epp.server.tls import CertificatePair, ServingCertificate, load_pair, self_signed_pair

FIRST, SECOND, THIRD = (
    self_signed_pair(names=(name,), now=dt.datetime(2026, 1, 1, tzinfo=dt.UTC))
    for name in ("one", "two", "three")
)


def write(directory: Path, pair: CertificatePair) -> None:
    directory.mkdir(exist_ok=True)
    (directory / "tls.crt").write_bytes(pair.certificate)
    (directory / "tls.key").write_bytes(pair.key)


def rename_into_place(directory: Path, pair: CertificatePair) -> None:
    draft = directory.parent / "draft"
    write(draft, pair)
    for name in ("tls.crt", "tls.key"):
        (draft / name).replace(directory / name)


def publish(directory: Path, pair: CertificatePair) -> None:
    """Do as the kubelet does: a new folder, and a swap of the link ``..data``."""
    version = directory / f"..{hashlib.sha256(pair.certificate).hexdigest()[:8]}"
    write(version, pair)
    link, draft = directory / "..data", directory / "..data_tmp"
    old = link.resolve() if link.exists() else None
    draft.symlink_to(version.name)
    draft.rename(link)
    for name in ("tls.crt", "tls.key"):
        if not (directory / name).exists():
            (directory / name).symlink_to(f"..data/{name}")
    if old is not None:
        shutil.rmtree(old)


class Watched:
    """A watched directory, and the certificate that follows it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.certificate = ServingCertificate(load_pair(directory))
        self.looked = asyncio.Event()
        self.looks = 0

    def reload(self) -> bool:
        self.looks += 1
        self.looked.set()
        return self.certificate.reload(self.directory)

    async def begins(self) -> None:
        """Wait for the watch, which begins in a thread that tells nobody: touch until it sees."""
        probe = self.directory / "probe"
        while not self.looks:
            probe.touch()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.looked.wait(), 0.1)
            probe.unlink()
        seen = -1
        while seen != self.looks:  # until the last touch has been seen, too
            seen = self.looks
            self.looked.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.looked.wait(), 0.2)

    async def serves(self, pair: CertificatePair) -> None:
        """Wait, look by look, until a pair is in use."""
        async with asyncio.timeout(10):
            while self.certificate.pair != pair:
                self.looked.clear()
                await self.looked.wait()


Watch = Callable[..., Awaitable[Watched]]


@pytest.fixture
async def watch() -> AsyncIterator[Watch]:
    running: list[CertReloader] = []

    async def start(directory: Path, *, look_seconds: float = 60.0) -> Watched:
        watched = Watched(directory)
        reloader = CertReloader(
            directory, watched.reload, debounce_milliseconds=50, look_seconds=look_seconds
        )
        await reloader.start()
        running.append(reloader)
        await watched.begins()
        return watched

    yield start
    for reloader in running:
        await reloader.stop()


@pytest.mark.parametrize(
    "place, change",
    [
        pytest.param(write, write, id="overwritten"),
        pytest.param(write, rename_into_place, id="renamed-into-place"),
        pytest.param(publish, publish, id="secret-volume"),
    ],
)
async def test_a_change_is_served(
    tmp_path: Path, watch: Watch, place: Callable[..., None], change: Callable[..., None]
) -> None:
    directory = tmp_path / "certs"
    directory.mkdir()
    place(directory, FIRST)
    watched = await watch(directory)

    for pair in (SECOND, THIRD):
        change(directory, pair)
        await watched.serves(pair)

    assert watched.certificate.pair == THIRD


async def test_two_files_that_change_together_are_one_look(tmp_path: Path, watch: Watch) -> None:
    directory = tmp_path / "certs"
    write(directory, FIRST)
    watched = await watch(directory)
    before = watched.looks

    write(directory, SECOND)
    await watched.serves(SECOND)

    assert watched.looks == before + 1


async def test_a_change_without_a_notification_is_found_by_looking(
    tmp_path: Path, watch: Watch
) -> None:
    elsewhere, directory = tmp_path / "elsewhere", tmp_path / "certs"
    write(elsewhere, FIRST)
    directory.mkdir()
    for name in ("tls.crt", "tls.key"):
        (directory / name).symlink_to(elsewhere / name)
    watched = await watch(directory, look_seconds=0.2)

    write(elsewhere, SECOND)

    await watched.serves(SECOND)


async def test_a_directory_that_comes_back_is_followed_again(tmp_path: Path, watch: Watch) -> None:
    directory = tmp_path / "certs"
    write(directory, FIRST)
    watched = await watch(directory, look_seconds=0.2)

    shutil.rmtree(directory)
    watched.looked.clear()
    await asyncio.wait_for(watched.looked.wait(), 10)
    assert watched.certificate.pair == FIRST
    write(directory, SECOND)
    await watched.serves(SECOND)
    write(directory, THIRD)
    await watched.serves(THIRD)


def test_a_bad_pair_keeps_the_previous_one_and_is_logged_once(tmp_path: Path) -> None:
    write(tmp_path, FIRST)
    watched = Watched(tmp_path)
    reloader = CertReloader(tmp_path, watched.reload)

    with capture_logs() as logs:
        (tmp_path / "tls.key").write_bytes(SECOND.key)
        for _ in range(3):
            reloader.look()
        kept = watched.certificate.pair
        (tmp_path / "tls.crt").write_bytes(SECOND.certificate)
        for _ in range(2):
            reloader.look()

    assert kept == FIRST
    assert watched.certificate.pair == SECOND
    assert [line["event"] for line in logs] == [
        "certificate cannot be served, the previous one stays",
        "certificate reloaded",
    ]
    assert "does not belong to tls.crt" in str(logs[0]["error"])


def test_the_same_fault_after_a_repair_is_logged_again(tmp_path: Path) -> None:
    write(tmp_path, FIRST)
    reloader = CertReloader(tmp_path, Watched(tmp_path).reload)

    with capture_logs() as logs:
        for _ in range(2):
            (tmp_path / "tls.key").write_bytes(b"junk")
            reloader.look()
            write(tmp_path, FIRST)
            reloader.look()

    assert len(logs) == 2


async def test_stop_ends_the_watch_and_may_be_repeated(tmp_path: Path) -> None:
    write(tmp_path, FIRST)
    reloader = CertReloader(tmp_path, Watched(tmp_path).reload)
    await reloader.start()

    await asyncio.wait_for(reloader.stop(), 10)
    await reloader.stop()

    names = {task.get_name() for task in asyncio.all_tasks()}
    assert not any(name.startswith("certificate watch") for name in names)


async def test_a_fault_of_the_program_ends_the_watch_loudly(tmp_path: Path) -> None:
    write(tmp_path, FIRST)

    def broken() -> bool:
        raise ZeroDivisionError

    reloader = CertReloader(tmp_path, broken, debounce_milliseconds=10, look_seconds=0.05)
    await reloader.start()

    with pytest.raises(ZeroDivisionError):
        await asyncio.wait_for(reloader.wait_ended(), 10)
    await reloader.stop()
