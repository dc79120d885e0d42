"""What the other replica may rely on: while one leads, it alone writes; when it goes, it says so first.

Each replica has its own way to the API server, so that a request tells whose it is.
"""

import itertools
import signal
import time
from contextlib import asynccontextmanager

import pytest

from epp.controller.model_status_setup import STATUS_CONTROLLER
from epp.standalone import local_http
from epp.testing.api_admin import identity
from epp.testing.api_faults import ApiFaults
from epp.testing.epp_view import EppView
from epp.testing.ext_proc_client import LEAN, ExtProcClient, set_headers
from epp.testing.kube_manifests import model, pod, pool
from epp.testing.replicas import LEASE_SECONDS, replica
from epp.testing.stack import eventually

DESTINATION = "x-gateway-destination-endpoint"
REQUEST = {":method": "POST", ":path": "/v1/completions", "content-type": "application/json"}
DRAIN_SECONDS = 30
MODELS = ("a", "b", "c")


@pytest.fixture
def start(tmp_path, control_plane, account, people):
    """Starts a replica and its own proxy; the second that is started follows the first."""
    names = itertools.count()

    @asynccontextmanager
    async def started(**more):
        async with ApiFaults(control_plane) as proxy:
            kubeconfig = control_plane.kubeconfig(account.token, server=proxy.url)
            name = f"epp-6b7f9c5d4-x2x9{next(names)}"
            async with replica(tmp_path, kubeconfig, people.name, name, **more) as epp:
                yield epp, proxy

    return started


async def is_ready(epp):
    return await epp.health("readiness") == "SERVING"


async def leads(epp):
    await eventually(lambda: is_ready(epp), what="a leader")


def of_status(seen):
    return seen.method == "PATCH" and seen.resource == "inferencemodels"


def written(proxy):
    """Kinds that were written, but for the Lease that everybody tries to get."""
    return {s.resource for s in proxy.seen(lambda s: s.method != "GET") if s.resource != "leases"}


async def judged(epp, models):
    """Wait until the replica knows these models and its status controller has been through them."""
    view = EppView()
    view.metrics_port = epp.metrics_port

    async def has():
        pool_view = await local_http.get_json("127.0.0.1", epp.metrics_port, "/debug/pool")
        known = {one["model_name"] for one in pool_view["models"]}
        runs = await view.metric("epp_reconciles_total", kind=STATUS_CONTROLLER, outcome="success")
        return known == {f"model-{name}" for name in models} and runs >= len(models)

    await eventually(has, what="the models to be judged")


async def conditions(people):
    """Which of the models have the condition that the leader writes."""
    stored = await people.admin.list(
        model("a")["apiVersion"], model("a")["kind"], namespace=people.name
    )
    return {
        one["metadata"]["name"]
        for one in stored
        if any(c["type"] == "Accepted" for c in one.get("status", {}).get("conditions", ()))
    }


async def test_whoever_does_not_lead_writes_nothing_even_while_the_leader_cannot(start, people):
    """A status that is owed tempts the follower for as long as the leader's writes fail."""
    await people.put(pool(), pod("p", "127.0.91.1"))
    async with start() as (leader, its_way):
        await leads(leader)
        its_way.answer(500, times=None, match=of_status)
        async with start() as (follower, way_of_follower):
            await people.put(*(model(name, f"model-{name}") for name in MODELS))
            await judged(follower, MODELS)
            await eventually(lambda: its_way.seen(of_status), what="the leader to try")
            assert await conditions(people) == set()
            assert written(way_of_follower) == set()

            await its_way.clear()
            await eventually(lambda: has_all(people), what="what the leader owes")
            await eventually(lambda: "events" in written(its_way), what="an Event of the leader")
            assert written(way_of_follower) == set()
            assert await is_ready(leader)

            leader.signal(signal.SIGTERM)
            await leads(follower)
            await people.put(model("d", "model-a"))
            await eventually(
                lambda: written(way_of_follower) == {"inferencemodels", "events"},
                what="the other one to write",
            )


async def has_all(people):
    return await conditions(people) == set(MODELS)


async def test_a_drain_releases_the_lease_at_its_beginning(start, people, admin, namespace):
    await people.put(pool(), pod("p", "127.0.91.2"))
    async with start(drain_seconds=DRAIN_SECONDS) as (first, _), start() as (second, _):
        await leads(first)
        async with ExtProcClient(first.grpc_port) as client, client.exchange(LEAN) as running:
            assert await picked(running)

            first.signal(signal.SIGTERM)
            began = time.monotonic()
            await eventually(lambda: is_ready(second), seconds=LEASE_SECONDS, what="the other one")
            waited = time.monotonic() - began

            assert waited < LEASE_SECONDS - 1, "nobody waits for a Lease that was released"
            assert first.is_running
            assert not await is_ready(first)
            assert (await lease_of(admin, namespace))["leaseTransitions"] == 1

            await running.response_headers({":status": "200"})
            await running.half_close()
            await running.receive_all()
        assert await first.exit_status() == 0
        assert time.monotonic() - began < DRAIN_SECONDS
        assert await is_ready(second)


async def picked(stream):
    """The request phase; the endpoint that was chosen."""
    await stream.request_headers(REQUEST)
    await stream.request_body(b'{"model":"tiny","prompt":"x"}')
    while True:
        destination = set_headers(await stream.receive()).get(DESTINATION)
        if destination:
            return destination


async def lease_of(admin, namespace):
    name = f"epp-{namespace}-pool.llm-d.ai"
    lease = identity("coordination.k8s.io/v1", "Lease", name)
    return (await admin.get(lease, namespace=namespace))["spec"]
