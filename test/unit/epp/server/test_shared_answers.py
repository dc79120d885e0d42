"""Answers asked once, believed for a while, good and bad apart."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from epp.server.shared_answers import SharedAnswers
from epp.testing.fake_clock import FakeClock


class Oracle:
    """Counts how often it is asked, and answers when it is told to."""

    def __init__(self, answer: str) -> None:
        self.answer = answer
        self.asked = 0
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def __call__(self) -> str:
        self.asked += 1
        await self.may_answer.wait()
        if self.answer == "boom":
            raise OSError("no answer")
        return self.answer


Answers = SharedAnswers[str, str]


def make(clock: FakeClock, *, max_good: int = 10, max_bad: int = 10) -> Answers:
    return SharedAnswers(
        "test", clock=clock, good_seconds=60, bad_seconds=5, max_good=max_good, max_bad=max_bad
    )


def constant(answer: str) -> Callable[[], Coroutine[Any, Any, str]]:
    async def ask() -> str:
        return answer

    return ask


@pytest.mark.parametrize(
    "answer, seconds, asked",
    [
        pytest.param("yes", 59.9, 1, id="good-is-believed"),
        pytest.param("yes", 60.0, 2, id="good-expires"),
        pytest.param("", 4.9, 1, id="bad-is-believed-too"),
        pytest.param("", 5.0, 2, id="bad-expires-sooner"),
    ],
)
async def test_an_answer_is_believed_for_its_time(answer: str, seconds: float, asked: int) -> None:
    clock, oracle = FakeClock(), Oracle(answer)
    answers = make(clock)

    first = await answers.get("k", oracle)
    clock.advance(seconds)
    second = await answers.get("k", oracle)

    assert (first, second, oracle.asked) == (answer, answer, asked)


async def test_all_who_wait_share_one_question() -> None:
    oracle = Oracle("yes")
    oracle.may_answer.clear()
    answers = make(FakeClock())

    waiting = [asyncio.create_task(answers.get("k", oracle)) for _ in range(5)]
    other = await answers.get("other", constant("too"))
    oracle.may_answer.set()

    assert await asyncio.gather(*waiting) == ["yes"] * 5
    assert (oracle.asked, other) == (1, "too")


async def test_a_failure_reaches_all_who_wait_and_is_not_kept() -> None:
    oracle = Oracle("boom")
    answers = make(FakeClock())

    failed = await asyncio.gather(
        *(answers.get("k", oracle) for _ in range(2)), return_exceptions=True
    )
    oracle.answer = "yes"

    assert [str(error) for error in failed] == ["no answer"] * 2
    assert await answers.get("k", oracle) == "yes"
    assert oracle.asked == 2


async def test_who_goes_away_does_not_end_the_question_of_the_others() -> None:
    oracle = Oracle("yes")
    oracle.may_answer.clear()
    answers = make(FakeClock())
    first = asyncio.create_task(answers.get("k", oracle))
    second = asyncio.create_task(answers.get("k", oracle))
    await asyncio.sleep(0)

    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    oracle.may_answer.set()

    assert await second == "yes"
    assert oracle.asked == 1


async def test_a_failure_that_nobody_waits_for_is_silent(
    caplog: pytest.LogCaptureFixture,
) -> None:
    oracle = Oracle("boom")
    oracle.may_answer.clear()
    answers = make(FakeClock())
    lonely = asyncio.create_task(answers.get("k", oracle))
    await asyncio.sleep(0)

    lonely.cancel()
    oracle.may_answer.set()
    for _ in range(3):
        await asyncio.sleep(0)

    assert caplog.records == []


async def test_bad_answers_never_push_out_good_ones() -> None:
    oracle = Oracle("yes")
    answers = make(FakeClock(), max_bad=3)
    await answers.get("k", oracle)

    for number in range(100):
        await answers.get(f"stranger-{number}", constant(""))
    await answers.get("k", oracle)

    assert oracle.asked == 1


async def test_the_number_of_answers_is_bounded() -> None:
    oracle = Oracle("yes")
    answers = make(FakeClock(), max_good=3)
    await answers.get("k", oracle)

    for number in range(3):
        await answers.get(f"other-{number}", constant("yes"))
    await answers.get("k", oracle)

    assert oracle.asked == 2


async def test_stop_ends_the_questions_under_way() -> None:
    oracle = Oracle("yes")
    oracle.may_answer.clear()
    answers = make(FakeClock())
    waiting = asyncio.create_task(answers.get("k", oracle))
    await asyncio.sleep(0)

    await answers.stop()
    await answers.stop()

    with pytest.raises(asyncio.CancelledError):
        await waiting
