"""A real directory: what an editor, kubectl and a ConfigMap do to it, seen through the caches.

Every wait is for a cache event or a call of on_problems, with a deadline.
"""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from epp.errors import ConfigError
from epp.sources.files import MAX_FILE_BYTES, FileSource

DEADLINE_SECONDS = 20.0
"""Of a wait that must end; generous, the machine may be busy."""

PROMISED_SECONDS = 1.0
"""Within which an edit takes effect."""


def pod(name: str, ip: str = "10.0.0.1") -> str:
    return f"apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nstatus: {{podIP: {ip}}}\n"


def model(model_name: str) -> str:
    return (
        "apiVersion: inference.networking.x-k8s.io/v1alpha2\nkind: InferenceModel\n"
        f"metadata: {{name: a}}\nspec: {{modelName: {model_name}, poolRef: {{name: p}}}}\n"
    )


class Watched:
    """A source, and a bell that rings at every cache event and every count of problems."""

    def __init__(self, directory: Path) -> None:
        self.counts: list[int] = []
        self._bell = asyncio.Event()
        self.source = FileSource(directory, on_problems=self._counted)
        self.source.caches.pods.subscribe(lambda _event: self._bell.set())
        self.source.caches.models.subscribe(lambda _event: self._bell.set())

    def _counted(self, count: int) -> None:
        self.counts.append(count)
        self._bell.set()

    @property
    def pods(self) -> dict[str, str]:
        return {pod.metadata.name: pod.status.pod_ip for pod in self.source.caches.pods.list()}

    @property
    def problems(self) -> list[str]:
        return [str(problem) for problem in self.source.problems]

    async def until(self, reached: Callable[[], bool]) -> float:
        """Wait until it is so; the seconds it took."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not reached():
                self._bell.clear()
                await self._bell.wait()
        return loop.time() - began


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    folder = tmp_path / "manifests"
    folder.mkdir()
    (folder / "a.yaml").write_text(pod("a"))
    return folder


@pytest.fixture
async def watched(directory: Path) -> AsyncIterator[Watched]:
    one = Watched(directory)
    await one.source.start()
    yield one
    await one.source.stop()


def replace_file(path: Path, text: str) -> None:
    """As careful writers do: a temporary file beside it, then a rename."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text)
    temporary.rename(path)


async def test_a_started_source_has_everything(directory: Path) -> None:
    one = Watched(directory)
    before = one.source.caches.pods.has_synced

    await one.source.start()
    after = (one.pods, one.source.caches.pods.has_synced, one.counts)
    await one.source.stop()

    assert not before
    assert after == ({"a": "10.0.0.1"}, True, [0])


async def test_a_file_added_edited_and_deleted_takes_effect_within_a_second(
    watched: Watched, directory: Path
) -> None:
    path = directory / "b.yaml"

    replace_file(path, pod("b", "10.0.0.2"))
    added = await watched.until(lambda: watched.pods.get("b") == "10.0.0.2")
    replace_file(path, pod("b", "10.0.0.3"))
    edit = await watched.until(lambda: watched.pods.get("b") == "10.0.0.3")
    path.unlink()
    deleted = await watched.until(lambda: "b" not in watched.pods)

    assert max(added, edit, deleted) < PROMISED_SECONDS
    assert watched.pods == {"a": "10.0.0.1"}


async def test_a_file_written_in_place_takes_effect(watched: Watched, directory: Path) -> None:
    (directory / "a.yaml").write_text(pod("a", "10.0.0.9"))

    await watched.until(lambda: watched.pods == {"a": "10.0.0.9"})


async def test_a_broken_file_is_told_and_its_objects_stay(
    watched: Watched, directory: Path
) -> None:
    replace_file(directory / "a.yaml", pod("a", "nonsense"))
    await watched.until(lambda: bool(watched.problems))
    broken = (watched.pods, watched.problems)
    replace_file(directory / "a.yaml", pod("a", "10.0.0.2"))
    await watched.until(lambda: not watched.problems)

    assert broken == (
        {"a": "10.0.0.1"},
        ["a.yaml: Pod default/a: status.podIP: is no valid ip (got 'nonsense')"],
    )
    assert watched.pods == {"a": "10.0.0.2"}
    assert watched.counts == [0, 1, 0]


async def test_a_config_map_swap_is_an_edit(tmp_path: Path) -> None:
    mount = tmp_path / "mount"
    for version, ip in (("..v1", "10.0.0.1"), ("..v2", "10.0.0.2")):
        (mount / version).mkdir(parents=True)
        (mount / version / "a.yaml").write_text(pod("a", ip))
    (mount / "..data").symlink_to("..v1")
    (mount / "a.yaml").symlink_to("..data/a.yaml")
    one = Watched(mount)
    await one.source.start()
    before = one.pods

    (mount / "..data_tmp").symlink_to("..v2")
    (mount / "..data_tmp").rename(mount / "..data")
    shutil.rmtree(mount / "..v1")
    await one.until(lambda: one.pods == {"a": "10.0.0.2"})
    await one.source.stop()

    assert before == {"a": "10.0.0.1"}
    assert one.counts == [0, 0]


async def test_nested_folders_are_read_when_they_appear(watched: Watched, directory: Path) -> None:
    (directory / "x" / "y").mkdir(parents=True)
    replace_file(directory / "x" / "y" / "deep.yml", pod("deep"))
    await watched.until(lambda: "deep" in watched.pods)

    shutil.rmtree(directory / "x")
    await watched.until(lambda: "deep" not in watched.pods)


