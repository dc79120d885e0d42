"""What a controller does with each outcome, and that it survives every reconciler."""

import asyncio
import io
from collections.abc import Awaitable, Callable

import orjson
import pytest
import structlog
from structlog.testing import capture_logs

from epp.kube.cache import ObjectCache
from epp.kube.controller import Controller, Outcome, Result
from epp.kube.errors import ForbiddenError
from epp.kube.workqueue import Backoff, WorkQueue
from epp.logs import configure
from epp.testing.builders import make_pod
from epp.testing.fake_clock import FakeClock
from epp_api.core_v1 import Pod
from epp_api.meta import NamespacedName

KEY = NamespacedName("default", "pod-0")
OTHER = NamespacedName("default", "pod-1")


class Scripted:
    """A reconciler that does what the test says."""

    def __init__(self, act: Callable[[NamespacedName], Awaitable[Result]]) -> None:
        self.keys: list[NamespacedName] = []
        self._act = act

    async def reconcile(self, key: NamespacedName) -> Result:
        self.keys.append(key)
        return await self._act(key)


def returning(result: Result) -> Scripted:
    async def act(_key: NamespacedName) -> Result:
        return result

    return Scripted(act)


def raising(error: Exception) -> Scripted:
    async def act(_key: NamespacedName) -> Result:
        raise error

    return Scripted(act)


class Rig:
    """A controller with a queue on fake time, and what its observer heard."""

    def __init__(self, reconciler: Scripted, *, workers: int = 1) -> None:
        self.clock = FakeClock()
        self.queue: WorkQueue[NamespacedName] = WorkQueue(
            backoff=Backoff(first_seconds=1.0, max_seconds=60.0, jitter_ratio=0.0),
            clock=self.clock,
        )
        self.outcomes: list[tuple[str, str]] = []
        self.controller = Controller(
            "pod",
            reconciler,
            workers=workers,
            on_outcome=lambda name, outcome: self.outcomes.append((name, outcome)),
            queue=self.queue,
        )

    async def process(self) -> Outcome:
        return await self.controller.process(await self.queue.get())


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("reconciler", "want", "retry_after", "failures"),
    [
        pytest.param(returning(Result()), Outcome.SUCCESS, None, 0, id="success-forgets"),
        pytest.param(raising(OSError("no")), Outcome.ERROR, 4.0, 3, id="error-backs-off"),
        pytest.param(returning(Result(requeue=True)), Outcome.REQUEUE, 4.0, 3, id="requeue"),
        pytest.param(
            returning(Result(requeue_after=7.0)), Outcome.REQUEUE_AFTER, 7.0, 0, id="requeue-after"
        ),
        pytest.param(
            returning(Result(requeue=True, requeue_after=7.0)),
            Outcome.REQUEUE_AFTER,
            7.0,
            0,
            id="requeue-after-wins",
        ),
    ],
)
async def test_outcome_decides_when_the_key_comes_back(
    reconciler: Scripted, want: Outcome, retry_after: float | None, failures: int
) -> None:
    rig = Rig(reconciler)
    rig.queue.add_rate_limited(KEY)
    rig.queue.add_rate_limited(KEY)
    rig.clock.advance(2.0)

    outcome = await rig.process()

    assert outcome is want
    assert rig.outcomes == [("pod", want)]
    assert rig.queue.failures(KEY) == failures
    if retry_after is None:
        assert rig.queue.idle
    else:
        rig.clock.advance(retry_after - 0.1)
        assert len(rig.queue) == 0
        rig.clock.advance(0.1)
        assert len(rig.queue) == 1


async def test_a_failure_of_the_api_server_is_one_line() -> None:
    rig = Rig(raising(ForbiddenError("patch pods: no rule", status=403)))
    rig.queue.add(KEY)

    with capture_logs() as logs:
        await rig.process()

    (line,) = logs
    assert line.pop("error").status == 403
    assert line == {
        "logger_name": "epp.kube.controller",
        "event": "reconcile failed",
        "log_level": "error",
        "controller": "pod",
        "key": "default/pod-0",
        "failures": 1,
    }


def divides_by(number: int) -> float:
    return 1 / number


async def test_a_defect_of_a_reconciler_shows_the_way_to_it_once() -> None:
    async def act(key: NamespacedName) -> Result:
        if key == OTHER:
            raise LookupError("another defect")
        divides_by(0)
        return Result()

    rig = Rig(Scripted(act))

    with capture_logs() as logs:
        for key in (KEY, KEY, NamespacedName("default", "pod-2"), OTHER):
            rig.queue.add(key)
            await rig.process()

    shown = ["exception" in line for line in logs]
    assert shown == [True, False, False, True]
    place = f"{__file__}:{divides_by.__code__.co_firstlineno + 1}"
    assert [line["at"] for line in logs[:3]] == [place] * 3
    assert "return 1 / number" in logs[0]["exception"]
    assert logs[0]["exception"].endswith("ZeroDivisionError: division by zero\n")
    assert [line["failures"] for line in logs] == [1, 2, 1, 1]


