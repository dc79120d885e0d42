"""The engine on a clock of the test's own."""

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epp.modelsim.kv_cache import block_hashes
from epp.modelsim.sequence import Sequence, SequenceState
from epp.modelsim.step_model import EngineSettings, StepModel

EXACT = EngineSettings(
    max_num_seqs=4,
    max_num_batched_tokens=1000,
    num_gpu_blocks=100,
    block_size=4,
    prefill_tokens_per_second=100.0,
    decode_step_seconds=1.0,
    decode_growth_ratio=0.5,
)


def engine(**changes: Any) -> StepModel:
    return StepModel(replace(EXACT, **changes))


def sequence(
    prompt: int = 8, output: int = 2, *, text: bytes | None = None, adapter: str | None = None
) -> Sequence:
    hashes = block_hashes(text, block_size=4, adapter=adapter) if text else ()
    tokens = len(text) // 4 if text else prompt
    return Sequence(prompt_tokens=tokens, output_tokens=output, hashes=hashes, adapter=adapter)


def submit(model: StepModel, *sequences: Sequence, at: float = 0.0) -> None:
    for item in sequences:
        model.submit(item, at)


def run(model: StepModel, at: float = 0.0, *, steps: int = 10_000) -> tuple[float, list[float]]:
    """Run until there is nothing to do; returns the time and the durations."""
    durations: list[float] = []
    while len(durations) < steps:
        duration = model.begin_step(at)
        if duration is None:
            break
        at += duration
        durations.append(duration)
        model.end_step(at)
        assert 0.0 <= model.cache.usage_ratio <= 1.0
    return at, durations


@pytest.mark.parametrize(
    ("prompts", "output", "want"),
    [
        pytest.param([100], 1, [1.0], id="prefill-gives-the-first-token"),
        pytest.param([100], 3, [1.0, 1.0, 1.0], id="then-a-token-a-step"),
        pytest.param([100, 100], 2, [2.0, 1.5], id="two-share-a-step-that-grows-mildly"),
        pytest.param([100] * 3, 2, [3.0, 2.0], id="three"),
    ],
)
def test_a_step_takes_its_prefill_and_its_batch(
    prompts: list[int], output: int, want: list[float]
) -> None:
    model = engine()
    submit(model, *(sequence(prompt, output) for prompt in prompts))

    _, durations = run(model)

    assert durations == pytest.approx(want)


def test_speed_divides_every_duration() -> None:
    slow, fast = engine(), engine(speed=10.0)
    for model in (slow, fast):
        submit(model, sequence(100, 5), sequence(50, 5))

    slow_end, _ = run(slow)
    fast_end, _ = run(fast)

    assert slow_end == pytest.approx(10 * fast_end)


def test_a_long_prompt_is_computed_in_pieces_while_others_decode() -> None:
    model = engine(max_num_batched_tokens=11, num_gpu_blocks=1000)
    short, long = sequence(4, 10), sequence(20, 1)
    submit(model, short)
    run(model, steps=1)

    submit(model, long)
    run(model, steps=1)

    assert (short.generated, long.generated, long.prefill_left) == (2, 0, 10)
    run(model, steps=1)
    assert (short.generated, long.generated) == (3, 1)


def test_the_batch_is_bounded_and_the_queue_is_in_order() -> None:
    model = engine(max_num_seqs=2)
    items = [sequence(8, 3) for _ in range(5)]
    submit(model, *items)

    run(model, steps=1)

    assert [item.state for item in items[:3]] == [
        SequenceState.RUNNING,
        SequenceState.RUNNING,
        SequenceState.WAITING,
    ]
    assert (model.num_running, model.num_waiting) == (2, 3)
    run(model)
    starts = [item.admitted_at for item in items]
    assert starts == sorted(starts)


def test_output_has_exactly_the_length_that_was_asked_for() -> None:
    model = engine()
    items = [sequence(8, length) for length in (1, 2, 7)]
    submit(model, *items)

    run(model)

    assert [item.generated for item in items] == [1, 2, 7]
    assert all(item.state is SequenceState.FINISHED for item in items)


