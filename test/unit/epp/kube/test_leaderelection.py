"""What an elector does, one situation at a time. Two leaders at once fail every one of them."""

import asyncio

import pytest
from structlog.testing import capture_logs

from epp.kube.leaderelection import new_identity
from epp.kube.manager import Eternal, Manager
from epp.testing.lease_world import LATENCY_SECONDS, LeaseWorld, Trouble

LEASE = 15.0
DEADLINE = 10.0
RETRY = 2.0


@pytest.fixture
async def world():
    world = LeaseWorld()
    yield world
    await world.close()


async def test_the_first_candidate_makes_the_lease_and_leads(world: LeaseWorld) -> None:
    with capture_logs() as logs:
        a = await world.start("a")
        await world.run(1.0)

    assert a.leads
    assert a.changes == [(pytest.approx(4 * LATENCY_SECONDS), True)]
    assert world.store.lease["metadata"]["name"] == "lock"
    assert world.store.spec == {
        "holderIdentity": "a",
        "leaseDurationSeconds": 15,
        "acquireTime": "2023-11-14T22:13:20.010000Z",
        "renewTime": "2023-11-14T22:13:20.010000Z",
        "leaseTransitions": 0,
    }
    assert [line["event"] for line in logs] == ["leading"]


async def test_renewals_keep_everything_but_the_renew_time(world: LeaseWorld) -> None:
    a = await world.start("a")
    await world.run(1.0)
    world.store.lease["metadata"]["labels"] = {"kept": "yes"}
    world.store.spec["strategy"] = "OldestEmulationVersion"
    first = world.store.spec
    await a.kill()
    again = await world.start("a")

    await world.run_until_leader(again)
    await world.run(20.0)

    assert world.store.lease["metadata"]["labels"] == {"kept": "yes"}
    renewed = world.store.spec.pop("renewTime")
    assert renewed > first["renewTime"]
    assert world.store.spec == {k: v for k, v in first.items() if k != "renewTime"}


async def test_a_leader_renews_with_one_request_per_retry_period(world: LeaseWorld) -> None:
    a = await world.start("a")
    await world.run(1.0)
    before = len(a.client.calls)

    await world.run(20.0)

    assert {method for _, method, _ in a.client.calls[before:]} == {"PUT"}
    assert len(a.client.calls) - before in {9, 10}


async def test_the_second_candidate_waits_and_knows_the_leader(world: LeaseWorld) -> None:
    await world.start("a")
    await world.run(1.0)
    b = await world.start("b")

    await world.run(100.0)

    assert not b.leads
    assert b.changes == []
    assert b.elector.leader == "a"
    assert {method for _, method, _ in b.client.calls} == {"GET"}


@pytest.mark.parametrize("phase", [0.0, 0.4, 0.8, 1.2, 1.6, 1.99])
async def test_a_killed_leader_is_replaced_within_the_lease_and_one_retry(
    world: LeaseWorld, phase: float
) -> None:
    a = await world.start("a")
    await world.run(0.3)
    b = await world.start("b", offset=-500.0)
    await world.run(30.0 + phase)

    await a.kill()
    took = await world.run_until_leader(b)

    assert DEADLINE < took < LEASE + RETRY + 0.1
    assert world.store.spec["leaseTransitions"] == 1


async def test_a_clean_stop_hands_over_within_a_retry_period(world: LeaseWorld) -> None:
    a = await world.start("a")
    await world.run(1.0)
    b = await world.start("b")
    await world.run(30.7)

    await world.stop(a)
    released = dict(world.store.writes[-1]["spec"]) if not b.leads else None
    took = await world.run_until_leader(b)

    assert took < RETRY
    assert a.changes[-1][1] is False
    assert [
        w["spec"]["holderIdentity"]
        for w in world.store.writes
        if w["spec"]["holderIdentity"] != "a"
    ][:2] == ["", "b"]
    free = next(w["spec"] for w in world.store.writes if not w["spec"]["holderIdentity"])
    assert free["leaseDurationSeconds"] == 1
    assert released is None or released == free
    assert world.store.spec["leaseTransitions"] == 1


async def test_a_leader_stops_leading_before_it_releases(world: LeaseWorld) -> None:
    a = await world.start("a")
    await world.run(1.0)

    await world.stop(a)
    await a.elector.stop()

    assert a.holders == ["a", "a"]
    assert world.store.holder == ""


async def test_a_candidate_that_never_wrote_releases_nothing(world: LeaseWorld) -> None:
    await world.start("a")
    await world.run(1.0)
    b = await world.start("b")
    await world.run(10.0)
    calls = len(b.client.calls)

    await world.stop(b)

    assert len(b.client.calls) == calls
    assert world.store.holder == "a"


async def test_a_stop_in_the_middle_of_the_first_write_still_releases(world: LeaseWorld) -> None:
    a = await world.start("a")
    a.client.troubles = [Trouble(start=2 * LATENCY_SECONDS, seconds=1.0, kind="answer-lost")]
    await world.run(0.5)
    in_doubt = (world.store.holder, a.leads)
    a.client.troubles = []

    await world.stop(a)

    assert in_doubt == ("a", False)
    assert world.store.holder == ""


