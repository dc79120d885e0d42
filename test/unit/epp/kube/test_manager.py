"""Order of starting and stopping, and what happens when something fails or ends by itself."""

import asyncio

import pytest
from structlog.testing import capture_logs

from epp.kube.manager import Hook, Loop, Manager, RunnableEndedError


class Recorder:
    """A runnable that writes down what happens to it."""

    def __init__(
        self,
        name: str,
        journal: list[str],
        *,
        start_error: Exception | None = None,
        stop_error: Exception | None = None,
    ) -> None:
        self._name = name
        self._journal = journal
        self._start_error = start_error
        self._stop_error = stop_error

    async def start(self) -> None:
        self._journal.append(f"start {self._name}")
        if self._start_error is not None:
            raise self._start_error

    async def stop(self) -> None:
        self._journal.append(f"stop {self._name}")
        if self._stop_error is not None:
            raise self._stop_error


async def forever() -> None:
    await asyncio.Event().wait()


async def fail() -> None:
    raise OSError("watch lost")


async def test_groups_start_in_order_and_stop_in_reverse() -> None:
    journal: list[str] = []
    manager = Manager()
    manager.add_group("sources", Recorder("a", journal), Recorder("b", journal))
    manager.add_group("controllers", Recorder("c", journal))

    await manager.start()
    await manager.stop()
    await manager.stop()

    assert journal == ["start a", "start b", "start c", "stop c", "stop b", "stop a"]


async def test_a_barrier_holds_back_later_groups() -> None:
    journal: list[str] = []
    synced = asyncio.Event()
    manager = Manager()
    manager.add_group("sources", Recorder("source", journal), Hook(synced.wait))
    manager.add_group("controllers", Recorder("controller", journal))

    starting = asyncio.create_task(manager.start(), name="starting")
    for _ in range(5):
        await asyncio.sleep(0)
    before = list(journal)
    synced.set()
    await starting
    await manager.stop()

    assert before == ["start source"]
    assert journal == ["start source", "start controller", "stop controller", "stop source"]


async def test_a_start_that_fails_stops_what_was_started_and_nothing_else() -> None:
    journal: list[str] = []
    manager = Manager()
    manager.add_group("sources", Recorder("a", journal))
    manager.add_group("servers", Recorder("b", journal, start_error=OSError("port in use")))
    manager.add_group("late", Recorder("c", journal))

    with pytest.raises(OSError, match="port in use"):
        await manager.start()

    assert journal == ["start a", "start b", "stop b", "stop a"]


async def test_a_start_that_is_cancelled_stops_what_was_started() -> None:
    journal: list[str] = []
    manager = Manager()
    manager.add_group("sources", Recorder("a", journal), Hook(forever))
    manager.add_group("late", Recorder("b", journal))
    starting = asyncio.create_task(manager.start(), name="starting")
    for _ in range(5):
        await asyncio.sleep(0)

    starting.cancel()

    with pytest.raises(asyncio.CancelledError):
        await starting
    assert journal == ["start a", "stop a"]


async def test_one_failing_stop_does_not_keep_the_others() -> None:
    journal: list[str] = []
    manager = Manager()
    manager.add_group("a", Recorder("a", journal))
    manager.add_group("b", Recorder("b", journal, stop_error=OSError("stuck")))
    await manager.start()

    with capture_logs() as logs:
        await manager.stop()

    assert journal[-2:] == ["stop b", "stop a"]
    assert [(line["event"], line["group"]) for line in logs] == [("stop failed", "b")]


async def test_a_stop_that_hangs_is_left_behind_with_a_log_line() -> None:
    journal: list[str] = []
    manager = Manager(stop_seconds=0.01)
    manager.add_group("a", Recorder("a", journal))
    manager.add_group("b", Hook(stop=forever))
    await manager.start()

    with capture_logs() as logs:
        await manager.stop()

    assert journal == ["start a", "stop a"]
    assert [(line["event"], line["group"], line["runnable"]) for line in logs] == [
        ("did not stop in time", "b", "Hook")
    ]


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(OSError("watch lost"), id="raises"),
        pytest.param(None, id="returns"),
        pytest.param(asyncio.CancelledError(), id="cancelled-from-outside"),
    ],
)
async def test_a_loop_that_ends_by_itself_is_an_error(error: BaseException | None) -> None:
    gate = asyncio.Event()

    async def run() -> None:
        await gate.wait()
        if error is not None:
            raise error

    manager = Manager()
    manager.add_group("healthy", Loop("healthy", forever))
    manager.add_group("sources", Loop("reflector", run))
    await manager.start()

    gate.set()

    with pytest.raises(RunnableEndedError, match="Loop of group sources") as caught:
        await manager.wait_ended()
    await manager.stop()
    assert caught.value.__cause__ is (error if isinstance(error, OSError) else None)


async def test_a_loop_that_ends_during_the_start_ends_the_start() -> None:
    journal: list[str] = []
    manager = Manager()
    manager.add_group("sources", Recorder("a", journal), Loop("reflector", fail), Hook(forever))
    manager.add_group("controllers", Recorder("b", journal))

    with pytest.raises(RunnableEndedError) as caught:
        await manager.start()

    assert isinstance(caught.value.__cause__, OSError)
    assert journal == ["start a", "stop a"]


async def test_stopping_is_no_end_by_itself() -> None:
    manager = Manager()
    manager.add_group("sources", Loop("reflector", forever))
    await manager.start()
    watching = asyncio.create_task(manager.wait_ended(), name="watching")
    await asyncio.sleep(0)

    await manager.stop()
    await asyncio.sleep(0)

    assert not watching.done()
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)


async def test_no_task_outlives_the_manager() -> None:
    before = asyncio.all_tasks()
    manager = Manager()
    manager.add_group("sources", Loop("one", forever), Loop("two", forever))
    await manager.start()

    await manager.stop()

    assert asyncio.all_tasks() == before


async def test_a_loop_that_was_never_started_can_be_stopped_and_watched() -> None:
    loop = Loop("never", forever)

    await loop.stop()
    await loop.wait_ended()
