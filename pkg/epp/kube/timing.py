"""Waiting on a ``Clock``, and wall-clock time as the API writes it."""

import asyncio
from datetime import UTC, datetime

from epp.kube.clock import Clock


async def sleep(clock: Clock, seconds: float) -> None:
    """Wait on a clock that a test may own."""
    elapsed = asyncio.Event()
    timer = clock.call_later(seconds, elapsed.set)
    try:
        await elapsed.wait()
    finally:
        timer.cancel()


def micro_time(epoch_seconds: float) -> str:
    """MicroTime of the API: RFC 3339 in UTC with six decimals."""
    return datetime.fromtimestamp(epoch_seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def whole_second_time(epoch_seconds: float) -> str:
    """Time of the API: RFC 3339 in UTC without decimals."""
    return datetime.fromtimestamp(epoch_seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
