"""Whatever ends a request, nothing stays in flight."""

import asyncio
import json
import random

import pytest

from epp.testing.stack import eventually

pytestmark = [
    pytest.mark.envoy,
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.timeout(180),
]


async def streamed(port: int, *, leave_after: int | None) -> str:
    """One streamed request over raw HTTP; the client leaves after so many reads, or stays."""
    body = json.dumps(
        {"model": "support", "prompt": "x", "max_tokens": 60, "stream": True}
    ).encode()
    head = (
        b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        b"connection: close\r\ncontent-length: %d\r\n\r\n" % len(body)
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(head + body)
        reads = 0
        while leave_after is None or reads < leave_after:
            data = await asyncio.wait_for(reader.read(256), 60)
            if not data:
                return "whole"
            reads += 1
        return "left"
    finally:
        writer.transport.abort() if leave_after is not None else writer.close()


async def test_random_aborts_of_200_concurrent_streams_leave_all_gauges_at_zero(stack):
    draw = random.Random(4)
    leave = [draw.choice([None, 0, 1, 2, 5, 12]) for _ in range(200)]

    ends = await asyncio.gather(*(streamed(stack.port, leave_after=n) for n in leave))

    async def at_rest():
        pool = await stack.pool()
        in_flight = sum(endpoint["in_flight"] for endpoint in pool["endpoints"])
        running = await stack.metric("inference_model_running_requests")
        return in_flight == 0 and running == 0

    assert ends.count("whole") >= leave.count(None)
    assert "left" in ends
    await eventually(at_rest, seconds=20, what="nothing in flight")


async def test_an_upstream_that_resets_leaves_nothing_in_flight(stack, sims):
    for address in sims.addresses:
        await sims.fault(address, "reset")
    try:
        results = await asyncio.gather(
            *(streamed(stack.port, leave_after=None) for _ in range(20)), return_exceptions=True
        )
    finally:
        for address in sims.addresses:
            await sims.fault(address, None)

    async def at_rest():
        pool = await stack.pool()
        running = await stack.metric("inference_model_running_requests")
        return sum(e["in_flight"] for e in pool["endpoints"]) == 0 and running == 0

    assert len(results) == 20
    await eventually(at_rest, seconds=20, what="nothing in flight")
