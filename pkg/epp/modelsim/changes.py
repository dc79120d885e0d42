"""Waiting for a pod to reach a state, without polling: tests and benches wait on conditions."""

import asyncio
from collections.abc import Callable

Condition = Callable[[], bool]


class Changes:
    """Told of every change by those who make them; checks the conditions that are waited for."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Condition, asyncio.Future[None]]] = []

    def announce(self) -> None:
        """Say that something changed. Costs nothing while nobody waits."""
        for waiter in list(self._waiting):
            condition, reached = waiter
            if reached.done():
                self._waiting.remove(waiter)
            elif condition():
                self._waiting.remove(waiter)
                reached.set_result(None)

    async def until(self, condition: Condition, *, deadline_seconds: float) -> None:
        """Wait for a condition.

        Raises:
            TimeoutError: It did not come true in time.
        """
        if condition():
            return
        reached = asyncio.get_running_loop().create_future()
        self._waiting.append((condition, reached))
        await asyncio.wait_for(reached, deadline_seconds)
