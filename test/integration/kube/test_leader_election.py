"""Replicas that agree on a leader: real ``epp serve`` processes and a real Lease.

The Lease is of three seconds. Exactly one replica is ready; the other knows all that the leader
knows, so that it can take over at once.
"""

import asyncio
import itertools
import signal
import time

import pytest

from epp.kube.client import KubeClient
from epp.kube.leaderelection import LeaderElector
from epp.kube.lease import LeaseSettings
from epp.standalone import local_http
from epp.testing import replicas
from epp.testing.api_admin import identity
from epp.testing.kube_manifests import model, pod, pool
from epp.testing.replicas import LEASE_SECONDS
from epp.testing.stack import eventually


@pytest.fixture
def replica(tmp_path, control_plane, account, people):
    """One more replica of the endpoint picker."""
    kubeconfig = control_plane.kubeconfig(account.token)
    names = (f"epp-6b7f9c5d4-x2x9{number}" for number in itertools.count())
    return lambda: replicas.replica(tmp_path, kubeconfig, people.name, next(names))


async def is_ready(epp):
    return await epp.health("readiness") == "SERVING"


async def ready_of(*replicas):
    return [epp for epp in replicas if await is_ready(epp)]


async def view_of(epp):
    return await local_http.get_json("127.0.0.1", epp.metrics_port, "/debug/pool")


async def lease_of(admin, namespace):
    name = f"epp-{namespace}-pool.llm-d.ai"
    return await admin.get(identity("coordination.k8s.io/v1", "Lease", name), namespace=namespace)


async def becomes_ready(epp, *, seconds):
    """Wait for it; how long it took."""
    began = time.monotonic()
    await eventually(lambda: is_ready(epp), seconds=seconds, what="the other replica to be ready")
    return time.monotonic() - began


async def test_one_replica_leads_and_another_takes_over(replica, people, admin, namespace):
    await people.put(pool(), pod("a", "127.0.84.1"), model("m"))
    async with replica() as first, replica() as second:
        await eventually(lambda: ready_of(first, second), what="a leader")
        [leader] = await ready_of(first, second)
        follower = second if leader is first else first

        await a_follower_knows_all(follower, people)
        leads = "epp-6b7f9c5d4-x2x90" if leader is first else "epp-6b7f9c5d4-x2x91"
        assert await reporters(admin, namespace) == {leads}
        await killed(leader)
        await people.put(model("n"))
        waited = await becomes_ready(follower, seconds=LEASE_SECONDS + 2)
        lease = await lease_of(admin, namespace)
        assert lease["spec"]["leaseTransitions"] == 1
        assert waited > 1, "a killed leader cannot have released its Lease"
        await eventually(lambda: in_conflict(people, "n"), what="the status that was owed")

        async with replica() as third:
            await eventually(lambda: knows(third, "a", "b"), what="a warm cache")
            assert not await is_ready(third)
            follower.signal(signal.SIGTERM)
            waited = await becomes_ready(third, seconds=LEASE_SECONDS)
            assert await follower.exit_status() == 0
            assert "lease released" in follower.log_text()
            assert waited < LEASE_SECONDS - 1

            third.signal(signal.SIGTERM)
            assert await third.exit_status() == 0
    lease = await lease_of(admin, namespace)
    assert lease["spec"].get("holderIdentity", "") == ""


async def killed(epp):
    epp.signal(signal.SIGKILL)
    await epp.exit_status()


async def reporters(admin, namespace):
    """Who has written Events: wait for the first one."""

    async def reported():
        listed = await admin.list("events.k8s.io/v1", "Event", namespace=namespace)
        return {event["reportingInstance"] for event in listed}

    return await eventually(reported, what="an Event")


async def in_conflict(people, name):
    stored = await people.admin.get(model(name), namespace=people.name)
    conditions = stored.get("status", {}).get("conditions", ())
    return any(condition["reason"] == "ModelNameInUse" for condition in conditions)


