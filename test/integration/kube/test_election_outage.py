"""Replicas that elect a leader, while the API server is away from all of them."""

import asyncio

import pytest

from epp.testing import replicas
from epp.testing.kube_manifests import pod, pool
from epp.testing.stack import eventually

OUTAGE_SECONDS = 5.0
"""Longer than the Lease of three seconds."""


@pytest.fixture
def replica(tmp_path, control_plane, account, people, faults):
    """One more replica, behind the proxy with faults."""
    kubeconfig = control_plane.kubeconfig(account.token, server=faults.url)

    return lambda name: replicas.replica(tmp_path, kubeconfig, people.name, name)


async def readiness(replicas):
    return [await epp.health("readiness") for epp in replicas]


async def is_led(replicas):
    return "SERVING" in await readiness(replicas)


async def test_the_last_leader_serves_on_while_the_api_server_is_away(replica, people, faults):
    await people.put(pool(), pod("a", "127.0.84.1"))
    async with replica("epp-a") as first, replica("epp-b") as second:
        both = (first, second)
        await eventually(lambda: is_led(both), what="a leader")
        before = await readiness(both)

        await faults.refuse_connections()
        until = asyncio.get_running_loop().time() + OUTAGE_SECONDS
        meanwhile = []
        while asyncio.get_running_loop().time() < until:
            meanwhile.append(await readiness(both))
        leading = [epp.log_text().count("no longer leading") for epp in both]
        await faults.accept_connections()
        leads_again = lambda: "lease can be used again" in first.log_text() + second.log_text()  # noqa: E731
        await eventually(leads_again, seconds=10, what="a Lease that can be used")
        after = await readiness(both)

    assert sorted(before) == ["NOT_SERVING", "SERVING"]
    assert len(meanwhile) > 10
    assert all(seen == before for seen in meanwhile)
    assert sorted(leading) == [0, 1], "who may write has stopped"
    assert sorted(after) == ["NOT_SERVING", "SERVING"]
