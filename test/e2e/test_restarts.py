"""The EPP restarts, is updated and goes away while requests flow: none that could be served is lost."""

import asyncio

import pytest

from epp.testing.installation import restarts
from epp.testing.traffic import Client, Traffic

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_killed_epp_loses_nothing_of_what_the_model_servers_know(standalone, gateway):
    [pod, *_] = await standalone.pods("epp")
    before = restarts(pod, "epp")

    async with (
        standalone.cluster.reach(pod, 8080) as beside,
        Client(lambda: beside) as neighbour,
        Traffic(gateway, "base") as all_replicas,
        Traffic(neighbour, "base") as its_own_envoy,
    ):
        await its_own_envoy.more(20)
        await standalone.cluster.kill(pod, "epp")
        moment = await its_own_envoy.more(20)

        async def picks_again():
            found = await standalone.find_pod(pod)
            asked = await neighbour.ask_many("chat", 4)
            return restarts(found, "epp") > before and all(a.by_epp for a in asked)

        await standalone.wait(picks_again, seconds=30, what="picks of the new process")
    await standalone.rolled_out("epp")

    assert all_replicas.lost == []
    assert its_own_envoy.lost == []
    assert not all(answer.by_epp for answer in its_own_envoy.since(moment))


async def test_an_update_of_the_epp_loses_nothing(standalone, gateway):
    before = await standalone.pods("epp")
    changed = {"metadata": {"annotations": {"e2e/updated": "yes"}}}

    address = await standalone.cluster.service("inference", "epp-gateway", "http")
    async with (
        Client(address, keep_connections=True) as one_that_stays,
        Client(address, keep_connections=True) as another,
        Traffic(gateway, "chat") as load,
        Traffic(one_that_stays, "chat") as staying,
        Traffic(another, "chat") as staying_too,
    ):
        await load.more(20)
        await standalone.patch("apps/v1", "Deployment", "epp", {"spec": {"template": changed}})
        await standalone.rolled_out("epp", seconds=90)
        for pod in before:
            await gone(standalone, pod)
        await load.more(20)

    after = await standalone.pods("epp")
    for traffic in (load, staying, staying_too):
        assert traffic.lost == []
        assert [a for a in traffic.answers if not a.by_epp] == []
    assert len(after) == len(before) == 2
    assert not {p["metadata"]["uid"] for p in before} & {p["metadata"]["uid"] for p in after}


async def gone(standalone, pod):
    async def is_gone():
        return await standalone.find_pod(pod) is None

    await standalone.wait(is_gone, seconds=70, what=f"the end of {pod['metadata']['name']}")


async def test_a_deleted_replica_finishes_what_it_streams(standalone):
    [pod, *_] = await standalone.pods("epp")

    async with (
        standalone.cluster.reach(pod, 8080) as address,
        Client(lambda: address) as client,
    ):
        begun = [asyncio.Event() for _ in range(4)]
        streams = [
            asyncio.create_task(client.ask("chat", tokens=300, stream=True, begun=event))
            for event in begun
        ]
        await asyncio.gather(*(event.wait() for event in begun))
        await standalone.delete(pod)
        answers = await asyncio.gather(*streams)
    await gone(standalone, pod)
    await standalone.rolled_out("epp")

    assert [a.status for a in answers] == [200] * 4
    assert all(a.text.rstrip().endswith("data: [DONE]") for a in answers)
