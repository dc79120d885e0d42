"""``config/default`` with the component ``ha``: one replica serves, the other takes over."""

import asyncio
import contextlib
import json
import ssl

import grpc
import pytest
import pytest_asyncio

from epp.testing.cluster import ClusterError
from epp.testing.ext_proc_client import GATEWAY, ExtProcClient, set_headers
from epp.testing.installation import arguments_patch

pytestmark = pytest.mark.asyncio(loop_scope="session")

LEASE_SECONDS = 5
LEASE_ARGUMENTS = (
    f"--leader-elect-lease-duration={LEASE_SECONDS}s",
    "--leader-elect-renew-deadline=3s",
    "--leader-elect-retry-period=1s",
)
PICK_HEADER = "x-gateway-destination-endpoint"


@pytest_asyncio.fixture(loop_scope="session")
async def pair(install, small):
    """Two replicas in a namespace of their own, beside another installation."""
    installed = await install(
        ready=("ha-modelsim",),
        into="ha",
        overlay="default",
        components=("ha",),
        namespace="ha",
        prefix="ha-",
        patches=(*small, arguments_patch("epp", *LEASE_ARGUMENTS)),
    )
    yield installed
    for manifest in installed.manifests:
        if manifest["kind"] == "Deployment":
            await installed.delete(manifest)
    for pod in (*await installed.pods("epp", ready=False), *await installed.pods("modelsim")):
        await installed.delete(pod, grace_seconds=0)


async def test_when_the_leader_is_killed_the_follower_takes_over(pair):
    leader = await the_only_ready(pair)
    [follower] = [pod for pod in await pair.pods("epp", ready=False) if uid(pod) != uid(leader)]
    before = await pick(pair, leader)

    await pair.cluster.kill(leader, "epp")
    # To the second it is measured in test/integration/kube; here a probe and a busy machine add up.
    after = await pair.wait(
        lambda: takes_over(pair, leader, follower),
        seconds=LEASE_SECONDS + 5,
        what="readiness of the follower",
    )

    servers = {f"{pod['status']['podIP']}:8000" for pod in await pair.pods("modelsim")}
    assert before in servers
    assert await pick(pair, after) in servers
    await pair.wait(
        lambda: is_alone(pair, follower), seconds=60, what="the killed one as a follower"
    )


def uid(pod):
    return pod["metadata"]["uid"]


async def the_only_ready(pair):
    async def found():
        return await pair.pods("epp")

    await pair.wait(found, seconds=60, what="a leader")
    [leader] = await found()
    return leader


async def takes_over(pair, leader, follower):
    """The follower, once it is ready. The leader crashes until then: it could lead again."""
    for pod in await pair.pods("epp"):
        if uid(pod) == uid(follower):
            return pod
    with contextlib.suppress(ClusterError):  # it does not run at the moment
        await pair.cluster.kill(leader, "epp")
    return None


async def is_alone(pair, leader):
    """Both run, one is ready."""
    pods = await pair.pods("epp", ready=False)
    running = [pod for pod in pods if "running" in pod["status"]["containerStatuses"][0]["state"]]
    return len(running) == 2 and [uid(pod) for pod in await pair.pods("epp")] == [uid(leader)]


async def pick(pair, pod):
    """Ask a replica as a gateway of the field does, over TLS; the endpoint it picks."""
    body = json.dumps({"model": "chat", "prompt": "x"}).encode()
    headers = {":method": "POST", ":path": "/v1/completions", "content-type": "application/json"}
    async with pair.cluster.reach(pod, 9002) as (host, port):
        certificate = await asyncio.to_thread(ssl.get_server_certificate, (host, port))
        credentials = grpc.ssl_channel_credentials(certificate.encode())
        options = [("grpc.ssl_target_name_override", "localhost")]
        async with (
            ExtProcClient(port, host=host, credentials=credentials, options=options) as client,
            client.exchange(GATEWAY) as stream,
        ):
            await stream.request_headers(headers)
            await stream.request_body(body)
            return set_headers(await stream.receive())[PICK_HEADER]
