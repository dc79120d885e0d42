"""The queue's promises: nothing lost, nothing twice at once, failures wait longer and longer."""

import asyncio
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epp.kube.workqueue import Backoff, QueueShutDownError, WorkQueue
from epp.testing.fake_clock import FakeClock

BACKOFF = Backoff(first_seconds=1.0, max_seconds=60.0, jitter_ratio=0.2)


def no_jitter() -> float:
    return 0.0


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def queue(clock: FakeClock) -> WorkQueue[str]:
    return WorkQueue(backoff=BACKOFF, clock=clock, draw=no_jitter)


async def test_keys_come_out_in_the_order_they_went_in(queue: WorkQueue[str]) -> None:
    for key in ("b", "a", "c"):
        queue.add(key)

    assert [await queue.get() for _ in range(3)] == ["b", "a", "c"]


async def test_a_key_that_waits_is_merged(queue: WorkQueue[str]) -> None:
    queue.add("a")
    queue.add("a")

    assert len(queue) == 1


async def test_a_key_added_while_processed_runs_once_more_and_only_afterwards(
    queue: WorkQueue[str],
) -> None:
    queue.add("a")
    await queue.get()

    queue.add("a")
    queue.add("a")
    waiting_during = len(queue)
    queue.done("a")

    assert waiting_during == 0
    assert len(queue) == 1
    assert await queue.get() == "a"


async def test_done_without_a_new_wish_leaves_the_queue_idle(queue: WorkQueue[str]) -> None:
    queue.add("a")
    await queue.get()
    idle_during = queue.idle

    queue.done("a")

    assert not idle_during
    assert queue.idle


async def test_get_waits_for_a_key(queue: WorkQueue[str]) -> None:
    getter = asyncio.create_task(queue.get(), name="getter")
    await asyncio.sleep(0)
    done_before = getter.done()

    queue.add("a")

    assert not done_before
    assert await getter == "a"


async def test_each_of_two_waiting_workers_gets_a_key(queue: WorkQueue[str]) -> None:
    getters = [asyncio.create_task(queue.get(), name=f"getter {i}") for i in range(2)]
    await asyncio.sleep(0)

    queue.add("a")
    queue.add("b")

    assert sorted(await asyncio.gather(*getters)) == ["a", "b"]


async def test_a_cancelled_worker_loses_no_key(queue: WorkQueue[str]) -> None:
    getter = asyncio.create_task(queue.get(), name="getter")
    await asyncio.sleep(0)

    queue.add("a")
    getter.cancel()
    await asyncio.gather(getter, return_exceptions=True)

    assert await queue.get() == "a"


async def test_a_delayed_key_arrives_at_its_time(queue: WorkQueue[str], clock: FakeClock) -> None:
    queue.add_after("a", 5.0)

    clock.advance(4.9)
    early = len(queue)
    clock.advance(0.1)

    assert early == 0
    assert await queue.get() == "a"


@pytest.mark.parametrize("seconds", [pytest.param(0.0, id="zero"), pytest.param(-1.0, id="past")])
async def test_no_delay_means_now(queue: WorkQueue[str], seconds: float) -> None:
    queue.add_after("a", seconds)

    assert len(queue) == 1


@pytest.mark.parametrize(
    ("delays", "want"),
    [
        pytest.param((5.0, 2.0), 2.0, id="second-is-earlier"),
        pytest.param((2.0, 5.0), 2.0, id="first-is-earlier"),
        pytest.param((2.0, 2.0), 2.0, id="equal"),
    ],
)
async def test_the_earliest_of_two_delays_wins_and_fires_once(
    queue: WorkQueue[str], clock: FakeClock, delays: tuple[float, float], want: float
) -> None:
    for delay in delays:
        queue.add_after("a", delay)

    clock.advance(want)
    arrived = len(queue)
    queue.done(await queue.get())
    clock.advance(60.0)

    assert arrived == 1
    assert len(queue) == 0
    assert clock.pending == 0


@pytest.mark.parametrize(
    ("failures", "want"),
    [
        pytest.param(1, 1.0, id="first"),
        pytest.param(2, 2.0, id="doubles"),
        pytest.param(6, 32.0, id="sixth"),
        pytest.param(7, 60.0, id="capped"),
        pytest.param(100_000, 60.0, id="no-overflow"),
    ],
)
def test_backoff_doubles_up_to_its_cap(failures: int, want: float) -> None:
    assert BACKOFF.delay_seconds(failures, 0.0) == want


