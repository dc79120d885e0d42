"""The driver of the step model: when it steps, whom it tells, what it survives."""

import asyncio
from collections.abc import Callable

import pytest

from epp.modelsim.engine import Engine
from epp.modelsim.sequence import Sequence, SequenceState
from epp.modelsim.step_model import EngineSettings, StepModel
from epp.modelsim.vllm_metrics import VllmMetrics


class Clock:
    """Time that only the test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def engine(clock: Clock) -> Engine:
    settings = EngineSettings(
        prefill_tokens_per_second=1000.0, decode_step_seconds=0.001, decode_growth_ratio=0.0
    )
    model = StepModel(settings)
    metrics = VllmMetrics(
        model, model_name="m", has_loras=False, page_bytes=0, wall_clock=lambda: 0.0
    )
    return Engine(model, metrics, clock=clock, changed=lambda: None)


def sequence(output: int = 1000) -> Sequence:
    return Sequence(prompt_tokens=1, output_tokens=output)


def when_generated(count: int) -> tuple[Callable[[Sequence], None], asyncio.Future[None]]:
    """Return a listener, and what is done when it has seen this many tokens."""
    reached = asyncio.get_running_loop().create_future()

    def listen(item: Sequence) -> None:
        if item.generated >= count and not reached.done():
            reached.set_result(None)

    return listen, reached


async def test_steps_shorter_than_a_timer_are_made_up_for(engine: Engine, clock: Clock) -> None:
    item = sequence()
    listener, reached = when_generated(50)
    engine.submit(item, listener)
    await asyncio.sleep(0)

    clock.now += 0.0505
    await reached

    assert item.generated == 50
    assert item.first_token_at == pytest.approx(100.001)
    assert item.last_token_at == pytest.approx(100.050)
    engine.stop()


async def test_a_machine_that_stalls_does_not_make_the_engine_rush(
    engine: Engine, clock: Clock
) -> None:
    item = sequence()
    listener, reached = when_generated(1)
    engine.submit(item, listener)
    await asyncio.sleep(0)

    clock.now += 60.0
    await reached

    assert item.generated == 1
    assert item.last_token_at == 160.0
    engine.stop()


async def test_requests_of_one_turn_share_the_first_step(engine: Engine) -> None:
    items = [sequence() for _ in range(3)]
    for item in items:
        engine.submit(item, lambda _: None)

    await asyncio.sleep(0)

    assert engine.model.num_running == 3
    engine.stop()


async def test_an_idle_engine_sets_no_timer(engine: Engine, clock: Clock) -> None:
    item = sequence(output=2)
    listener, reached = when_generated(2)
    engine.submit(item, listener)
    await asyncio.sleep(0)
    clock.now += 0.05
    await reached

    assert item.state is SequenceState.FINISHED
    assert engine.is_idle


async def test_an_engine_that_was_idle_starts_again(engine: Engine, clock: Clock) -> None:
    for _ in range(2):
        listener, reached = when_generated(1)
        engine.submit(sequence(output=1), listener)
        await asyncio.sleep(0)
        clock.now += 0.01
        await reached

    assert engine.is_idle


async def test_a_listener_may_submit_and_abort(engine: Engine, clock: Clock) -> None:
    first, second, third = sequence(), sequence(), sequence(output=1)
    listener, reached = when_generated(1)

    def swap(item: Sequence) -> None:
        engine.abort(item)
        engine.abort(second)
        engine.submit(third, listener)

    engine.submit(first, swap)
    engine.submit(second, lambda _: pytest.fail("was aborted"))
    await asyncio.sleep(0)
    clock.now += 0.05
    while not reached.done():
        clock.now += 0.05
        await asyncio.sleep(0)

    assert [item.state for item in (first, second, third)] == [
        SequenceState.ABORTED,
        SequenceState.ABORTED,
        SequenceState.FINISHED,
    ]


async def test_a_broken_listener_costs_only_its_own_sequence(
    engine: Engine, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    broken, sound = sequence(), sequence()
    listener, reached = when_generated(2)

    def fail(_: Sequence) -> None:
        raise RuntimeError("boom")

    engine.submit(broken, fail)
    engine.submit(sound, listener)
    await asyncio.sleep(0)
    clock.now += 0.05
    await reached

    captured = capsys.readouterr()
    assert (broken.state, sound.state) == (SequenceState.ABORTED, SequenceState.RUNNING)
    assert "reply failed" in captured.out + captured.err
    engine.stop()


async def test_stopping_frees_everything(engine: Engine) -> None:
    items = [sequence() for _ in range(3)]
    for item in items:
        engine.submit(item, lambda _: None)
    await asyncio.sleep(0)

    engine.stop()

    assert all(item.state is SequenceState.ABORTED for item in items)
    assert engine.is_idle
    assert engine.model.cache.used_blocks == 0
