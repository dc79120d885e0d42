"""Waiting on conditions."""

import asyncio

import pytest

from epp.modelsim.changes import Changes


async def test_what_is_true_already_is_not_waited_for() -> None:
    await Changes().until(lambda: True, deadline_seconds=0)


async def test_a_waiter_goes_on_with_the_change_that_makes_its_condition_true() -> None:
    changes, seen = Changes(), [0]
    waiting = asyncio.create_task(
        changes.until(lambda: seen[0] == 2, deadline_seconds=5), name="waiter"
    )
    await asyncio.sleep(0)

    seen[0] = 1
    changes.announce()
    await asyncio.sleep(0)
    early = waiting.done()
    seen[0] = 2
    changes.announce()
    await waiting

    assert not early


async def test_a_condition_that_stays_false_times_out_and_is_forgotten() -> None:
    changes = Changes()
    asked: list[str] = []

    def ask() -> bool:
        asked.append("asked")
        return False

    with pytest.raises(TimeoutError):
        await changes.until(ask, deadline_seconds=0.001)
    changes.announce()

    assert asked == ["asked"]