def test_a_sequence_without_output_ends_with_its_prefill() -> None:
    model = engine()
    item = sequence(100, 0)
    submit(model, item)

    end, _ = run(model)

    assert (end, item.generated, item.state) == (1.0, 0, SequenceState.FINISHED)


def test_times_of_a_sequence_are_those_of_its_steps() -> None:
    model = engine(max_num_seqs=1)
    first, second = sequence(100, 2), sequence(100, 2)
    submit(model, first, second)

    run(model)

    assert (first.arrived_at, first.admitted_at) == (0.0, 0.0)
    assert (first.first_token_at, first.last_token_at) == (1.0, 2.0)
    assert (second.admitted_at, second.first_token_at, second.last_token_at) == (2.0, 3.0, 4.0)
    assert second.previous_token_at == 3.0


def test_a_repeated_prompt_is_computed_only_from_its_last_block_on() -> None:
    model = engine()
    text = b"x" * 400
    first, second = sequence(text=text), sequence(text=text)
    submit(model, first)
    end, _ = run(model)

    submit(model, second, at=end)
    _, durations = run(model, end)

    assert (first.cached_tokens, second.cached_tokens) == (0, 96)
    assert durations[0] == pytest.approx(4 / 100)


def test_a_running_sequence_shares_the_blocks_it_has_computed() -> None:
    model = engine()
    first, second = sequence(text=b"x" * 400, output=10), sequence(text=b"x" * 400 + b"y" * 16)
    submit(model, first)
    run(model, steps=1)

    submit(model, second)
    run(model, steps=1)

    assert second.cached_tokens == 100
    assert model.cache.used_blocks == first.held_blocks + second.held_blocks - 25


def test_a_longer_chat_hits_the_shorter_one() -> None:
    model = engine()
    submit(model, sequence(text=b"a" * 160))
    end, _ = run(model)
    longer = sequence(text=b"a" * 160 + b"b" * 80)

    submit(model, longer, at=end)
    run(model, end)

    assert longer.cached_tokens == 40


def test_old_prefixes_are_evicted_when_the_cache_is_full() -> None:
    model = engine(num_gpu_blocks=30)
    text = b"a" * 320
    submit(model, sequence(text=text))
    end, _ = run(model)
    submit(model, sequence(text=b"b" * 400), at=end)
    end, _ = run(model, end)
    again = sequence(text=text)

    submit(model, again, at=end)
    run(model, end)

    assert again.cached_tokens < 76


def test_nothing_stays_in_use_when_everything_is_done() -> None:
    model = engine()
    submit(model, *(sequence(text=b"z" * 100, output=9) for _ in range(9)))

    run(model)

    assert (model.num_running, model.num_waiting, model.cache.used_blocks) == (0, 0, 0)


def test_a_sequence_waits_until_its_prompt_fits_the_free_blocks() -> None:
    model = engine(num_gpu_blocks=10)
    first, second = sequence(32, 4), sequence(16, 1)
    submit(model, first, second)

    run(model, steps=1)

    assert (first.state, second.state) == (SequenceState.RUNNING, SequenceState.WAITING)
    run(model)
    assert second.state is SequenceState.FINISHED


def test_without_a_free_block_the_youngest_sequence_is_preempted_and_finishes_later() -> None:
    model = engine(num_gpu_blocks=10)
    old, young = sequence(16, 20), sequence(16, 20)
    submit(model, old, young)

    run(model)

    assert (old.preemptions, young.preemptions) == (0, 1)
    assert (old.generated, young.generated) == (20, 20)
    assert old.last_token_at < young.last_token_at
    assert model.num_preemptions == 1