@pytest.fixture
def output():
    """Log lines as an operator gets them; the configuration is the process's."""
    before = structlog.get_config()
    stream = io.StringIO()
    yield stream
    structlog.configure(**before)


@pytest.mark.parametrize("json", [False, True], ids=["console", "json"])
async def test_both_log_formats_show_the_traceback_and_no_variables(
    output: io.StringIO, json: bool
) -> None:
    async def act(_key: NamespacedName) -> Result:
        password = "s3cr3t"
        return Result(requeue_after=divides_by(len(password) - 6))

    configure(json=json, stream=output)
    rig = Rig(Scripted(act))
    rig.queue.add(KEY)

    await rig.process()

    text = output.getvalue()
    shown = orjson.loads(text)["exception"] if json else text
    assert 'Traceback (most recent call last):\n  File "' in shown
    assert "return 1 / number\n" in shown
    assert "password = " not in shown


async def test_events_pass_the_predicate_and_become_keys() -> None:
    rig = Rig(returning(Result()))
    cache: ObjectCache[Pod] = ObjectCache("Pod")
    cache.upsert(make_pod("pod-0"))

    rig.controller.watch(cache, predicate=lambda event: event.key != OTHER)
    cache.upsert(make_pod("pod-1"))
    cache.upsert(make_pod("pod-2"))
    cache.delete(KEY)

    assert [(await rig.queue.get()).name for _ in range(len(rig.queue))] == ["pod-0", "pod-2"]


async def test_a_mapper_turns_one_event_into_other_keys() -> None:
    rig = Rig(returning(Result()))
    cache: ObjectCache[Pod] = ObjectCache("Pod")

    rig.controller.watch(cache, keys=lambda _event: (KEY, OTHER))
    cache.upsert(make_pod("anything"))

    assert [await rig.queue.get() for _ in range(len(rig.queue))] == [KEY, OTHER]


async def test_a_worker_outlives_a_reconciler_that_raises() -> None:
    async def act(key: NamespacedName) -> Result:
        if key == KEY:
            raise ValueError("bad object")
        return Result()

    reconciler = Scripted(act)
    rig = Rig(reconciler)
    await rig.controller.start()

    rig.queue.add(KEY)
    rig.queue.add(OTHER)
    await settle()
    await rig.controller.stop()

    assert reconciler.keys == [KEY, OTHER]
    assert rig.outcomes == [("pod", "error"), ("pod", "success")]


async def test_two_workers_take_two_keys_but_never_the_same() -> None:
    gate = asyncio.Event()
    running: list[NamespacedName] = []
    overlaps: list[tuple[NamespacedName, ...]] = []

    async def act(key: NamespacedName) -> Result:
        assert key not in running
        running.append(key)
        overlaps.append(tuple(running))
        await gate.wait()
        running.remove(key)
        return Result()

    reconciler = Scripted(act)
    rig = Rig(reconciler, workers=2)
    await rig.controller.start()
    rig.queue.add(KEY)
    await settle()
    rig.queue.add(KEY)
    rig.queue.add(OTHER)
    await settle()
    keys_while_blocked = list(reconciler.keys)

    gate.set()
    await settle()
    await rig.controller.stop()

    assert keys_while_blocked == [KEY, OTHER]
    assert (KEY, OTHER) in overlaps
    assert reconciler.keys == [KEY, OTHER, KEY]


async def test_stop_cancels_what_is_running_and_may_be_repeated() -> None:
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def act(_key: NamespacedName) -> Result:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return Result()

    rig = Rig(Scripted(act))
    await rig.controller.start()
    rig.queue.add(KEY)
    await started.wait()

    await rig.controller.stop()
    await rig.controller.stop()

    assert cancelled.is_set()
    assert rig.queue.idle


class _BrokenQueue(WorkQueue[NamespacedName]):
    """A queue with a defect: nothing of it can be taken."""

    async def get(self) -> NamespacedName:
        raise RuntimeError("queue is broken")


async def test_a_worker_that_dies_is_reported() -> None:
    controller = Controller("pod", returning(Result()), queue=_BrokenQueue())
    await controller.start()

    with pytest.raises(RuntimeError, match="queue is broken"):
        await controller.wait_ended()
    await controller.stop()


async def test_an_observer_that_fails_does_not_end_the_worker() -> None:
    def broken(_name: str, _outcome: str) -> None:
        raise RuntimeError("observer is broken")

    queue: WorkQueue[NamespacedName] = WorkQueue()
    seen: list[NamespacedName] = []
    both = asyncio.Event()

    class Recording:
        async def reconcile(self, key: NamespacedName) -> Result:
            seen.append(key)
            if len(seen) == 2:
                both.set()
            return Result()

    controller = Controller("pod", Recording(), on_outcome=broken, queue=queue)
    await controller.start()

    queue.add(KEY)
    queue.add(NamespacedName("other", "key"))
    await asyncio.wait_for(both.wait(), 5)
    await controller.stop()

    assert seen == [KEY, NamespacedName("other", "key")]
