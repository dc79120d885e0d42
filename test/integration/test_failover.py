"""The EPP is never a single point of failure on the lean path; on the gateway path it is one.

Each test has a stack of its own: it kills, stops and restarts the EPP under traffic. Every request
carries a forged routing header that names a pod outside the pool, which listens and must stay idle.
"""

import asyncio
import contextlib
import json
import signal
import time
from collections import Counter
from dataclasses import dataclass

import pytest

from epp.errors import TransportError
from epp.standalone import local_http
from epp.testing.stack import Manifests, Sims, Stack, eventually

pytestmark = [pytest.mark.envoy, pytest.mark.timeout(180)]

BODY = json.dumps({"model": "tiny", "prompt": "x", "max_tokens": 1}).encode()
SIM_ARGUMENTS = ["--model", "tiny", "--speed", "50"]
ROUTING_HEADER = "x-gateway-destination-endpoint"


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a request; status 0 without an answer."""

    started: float
    status: int
    seconds: float


@dataclass(frozen=True, slots=True)
class World:
    """A gateway in front of three pods, and a pod that does not belong to its pool."""

    sims: Sims
    stranger: Sims
    manifests: Manifests
    stack: Stack

    async def one(self) -> Answer:
        """Send one request, with a routing header that leads to the stranger."""
        forged = f"{self.stranger.addresses[0]}:{self.stranger.port}"
        headers = {"content-type": "application/json", ROUTING_HEADER: forged}
        began = time.monotonic()
        try:
            reply = await local_http.request(
                "127.0.0.1",
                self.stack.port,
                "POST",
                "/v1/completions",
                headers=headers,
                body=BODY,
                deadline_seconds=20,
            )
        except TransportError:
            return Answer(began, 0, time.monotonic() - began)
        return Answer(began, reply.status, time.monotonic() - began)

    async def traffic(self, rate: float, seconds: float) -> list[Answer]:
        """Open-loop load: each request is started at its time, whatever became of the others."""
        tasks = []
        began = time.monotonic()
        for number in range(int(rate * seconds)):
            delay = began + number / rate - time.monotonic()
            if delay > 0:
                await asyncio.sleep(delay)
            tasks.append(asyncio.create_task(self.one()))
        return await asyncio.gather(*tasks)

    async def picks(self) -> int:
        """How many requests the EPP of now has routed."""
        return int((await self.stack.pool())["totals"]["routed"])

    async def picked_again(self) -> bool:
        """A request of now is routed by the EPP of now."""
        before = await self.picks()
        await self.one()
        return await self.picks() > before

    async def served(self) -> list[bool]:
        """For every request that reached a pod of the pool: had somebody picked that pod?"""
        requests = await self.sims.requests()
        return [ROUTING_HEADER in r["headers"] for r in requests if r["path"] == "/v1/completions"]

    async def went_without_epp(self) -> int:
        """Envoy's own count."""
        return await self.stack.envoy_stat("http.gateway.ext_proc.failure_mode_allowed")


TRANSPORTS = pytest.mark.parametrize("transport", ["native", "grpcio"])


@contextlib.asynccontextmanager
async def running(tmp_path, path, subnet, *, failure_mode="FailOpen", transport="native"):
    async with (
        Sims(3, first=f"127.0.{subnet}.1", arguments=SIM_ARGUMENTS) as sims,
        Sims(1, first=f"127.0.{subnet}.9", arguments=SIM_ARGUMENTS) as stranger,
    ):
        manifests = Manifests(tmp_path / "manifests")
        manifests.pool(sims.port, failure_mode=failure_mode)
        manifests.model("tiny", criticality="Critical")
        manifests.pods(sims.addresses)
        arguments = ["--manifests", str(manifests.directory), "--path", path]
        arguments += ["--transport", transport]
        async with Stack(tmp_path / "state", *arguments, wait_endpoints=3) as stack:
            yield World(sims, stranger, manifests, stack)
            assert await stranger.requests() == [], "a forged routing header was followed"


@TRANSPORTS
async def test_killed_under_100_requests_a_second_nothing_is_lost_and_picks_resume(
    tmp_path, transport
):
    async with running(tmp_path, "lean", 41, transport=transport) as world:
        load = asyncio.create_task(world.traffic(100, 6))
        await asyncio.sleep(1.5)

        killed = world.stack.signal("serve", signal.SIGKILL)
        await eventually(lambda: world.stack.epp_is_back(killed), what="a new EPP")
        back = time.monotonic()
        await eventually(world.picked_again, what="picks")
        resumed_seconds = time.monotonic() - back
        answers = await load

        served = await world.served()
        assert Counter(answer.status for answer in answers) == {200: 600}
        assert len(served) >= 600
        assert resumed_seconds < 2.0