@pytest.mark.parametrize("state", ["waiting", "running", "planned"])
def test_an_abort_frees_everything_at_once(state: str) -> None:
    model = engine(max_num_seqs=1)
    kept, gone = sequence(8, 5), sequence(8, 5)
    submit(model, *((kept, gone) if state == "waiting" else (gone,)))
    run(model, steps=1)
    if state == "planned":
        model.begin_step(1.0)

    aborted = model.abort(gone)

    assert aborted
    assert gone.held_blocks == 0
    assert model.num_waiting == 0
    assert model.num_running == (1 if state == "waiting" else 0)
    assert model.cache.used_blocks == kept.held_blocks
    assert model.end_step(2.0).advanced == ()


def test_an_abort_after_the_end_does_nothing() -> None:
    model = engine()
    item = sequence()
    submit(model, item)
    run(model)

    assert not model.abort(item)
    assert item.state is SequenceState.FINISHED


def test_an_adapter_that_does_not_fit_is_passed_over() -> None:
    model = engine(max_loras=1)
    sql, chat, base = sequence(adapter="sql"), sequence(adapter="chat"), sequence()
    submit(model, sql, chat, base)

    run(model, steps=1)

    assert [item.state for item in (sql, chat, base)] == [
        SequenceState.RUNNING,
        SequenceState.WAITING,
        SequenceState.RUNNING,
    ]
    assert (model.num_deferred, model.waiting_adapters) == (1, ["chat"])
    run(model)
    assert chat.state is SequenceState.FINISHED


def test_loading_an_adapter_costs_its_swap_once() -> None:
    model = engine(max_loras=1, lora_swap_seconds=7.0)
    durations: list[float] = []
    end = 0.0
    for adapter in ("sql", "sql", "chat", "sql"):
        submit(model, sequence(100, 1, adapter=adapter), at=end)
        end, steps = run(model, end)
        durations += steps

    assert durations == pytest.approx([8.0, 1.0, 8.0, 8.0])


@pytest.mark.parametrize(
    "item",
    [
        pytest.param(sequence(399, 2), id="longer-than-the-cache"),
        pytest.param(sequence(adapter="sql"), id="adapter-without-slots"),
    ],
)
def test_what_can_never_run_is_refused(item: Sequence) -> None:
    with pytest.raises(ValueError, match="engine|sequence"):
        engine().submit(item, 0.0)


def test_an_idle_engine_has_nothing_to_do() -> None:
    assert engine().begin_step(0.0) is None


ARRIVALS = st.lists(
    st.tuples(
        st.integers(1, 60),  # prompt blocks' worth of tokens
        st.integers(0, 30),  # output tokens
        st.sampled_from([None, "sql", "chat", "code"]),
        st.integers(0, 3),  # steps before the next arrival
        st.integers(0, 40),  # step of the abort; mostly beyond the end
    ),
    max_size=25,
)


@given(ARRIVALS, st.integers(1, 5), st.integers(1, 3), st.integers(5, 64))
@settings(max_examples=300, deadline=None)
def test_accounting_holds_for_any_arrivals_and_aborts(
    arrivals: list[tuple[int, int, str | None, int, int]],
    max_seqs: int,
    max_loras: int,
    budget: int,
) -> None:
    model = engine(
        num_gpu_blocks=24,
        max_num_seqs=max_seqs,
        max_loras=max_loras,
        max_num_batched_tokens=budget,
    )
    items: list[Sequence] = []
    at = 0.0
    for prompt, output, adapter, steps, abort_after in arrivals:
        item = sequence(text=b"p" * 4 * prompt, output=output, adapter=adapter)
        submit(model, item, at=at)
        items.append(item)
        at, _ = run(model, at, steps=steps)
        assert model.cache.used_blocks <= sum(one.held_blocks for one in items)
        if abort_after < len(items):
            model.abort(items[abort_after])
    run(model, at)

    assert all(item.is_over for item in items)
    assert model.cache.used_blocks == 0
    assert model.adapters.running == []
    for item in items:
        if item.state is SequenceState.FINISHED:
            assert item.generated == item.output_tokens
            assert item.arrived_at <= item.admitted_at <= item.first_token_at <= item.last_token_at
        assert math.isnan(item.first_token_at) or item.first_token_at > item.arrived_at