@pytest.mark.parametrize(
    "name",
    ["a.yaml~", ".a.yaml.swp", ".#a.yaml", "#a.yaml#", "4913", "a.yaml.bak", ".hidden/a.yaml"],
)
def test_files_of_editors_and_hidden_ones_are_not_read(directory: Path, name: str) -> None:
    path = directory / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(pod("stray"))
    source = FileSource(directory)

    source.scan()

    assert [found.metadata.name for found in source.caches.pods.list()] == ["a"]


async def test_a_directory_that_is_missing_at_the_start_is_an_error(tmp_path: Path) -> None:
    source = FileSource(tmp_path / "none")

    with pytest.raises(ConfigError, match="--manifests: no such directory .*none"):
        await source.start()
    await source.stop()


async def test_a_directory_removed_keeps_the_state_and_is_found_again(
    watched: Watched, directory: Path, tmp_path: Path
) -> None:
    directory.rename(tmp_path / "elsewhere")
    scanned = watched.source.scan()
    kept = watched.pods

    fresh = tmp_path / "fresh"
    fresh.mkdir()
    (fresh / "b.yaml").write_text(pod("b"))
    fresh.rename(directory)
    await watched.until(lambda: watched.pods == {"b": "10.0.0.1"})
    replace_file(directory / "b.yaml", pod("b", "10.0.0.2"))
    await watched.until(lambda: watched.pods == {"b": "10.0.0.2"})

    assert not scanned
    assert kept == {"a": "10.0.0.1"}


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        pytest.param(
            lambda path: path.write_bytes(b"#" * (MAX_FILE_BYTES + 1)),
            "is larger than 4 MiB",
            id="too-large",
        ),
        pytest.param(
            lambda path: path.write_bytes(b"\x89PNG\xff"), "not UTF-8 text (byte 0)", id="binary"
        ),
        pytest.param(make_fifo, "is no regular file", id="fifo"),
        pytest.param(
            lambda path: path.symlink_to("/proc/self/mem"), "cannot be read: ", id="read-fails"
        ),
    ],
)
def test_a_file_that_cannot_be_used_is_a_problem_and_the_others_count(
    directory: Path, make: Callable[[Path], object], message: str
) -> None:
    make(directory / "b.yaml")
    source = FileSource(directory)

    source.scan()

    [problem] = source.problems
    assert (problem.file, problem.message[: len(message)]) == ("b.yaml", message)
    assert [found.metadata.name for found in source.caches.pods.list()] == ["a"]


def test_a_file_of_the_greatest_size_is_read(directory: Path) -> None:
    text = pod("big")
    (directory / "b.yaml").write_text(text + "#" * (MAX_FILE_BYTES - len(text)))
    source = FileSource(directory)

    source.scan()

    assert source.problems == ()
    assert [found.metadata.name for found in source.caches.pods.list()] == ["a", "big"]


def test_a_dangling_link_is_no_file_and_is_told_once(directory: Path) -> None:
    (directory / "b.yaml").symlink_to("nowhere")
    source = FileSource(directory)

    with capture_logs() as logs:
        source.scan()
        source.scan()

    assert source.problems == ()
    assert [line["file"] for line in logs if "link to nothing" in line["event"]] == ["b.yaml"]


def test_a_scan_without_a_change_does_nothing(directory: Path) -> None:
    counts: list[int] = []
    source = FileSource(directory, on_problems=counts.append)
    source.scan()
    source.caches.mark_synced()

    changed = source.scan()

    assert not changed
    assert counts == [0]


def test_an_emptied_file_is_believed_at_the_second_look(directory: Path) -> None:
    source = FileSource(directory)
    source.scan()
    source.caches.mark_synced()

    (directory / "a.yaml").write_text("")
    source.scan()
    first = len(source.caches.pods.list())
    source.scan()

    assert first == 1
    assert source.caches.pods.list() == []


def test_a_problem_is_logged_once_and_so_is_its_end(directory: Path) -> None:
    source = FileSource(directory)
    with capture_logs() as logs:
        (directory / "b.yaml").write_text("a: [")
        source.scan()
        (directory / "c.yaml").write_text(pod("c"))
        source.scan()
        (directory / "b.yaml").unlink()
        source.scan()

    assert [entry["event"] for entry in logs] == [
        "manifest refused",
        "every manifest is valid again",
    ]


def test_a_replacement_is_a_deletion_and_a_creation(directory: Path) -> None:
    (directory / "m.yaml").write_text(model("old"))
    source = FileSource(directory)
    source.scan()
    seen: list[tuple[bool, bool]] = []
    source.caches.models.subscribe(
        lambda event: seen.append((event.old is not None, event.new is not None))
    )
    seen.clear()

    replace_file(directory / "m.yaml", model("new"))
    source.scan()

    assert seen == [(True, False), (False, True)]


async def test_stopping_ends_the_watch_and_may_be_repeated(directory: Path) -> None:
    before = asyncio.all_tasks()
    source = FileSource(directory)
    await source.start()
    running = asyncio.all_tasks() - before

    await source.stop()
    await source.stop()

    assert [task.get_name() for task in running] == ["manifest watch"]
    assert asyncio.all_tasks() == before


async def test_a_source_that_never_started_stops(directory: Path) -> None:
    await FileSource(directory).stop()


async def test_the_watch_does_not_end_by_itself(watched: Watched, directory: Path) -> None:
    ended = asyncio.ensure_future(watched.source.wait_ended())

    replace_file(directory / "a.yaml", "a: [")
    await watched.until(lambda: bool(watched.problems))

    assert not ended.done()
    ended.cancel()


def test_no_file_keeps_the_others_from_being_read(directory: Path) -> None:
    (directory / "0.yaml").write_text("a: !!bool x\n")
    source = FileSource(directory)

    source.scan()

    assert [found.metadata.name for found in source.caches.pods.list()] == ["a"]