@given(failures=st.integers(1, 10_000), draw=st.floats(0, 1, exclude_max=True))
def test_jitter_takes_at_most_its_share_and_never_exceeds_the_cap(
    failures: int, draw: float
) -> None:
    full = BACKOFF.delay_seconds(failures, 0.0)

    assert 0.8 * full <= BACKOFF.delay_seconds(failures, draw) <= full <= 60.0


async def test_retries_wait_longer_each_time_and_per_key(
    queue: WorkQueue[str], clock: FakeClock
) -> None:
    arrivals: list[float] = []
    for _ in range(3):
        before = clock()
        queue.add_rate_limited("a")
        while not len(queue):
            clock.advance(0.5)
        arrivals.append(clock() - before)
        queue.done(await queue.get())
    queue.add_rate_limited("b")
    clock.advance(1.0)

    assert arrivals == [1.0, 2.0, 4.0]
    assert await queue.get() == "b"


async def test_forget_starts_the_backoff_over(queue: WorkQueue[str], clock: FakeClock) -> None:
    for _ in range(4):
        queue.add_rate_limited("a")
    clock.advance(8.0)
    queue.done(await queue.get())

    failures_before = queue.failures("a")
    queue.forget("a")
    queue.add_rate_limited("a")
    clock.advance(1.0)

    assert failures_before == 4
    assert queue.failures("a") == 1
    assert await queue.get() == "a"


async def test_shut_down_drops_what_waits_and_frees_workers(
    queue: WorkQueue[str], clock: FakeClock
) -> None:
    getter = asyncio.create_task(queue.get(), name="getter")
    await asyncio.sleep(0)
    queue.add_after("later", 5.0)

    queue.shut_down()

    with pytest.raises(QueueShutDownError):
        await getter
    assert clock.pending == 0
    assert queue.idle


async def test_nothing_enters_after_shut_down(queue: WorkQueue[str], clock: FakeClock) -> None:
    queue.add("busy")
    await queue.get()
    queue.shut_down()

    queue.add("a")
    queue.add_after("b", 1.0)
    queue.add_rate_limited("c")
    queue.add("busy")
    queue.done("busy")
    clock.advance(60.0)

    assert len(queue) == 0
    with pytest.raises(QueueShutDownError):
        await queue.get()


async def test_the_loops_own_clock_is_the_default() -> None:
    queue: WorkQueue[str] = WorkQueue()

    queue.add_after("a", 0.001)

    assert await queue.get() == "a"


KEYS = st.sampled_from("abc")
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), KEYS),
        st.tuples(st.just("add_after"), KEYS),
        st.tuples(st.just("retry"), KEYS),
        st.tuples(st.just("take"), st.just("")),
        st.tuples(st.just("done"), KEYS),
        st.tuples(st.just("advance"), st.just("")),
    ),
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(steps=STEPS)
def test_a_wish_is_never_lost_and_a_key_is_never_held_twice(steps: list[tuple[str, str]]) -> None:
    """Model: a wish made at some step is followed by a take of the key at a later step."""
    asyncio.run(_check(steps))


async def _check(steps: list[tuple[str, str]]) -> None:
    clock = FakeClock()
    queue: WorkQueue[str] = WorkQueue(backoff=BACKOFF, clock=clock, draw=no_jitter)
    held: list[str] = []
    open_wishes: set[str] = set()
    takes: Counter[str] = Counter()
    wishes: Counter[str] = Counter()

    async def take() -> None:
        key = await queue.get()
        assert key not in held
        held.append(key)
        open_wishes.discard(key)
        takes[key] += 1

    for step, key in steps:
        match step:
            case "add" | "add_after" | "retry":
                open_wishes.add(key)
                wishes[key] += 1
                if step == "add":
                    queue.add(key)
                elif step == "add_after":
                    queue.add_after(key, 3.0)
                else:
                    queue.add_rate_limited(key)
            case "take" if len(queue):
                await take()
            case "done" if key in held:
                held.remove(key)
                queue.done(key)
            case "advance":
                clock.advance(1.0)
    for _ in range(10):
        clock.advance(60.0)
        while len(queue):
            await take()
        for key in list(held):
            held.remove(key)
            queue.done(key)

    assert not open_wishes
    assert queue.idle
    assert all(takes[key] <= wishes[key] for key in wishes)
