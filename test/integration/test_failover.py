"""The EPP is never a single point of failure on the lean path; on the gateway path it is one.

Each test has a stack of its own: it kills, stops and restarts the EPP under traffic.
"""

import asyncio
import contextlib
import json
import signal
import time
from collections import Counter

import pytest

from epp.standalone import local_http
from epp.testing.stack import Manifests, Sims, Stack, eventually

pytestmark = [pytest.mark.envoy, pytest.mark.timeout(180)]

BODY = json.dumps({"model": "tiny", "prompt": "x", "max_tokens": 1}).encode()
HEADERS = {"content-type": "application/json", "x-gateway-destination-endpoint": "127.0.0.1:1"}


@contextlib.asynccontextmanager
async def running(tmp_path, path, subnet):
    async with Sims(
        3, first=f"127.0.{subnet}.1", arguments=["--model", "tiny", "--speed", "50"]
    ) as sims:
        manifests = Manifests(tmp_path / "manifests")
        manifests.pool(sims.port)
        manifests.model("tiny", criticality="Critical")
        manifests.pods(sims.addresses)
        arguments = ["--manifests", str(manifests.directory), "--path", path]
        async with Stack(tmp_path / "state", *arguments, wait_endpoints=3) as stack:
            yield sims, stack


async def one(stack) -> tuple[int, float]:
    """Send one request with a forged routing header; its status and seconds."""
    began = time.monotonic()
    try:
        reply = await local_http.request(
            "127.0.0.1",
            stack.port,
            "POST",
            "/v1/completions",
            headers=HEADERS,
            body=BODY,
            deadline_seconds=20,
        )
    except Exception:
        return 0, time.monotonic() - began
    return reply.status, time.monotonic() - began


async def traffic(stack, rate: float, seconds: float) -> list[tuple[int, float]]:
    """Open-loop load: each request is started at its time, whatever became of the others."""
    tasks = []
    began = time.monotonic()
    for number in range(int(rate * seconds)):
        delay = began + number / rate - time.monotonic()
        if delay > 0:
            await asyncio.sleep(delay)
        tasks.append(asyncio.create_task(one(stack)))
    return await asyncio.gather(*tasks)


async def picks(stack):
    return (await stack.pool())["totals"]["routed"]


async def picked_again(stack):
    """A request of now is routed by the EPP of now."""
    before = await picks(stack)
    await one(stack)
    return await picks(stack) > before


async def test_killed_under_100_requests_a_second_nothing_is_lost_and_picks_resume(tmp_path):
    async with running(tmp_path, "lean", 41) as (sims, stack):
        load = asyncio.create_task(traffic(stack, 100, 6))
        await asyncio.sleep(1.5)

        killed = stack.signal("serve", signal.SIGKILL)
        await eventually(lambda: stack.epp_is_back(killed), what="a new EPP")
        back = time.monotonic()
        await eventually(lambda: picked_again(stack), what="picks")
        resumed_seconds = time.monotonic() - back
        replies = await load

        served = sum(len(r) for r in [await sims.requests()])
        assert Counter(status for status, _ in replies) == {200: 600}
        assert served >= 600
        assert resumed_seconds < 2.0
        assert await stack.envoy_stat("http.gateway.ext_proc.failure_mode_allowed") > 0


async def test_a_hung_epp_costs_one_timeout_and_no_request(tmp_path):
    async with running(tmp_path, "lean", 42) as (_sims, stack):
        pid = stack.signal("serve", signal.SIGSTOP)
        try:
            replies = await traffic(stack, 50, 5)
        finally:
            stack.signal("serve", signal.SIGCONT)
        await eventually(lambda: picked_again(stack), what="picks")

        slow = [seconds for _, seconds in replies if seconds > 1.0]
        assert {status for status, _ in replies} == {200}
        assert max(seconds for _, seconds in replies) < 5.0
        assert len(slow) < len(replies) * 0.7, "health checks take a hung EPP out of the path"
        assert stack.pid_of("serve") == pid


async def test_requests_that_went_without_the_epp_are_reported(tmp_path):
    async with running(tmp_path, "lean", 43) as (_sims, stack):
        stack.signal("serve", signal.SIGSTOP)
        try:
            await traffic(stack, 20, 4)
        finally:
            stack.signal("serve", signal.SIGCONT)
        allowed = await stack.envoy_stat("http.gateway.ext_proc.failure_mode_allowed")

        async def reported():
            pool = await stack.pool()
            return pool["totals"]["without_epp"] > 0

        assert allowed > 0
        await eventually(reported, what="requests without the EPP")


async def test_on_the_gateway_path_a_dead_epp_costs_the_requests_it_was_asked_for(tmp_path):
    async with running(tmp_path, "gateway", 44) as (_sims, stack):
        load = asyncio.create_task(traffic(stack, 50, 4))
        await asyncio.sleep(1)

        killed = stack.signal("serve", signal.SIGKILL)
        await eventually(lambda: stack.epp_is_back(killed), what="a new EPP")
        await eventually(lambda: picked_again(stack), what="picks")
        replies = await load

        counts = Counter(status for status, _ in replies)
        assert counts[200] > 100, "before and after it serves"
        assert (await one(stack))[0] == 200
