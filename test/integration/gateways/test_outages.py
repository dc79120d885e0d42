"""What happens on each gateway when something is missing: pods, room, or the EPP itself.

Envoy knows both pods from the start and hears of no change, as if its control plane were slow, so
that only the EPP's picks keep requests off a pod (on kgateway's lean path the EPP tells it as
well). Every test leaves the gateway as it found it.
"""

import asyncio
import json

import pytest
import pytest_asyncio

from epp.standalone import local_http
from epp.testing.gateway import Gateway
from epp.testing.gateway_envoy import FLAVOURS
from epp.testing.stack import Manifests, Sims, eventually

pytestmark = [pytest.mark.envoy, pytest.mark.asyncio(loop_scope="module")]

SIM_ARGUMENTS = ["--model", "tiny", "--max-num-seqs", "1", "--speed", "5"]
PATHS = ("/v1/completions", "/v1/models")


class Site:
    """A gateway, its pods and the manifests its EPP reads."""

    def __init__(self, gateway: Gateway, sims: Sims, manifests: Manifests) -> None:
        self.gateway, self.sims, self.manifests = gateway, sims, manifests

    async def send(self, path=PATHS[0], *, model="tiny", max_tokens=1, forged=None):
        """One request, perhaps with a routing header that only the EPP may set."""
        headers = {"content-type": "application/json"}
        if forged is not None:
            headers["x-gateway-destination-endpoint"] = f"{forged}:{self.sims.port}"
        body = {"model": model, "prompt": "x", "max_tokens": max_tokens}
        get = path == "/v1/models"
        return await local_http.request(
            "127.0.0.1",
            self.gateway.port,
            "GET" if get else "POST",
            path,
            headers=headers,
            body=None if get else json.dumps(body).encode(),
            deadline_seconds=30,
        )

    async def set_ready(self, *ready: bool):
        """Make pods ready or not, and wait until the EPP knows."""
        for number, is_ready in enumerate(ready, 1):
            address = self.sims.addresses[number - 1]
            self.manifests.pod(f"pod-{number}", address, ready=is_ready)
        want = [f"pod-{number}" for number, is_ready in enumerate(ready, 1) if is_ready]

        async def known():
            endpoints = (await self.gateway.pool())["endpoints"]
            return [e["pod"] for e in endpoints] == want and all(e["known"] for e in endpoints)

        await eventually(known, what=f"ready pods {want}")


@pytest_asyncio.fixture(
    scope="module",
    loop_scope="module",
    params=[
        pytest.param(flavour, marks=pytest.mark.xdist_group(f"outage-{flavour}"))
        for flavour in FLAVOURS
    ],
)
async def site(request, tmp_path_factory):
    directory = tmp_path_factory.mktemp(request.param)
    async with Sims(2, first="127.0.48.1", arguments=SIM_ARGUMENTS) as sims:
        manifests = Manifests(directory / "manifests")
        manifests.pool(sims.port)
        manifests.model("tiny", criticality="Critical")
        manifests.model("nightly", criticality="Sheddable", targets={"tiny": 1})
        manifests.pods(sims.addresses)
        endpoints = [f"{address}:{sims.port}" for address in sims.addresses]
        async with Gateway(
            request.param, directory / "state", manifests=manifests, endpoints=endpoints
        ) as gateway:
            yield Site(gateway, sims, manifests)


@pytest.mark.parametrize("path", PATHS)
async def test_the_pick_decides_and_no_header_of_a_client(site, path):
    first, _second = site.sims.addresses
    await site.set_ready(False, True)

    try:
        replies = [await site.send(path, forged=first) for _ in range(10)]
    finally:
        await site.set_ready(True, True)

    assert {reply.status for reply in replies} == {200}
    assert {reply.headers["x-sim-pod"] for reply in replies} == {"sim-1"}


async def test_without_a_ready_pod_the_answer_is_503(site):
    await site.set_ready(False, False)

    try:
        replies = [await site.send(path) for path in PATHS]
    finally:
        await site.set_ready(True, True)

    assert {reply.status for reply in replies} == {503}
    assert "no endpoint is ready" in replies[0].json()["error"]["message"]
    assert (await site.send()).status == 200


async def test_a_saturated_pool_sheds_what_may_be_shed(site):
    await site.set_ready(True, False)
    load = [asyncio.create_task(site.send(max_tokens=2000)) for _ in range(10)]

    async def saturated():
        return (await site.gateway.pool())["endpoints"][0]["waiting"] > 5

    async def at_rest():
        endpoints = (await site.gateway.pool())["endpoints"]
        return not any(e["in_flight"] or e["waiting"] or e["running"] for e in endpoints)

    try:
        await eventually(saturated, what="a queue")
        shed = await site.send(model="nightly")
    finally:
        for task in load:
            task.cancel()
        await asyncio.gather(*load, return_exceptions=True)
    await eventually(at_rest, what="the clients' departure leaves nothing in flight")
    await site.set_ready(True, True)

    assert shed.status == 429
    assert shed.headers["x-llm-d-request-dropped-reason"] == "rejected-saturated"
    assert (await site.send(model="nightly")).status == 200


async def test_a_dead_epp_costs_what_the_gateway_has_already_sent_it(site):
    first, _second = site.sims.addresses
    await site.gateway.kill_epp()

    try:
        with_body = [await site.send(forged=first) for _ in range(20)]
        without = [await site.send("/v1/models", forged=first) for _ in range(20)]
    finally:
        await site.gateway.start_epp()

    # Full duplex: once a body has left for the EPP Envoy cannot go on without it.
    assert {reply.status for reply in with_body} == {200 if site.gateway.is_lean else 500}
    assert {reply.status for reply in without} == {200}
    pods = {reply.headers["x-sim-pod"] for reply in without}
    # Stock kgateway takes a client's header for a pick when the EPP does not overwrite it.
    assert pods == ({"sim-0"} if site.gateway.flavour == "kgateway" else {"sim-0", "sim-1"})
    await eventually(lambda: _picked(site), what="picks of the new EPP")


async def _picked(site):
    """A request of now is routed by the EPP of now."""
    before = (await site.gateway.pool())["totals"]["routed"]
    reply = await site.send()
    return reply.status == 200 and (await site.gateway.pool())["totals"]["routed"] > before