async def test_an_unreachable_server_does_not_keep_a_stop_waiting(world: LeaseWorld) -> None:
    a = await world.start("a")
    await world.run(1.0)
    a.client.troubles = [Trouble(start=0.0, seconds=1e9, kind="request-lost")]

    with capture_logs() as logs:
        stopping = asyncio.create_task(a.elector.stop(), name="stop")
        await world.run(0.1)
        leads_meanwhile = a.leads
        await world.run(DEADLINE)

    assert not leads_meanwhile
    assert stopping.done()
    assert "lease not released, others wait until it lapses" in [line["event"] for line in logs]


@pytest.mark.parametrize("kind", ["refused", "request-lost", "answer-lost", "broken"])
async def test_a_leader_that_cannot_renew_stops_at_the_deadline_and_comes_back(
    world: LeaseWorld, kind: str
) -> None:
    a = await world.start("a")
    await world.run(31.0)
    last_sent = a.client.calls[-1][0]
    a.client.troubles = [Trouble(start=world.timeline.now, seconds=30.0, kind=kind)]

    with capture_logs() as logs:
        await world.run(29.0)
        lost_at = a.changes[-1]
        await world.run(10.0)

    assert lost_at == (pytest.approx(last_sent + DEADLINE), False)
    assert a.leads
    events = [line["event"] for line in logs]
    assert events.count("lease cannot be used, trying again") == 1
    assert events.index("no longer leading") < events.index("lease can be used again")


async def test_every_call_of_a_leader_ends_within_its_deadline(world: LeaseWorld) -> None:
    a = await world.start("a")
    await world.run(31.0)
    last_sent = a.client.calls[-1][0]
    a.client.troubles = [Trouble(start=world.timeline.now, seconds=60.0, kind="request-lost")]
    before = len(a.client.calls)

    await world.run(DEADLINE - 1.0)

    ends = [start + timeout for start, _, timeout in a.client.calls[before:]]
    assert len(ends) >= 2
    assert all(end <= last_sent + DEADLINE + 1e-6 for end in ends)


async def test_a_paused_leader_knows_at_once_that_it_leads_no_more(world: LeaseWorld) -> None:
    a = await world.start("a")
    await world.run(31.0)

    a.process.pause(12.0)
    world.timeline.now += 12.0

    assert a.process.runs
    assert not a.elector.is_leader


async def test_an_answer_that_is_older_than_the_deadline_does_not_make_a_leader(
    world: LeaseWorld,
) -> None:
    a = await world.start("a")
    await world.run(2.5 * LATENCY_SECONDS)
    resumes_at = world.timeline.now + 12.0

    a.process.pause(12.0)
    await world.run(20.0)

    assert a.client.calls[1][1] == "POST"
    assert a.changes == [(pytest.approx(resumes_at + RETRY + 4 * LATENCY_SECONDS), True)]


async def test_a_lost_answer_to_the_first_write_is_found_out_by_reading(world: LeaseWorld) -> None:
    a = await world.start("a")
    a.client.troubles = [Trouble(start=2 * LATENCY_SECONDS, seconds=1.0, kind="answer-lost")]

    await world.run(20.0)

    assert a.leads
    assert world.store.spec["leaseTransitions"] == 0


async def test_two_candidates_that_race_for_a_free_lease_agree(world: LeaseWorld) -> None:
    a = await world.start("a")
    b = await world.start("b")

    await world.run(10.0)

    assert a.leads
    assert b.elector.leader == "a"


async def test_a_conflict_makes_a_leader_read_and_go_on(world: LeaseWorld) -> None:
    a = await world.start("a")
    await world.run(1.0)
    world.store.store({**world.store.lease, "metadata": {"name": "lock", "labels": {"x": "y"}}})

    await world.run(3.0)

    assert a.changes == [(pytest.approx(4 * LATENCY_SECONDS), True)]
    assert world.store.lease["metadata"]["labels"] == {"x": "y"}


async def test_a_lease_taken_by_force_is_given_up(world: LeaseWorld) -> None:
    a = await world.start("a")
    await world.run(1.0)
    world.store.spec["holderIdentity"] = "thief"
    world.store.store(world.store.lease)

    await world.run(RETRY)

    assert not a.leads
    assert a.elector.leader == "thief"


async def test_a_deleted_lease_is_made_again_by_its_holder(world: LeaseWorld) -> None:
    a = await world.start("a")
    await world.run(1.0)
    b = await world.start("b")
    await world.run(30.0)
    acquired = world.store.spec["acquireTime"]

    world.store.lease = None
    await world.run(30.0)

    assert a.changes == [(pytest.approx(4 * LATENCY_SECONDS), True)]
    assert not b.changes
    assert world.store.spec["acquireTime"] == acquired


async def test_a_deleted_lease_of_a_dead_leader_is_waited_for_as_if_it_were_there(
    world: LeaseWorld,
) -> None:
    a = await world.start("a")
    await world.run(1.0)
    b = await world.start("b")
    await world.run(30.0)
    await a.kill()

    world.store.lease = None
    took = await world.run_until_leader(b)

    assert LEASE < took < LEASE + 2 * RETRY
    assert world.store.spec["leaseTransitions"] == 1


async def test_it_is_a_runnable_of_the_manager(world: LeaseWorld) -> None:
    replica = world.add("a")
    manager = Manager()
    manager.add_group("election", replica.elector)

    await manager.start()
    await world.run(1.0)
    led = replica.leads
    stopping = asyncio.create_task(manager.stop(), name="stop")
    await world.run(1.0)
    await stopping

    assert isinstance(replica.elector, Eternal)
    assert led
    assert world.store.holder == ""


def test_identities_are_unique() -> None:
    assert new_identity() != new_identity()