async def test_the_live_view_counts_every_request_that_went_without_the_epp(tmp_path):
    """The EPP's own metric cannot: what Envoy reports while the EPP dies is lost with it."""
    async with running(tmp_path, "lean", 43) as world:
        load = asyncio.create_task(world.traffic(100, 4))
        await asyncio.sleep(1)

        killed = world.stack.signal("serve", signal.SIGKILL)
        await eventually(lambda: world.stack.epp_is_back(killed), what="a new EPP")
        await load
        await eventually(world.picked_again, what="picks")

        unpicked = (await world.served()).count(False)
        without = await world.went_without_epp()
        line = f"{without} without the EPP (Envoy's count)"
        await eventually(lambda: line in world.stack.log_text(), what=line)
        assert unpicked > 0
        # A request that the EPP picked for and died over counts, too: few at a time.
        assert unpicked <= without <= unpicked + 3
        assert await world.stack.metric("epp_requests_served_without_epp_total") <= without


@TRANSPORTS
async def test_a_hung_epp_costs_one_timeout_and_no_request(tmp_path, transport):
    async with running(tmp_path, "lean", 42, transport=transport) as world:
        pid = world.stack.signal("serve", signal.SIGSTOP)
        try:
            answers = await world.traffic(50, 5)
        finally:
            world.stack.signal("serve", signal.SIGCONT)
        await eventually(world.picked_again, what="picks")

        slow = [answer for answer in answers if answer.seconds > 1.0]
        assert {answer.status for answer in answers} == {200}
        assert max(answer.seconds for answer in answers) < 5.0
        assert len(slow) < len(answers) * 0.7, "health checks take a hung EPP out of the path"
        assert world.stack.pid_of("serve") == pid


async def test_an_epp_that_hung_hears_what_went_without_it(tmp_path):
    async with running(tmp_path, "lean", 46) as world:
        world.stack.signal("serve", signal.SIGSTOP)
        try:
            await world.traffic(20, 4)
        finally:
            world.stack.signal("serve", signal.SIGCONT)

        async def reported():
            return (await world.stack.pool())["totals"]["without_epp"] > 0

        assert await world.went_without_epp() > 0
        await eventually(reported, what="requests without the EPP")


@pytest.mark.parametrize(
    ("path", "subnet"),
    [pytest.param("lean", 45, id="lean"), pytest.param("gateway", 47, id="gateway")],
)
async def test_a_pool_that_fails_closed_is_served_by_picks_or_not_at_all(tmp_path, path, subnet):
    async with running(tmp_path, path, subnet, failure_mode="FailClose") as world:
        load = asyncio.create_task(world.traffic(50, 4))
        await asyncio.sleep(1)

        killed = world.stack.signal("serve", signal.SIGKILL)
        await eventually(lambda: world.stack.epp_is_back(killed), what="a new EPP")
        await eventually(world.picked_again, what="picks")
        picking = time.monotonic()
        answers = await load

        refused = [answer for answer in answers if answer.status != 200]
        served = await world.served()
        assert len(refused) > 10, "while the EPP was away"
        assert {answer.status for answer in refused} <= {500, 503, 504}
        assert [answer for answer in refused if answer.started > picking] == []
        assert all(served), "nobody was served without a pick"
        assert await world.went_without_epp() == 0


async def test_a_failure_mode_that_changes_is_said_and_waits_for_the_next_start(tmp_path):
    async with running(tmp_path, "lean", 48) as world:
        envoy = world.stack.pid_of("envoy")

        world.manifests.pool(world.sims.port, failure_mode="FailClose")

        line = "failureMode of the pool takes effect at the next start"
        await eventually(lambda: line in world.stack.log_text(), what="the line")
        assert world.stack.pid_of("envoy") == envoy
        world.manifests.pool(world.sims.port, failure_mode="FailOpen")
        again = "failureMode of the pool is again what Envoy runs with"
        await eventually(lambda: again in world.stack.log_text(), what="the other line")
        assert world.stack.log_text().count(line) == 1


@TRANSPORTS
async def test_on_the_gateway_path_a_dead_epp_costs_the_requests_until_it_is_back(
    tmp_path, transport
):
    async with running(tmp_path, "gateway", 44, transport=transport) as world:
        load = asyncio.create_task(world.traffic(50, 5))
        await asyncio.sleep(1)

        killed_at = time.monotonic()
        killed = world.stack.signal("serve", signal.SIGKILL)
        await eventually(lambda: world.stack.epp_is_back(killed), what="a new EPP")
        await eventually(world.picked_again, what="picks")
        picking = time.monotonic()
        answers = await load

        failed = [answer for answer in answers if answer.status != 200]
        while_away = [a for a in answers if killed_at - 0.5 < a.started < picking]
        assert 0 < len(failed) <= len(while_away)
        assert {answer.status for answer in failed} <= {500, 503, 504}
        assert min(answer.started for answer in failed) > killed_at - 0.5
        assert [answer for answer in failed if answer.started > picking] == []
        assert [answer for answer in answers if answer.started > picking], "there was traffic"
