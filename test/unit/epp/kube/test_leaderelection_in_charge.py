"""Who stays in charge while the API server is away, and who does not."""

import pytest

from epp.kube.errors import ForbiddenError, TooManyRequestsError
from epp.testing.lease_world import LeaseWorld, Replica, Trouble

DEADLINE = 10.0
AWAY_SECONDS = 60.0


@pytest.fixture
async def world():
    world = LeaseWorld()
    yield world
    await world.close()


async def observed(world: LeaseWorld, replica: Replica, seconds: float) -> list[tuple[bool, bool]]:
    """(is in charge, leads), every tenth of a second."""
    seen = []
    for _ in range(round(seconds * 10)):
        await world.run(0.1)
        seen.append((replica.elector.is_in_charge, replica.elector.is_leader))
    return seen


@pytest.mark.parametrize("kind", ["refused", "request-lost", "answer-lost", "broken"])
async def test_the_last_leader_stays_in_charge_while_nobody_is_answered(
    world: LeaseWorld, kind: str
) -> None:
    a, b = await world.start("a"), await world.start("b")
    await world.run_until_leader(a)
    trouble = Trouble(start=world.timeline.now, seconds=AWAY_SECONDS, kind=kind)
    a.client.troubles = b.client.troubles = [trouble]

    seen = await observed(world, a, AWAY_SECONDS)

    assert all(in_charge for in_charge, _ in seen)
    assert not any(leads for _, leads in seen[round(DEADLINE * 10) :])
    assert not b.elector.is_in_charge


async def test_throttling_is_no_reason_to_leave(world: LeaseWorld) -> None:
    a = await world.start("a")
    await world.run_until_leader(a)
    a.client.fault = lambda _method: TooManyRequestsError("later", status=429)

    seen = await observed(world, a, AWAY_SECONDS)

    assert all(in_charge for in_charge, _ in seen)


async def test_who_is_refused_alone_leaves_with_the_lease(world: LeaseWorld) -> None:
    a = await world.start("a")
    await world.run_until_leader(a)
    a.client.fault = lambda _method: ForbiddenError("not allowed", status=403)

    seen = await observed(world, a, AWAY_SECONDS)

    assert all(in_charge == leads for in_charge, leads in seen)
    assert seen[-1] == (False, False)


async def test_who_was_paused_is_not_in_charge_when_it_wakes(world: LeaseWorld) -> None:
    a, b = await world.start("a"), await world.start("b")
    await world.run_until_leader(a)

    a.process.pause(AWAY_SECONDS)
    await world.run_until_leader(b)
    await world.run(AWAY_SECONDS - world.timeline.now + 1.0)

    assert not a.elector.is_in_charge
    assert b.elector.is_in_charge


async def test_whoever_takes_the_lease_is_the_only_one_in_charge_after_an_outage(
    world: LeaseWorld,
) -> None:
    a, b = await world.start("a"), await world.start("b")
    await world.run_until_leader(a)
    now = world.timeline.now
    a.client.troubles = [Trouble(start=now, seconds=AWAY_SECONDS, kind="refused")]
    b.client.troubles = [Trouble(start=now, seconds=AWAY_SECONDS / 2, kind="refused")]

    await world.run(AWAY_SECONDS + 5.0)

    assert b.elector.is_leader
    assert [a.elector.is_in_charge, b.elector.is_in_charge] == [False, True]


async def test_a_stop_ends_it_although_the_lease_cannot_be_released(world: LeaseWorld) -> None:
    a = await world.start("a")
    await world.run_until_leader(a)
    trouble = Trouble(start=world.timeline.now, seconds=AWAY_SECONDS, kind="refused")
    a.client.troubles = [trouble]
    await world.run(DEADLINE + 5.0)
    before = a.elector.is_in_charge

    await world.stop(a)

    assert before
    assert not a.elector.is_in_charge
