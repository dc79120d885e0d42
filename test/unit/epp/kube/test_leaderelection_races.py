"""Electors against each other: whatever fails, pauses, dies or restarts, never two leaders."""

import asyncio
from collections.abc import Callable
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from epp.testing.lease_world import NETWORK_TROUBLES, LeaseWorld, Replica, Trouble

LEASE = 15.0
DEADLINE = 10.0
RETRY = 2.0
SLOWEST = 0.9
FASTEST = 1.1


TROUBLES = st.lists(
    st.builds(
        Trouble,
        start=st.floats(0.0, 80.0),
        seconds=st.floats(0.1, 25.0),
        kind=st.sampled_from((*NETWORK_TROUBLES, "paused", "stopped", "killed")),
    ),
    max_size=5,
)
CLOCKS = st.tuples(st.floats(-1e6, 1e6), st.floats(SLOWEST, FASTEST))


async def live_through(
    world: LeaseWorld, name: str, clock: tuple[float, float], troubles: list[Trouble], draw: float
) -> None:
    """Start a replica and arrange for everything that will happen to it."""
    offset, speed = clock
    alive = [world.add(name, offset=offset, speed=speed, draw=lambda: draw)]
    await alive[0].elector.start()
    alive[0].client.troubles = [trouble for trouble in troubles if trouble.kind in NETWORK_TROUBLES]
    tasks: list[asyncio.Task[Any]] = []

    async def replace(stop: Callable[[Replica], Any], down_seconds: float) -> None:
        old = alive[-1]
        await stop(old)
        successor = world.add(f"{name}{len(alive)}", offset=offset, speed=speed)
        successor.client.troubles = old.client.troubles
        alive.append(successor)

        def start() -> None:
            tasks.append(asyncio.create_task(successor.elector.start(), name="start"))

        world.timeline.at(world.timeline.now + down_seconds, start)

    def spawn(stop: Callable[[Replica], Any], seconds: float) -> None:
        if alive[-1].process.runs:
            tasks.append(asyncio.create_task(replace(stop, seconds), name="replace"))

    for trouble in troubles:
        what: Callable[[], None] | None = {
            "paused": lambda seconds=trouble.seconds: alive[-1].process.pause(seconds),
            "stopped": lambda seconds=trouble.seconds: spawn(lambda r: r.elector.stop(), seconds),
            "killed": lambda seconds=trouble.seconds: spawn(lambda r: r.kill(), seconds),
        }.get(trouble.kind)
        if what is not None:
            world.timeline.at(trouble.start, what)


PAUSED = Trouble(start=20.0, seconds=20.0, kind="paused")


@example(clocks=((0.0, 1.0), (0.0, 1.0)), troubles=([PAUSED], []), draws=(0.0, 0.0))
@settings(deadline=None, max_examples=60)
@given(
    clocks=st.tuples(CLOCKS, CLOCKS),
    troubles=st.tuples(TROUBLES, TROUBLES),
    draws=st.tuples(st.floats(0.0, 0.99), st.floats(0.0, 0.99)),
)
async def test_never_two_leaders_and_always_one_once_trouble_is_over(
    clocks: tuple[Any, Any],
    troubles: tuple[list[Trouble], list[Trouble]],
    draws: tuple[float, float],
) -> None:
    world = LeaseWorld()
    for name, clock, own, draw in zip("ab", clocks, troubles, draws, strict=True):
        await live_through(world, name, clock, own, draw)

    await world.run(110.0)
    await world.run((LEASE + 2 * RETRY + DEADLINE) / SLOWEST)
    leaders = [replica for replica in world.replicas if replica.leads]
    await world.run(40.0)

    assert len(leaders) == 1
    assert leaders[0].leads
    await world.close()