async def knows(epp, *pods):
    return {endpoint["pod"] for endpoint in (await view_of(epp))["endpoints"]} == set(pods)


async def a_follower_knows_all(follower, people):
    assert await follower.health("liveness") == "SERVING"
    assert await follower.health("") == "NOT_SERVING"
    await people.put(pod("b", "127.0.84.2"))
    await eventually(lambda: knows(follower, "a", "b"), what="the follower to see a new pod")
    assert [m["model_name"] for m in (await view_of(follower))["models"]] == ["food"]


async def test_never_more_than_one_is_ready(replica, people):
    await people.put(pool(), pod("a", "127.0.84.1"))
    async with replica() as first, replica() as second:
        await eventually(lambda: ready_of(first, second), what="a leader")
        [leader] = await ready_of(first, second)
        leader.signal(signal.SIGSTOP)
        try:
            follower = second if leader is first else first
            await eventually(lambda: is_ready(follower), seconds=LEASE_SECONDS + 2, what="another")
        finally:
            leader.signal(signal.SIGCONT)
        both = await ready_of(first, second)

    assert both == [follower]


SKEWED = {
    "an-hour-ago": "2020-01-01T00:00:00.000000Z",
    "in-an-hour": "2099-01-01T00:00:00.000000Z",
}


@pytest.fixture
async def elector(account, namespace):
    client = KubeClient(account.connection())
    made = LeaderElector(
        client,
        namespace=namespace,
        name="epp",
        identity="us",
        settings=LeaseSettings(lease_seconds=5, renew_deadline_seconds=3.0, retry_seconds=0.1),
    )
    yield made
    await made.stop()
    await client.close()


def lease(holder, renewed, seconds=1):
    spec = {
        "holderIdentity": holder,
        "leaseDurationSeconds": seconds,
        "acquireTime": renewed,
        "renewTime": renewed,
        "leaseTransitions": 4,
    }
    return {**identity("coordination.k8s.io/v1", "Lease", "epp"), "spec": spec}


@pytest.mark.parametrize("renewed", SKEWED.values(), ids=SKEWED)
async def test_a_clock_that_is_wrong_neither_takes_nor_keeps_a_lease(
    elector, admin, namespace, renewed
):
    await admin.create(lease("them", renewed), namespace=namespace)
    began = time.monotonic()

    await elector.start()
    await eventually(lambda: elector.leader == "them", what="their record to be seen")
    assert not elector.is_leader
    await eventually(lambda: elector.is_leader, what="the lease to lapse")

    assert 1.0 <= time.monotonic() - began < 3.0
    taken = (
        await admin.get(identity("coordination.k8s.io/v1", "Lease", "epp"), namespace=namespace)
    )["spec"]
    assert (taken["holderIdentity"], taken["leaseTransitions"]) == ("us", 5)
    assert taken["leaseDurationSeconds"] == 5


async def test_a_holder_whose_clock_stands_still_keeps_its_lease(elector, admin, namespace):
    """Whatever its times say: a record that changes is a holder that lives."""
    await admin.create(lease("them", SKEWED["an-hour-ago"]), namespace=namespace)
    await elector.start()
    for second in range(1, 6):
        renewed = f"2020-01-01T00:00:{second:02}.000000Z"
        await admin.replace(lease("them", renewed), namespace=namespace)
        await asyncio.sleep(0.3)
        assert not elector.is_leader

    await eventually(lambda: elector.is_leader, what="the lease to lapse")


async def test_a_lease_that_a_person_gives_away_is_let_go(elector, admin, namespace):
    await elector.start()
    await eventually(lambda: elector.is_leader, what="a leader")

    await admin.replace(lease("somebody", SKEWED["in-an-hour"], 3600), namespace=namespace)

    await eventually(lambda: not elector.is_leader, seconds=2, what="no leader")
    assert elector.leader == "somebody"
