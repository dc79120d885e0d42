"""SharedAnswers: answers that take time, asked once for everyone who waits, believed for a while.

Good answers and bad ones are kept apart, each for its own time, so that a flood of bad ones never
pushes out a good one. A failure is kept by nobody: whoever comes next asks again. One event loop;
it owns the tasks that ask, and a caller that goes away does not end the question of the others.
"""

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar, cast

from cachetools import TTLCache

_NOTHING = object()
K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class SharedAnswers(Generic[K, V]):
    """Answers by key; a true one is good.

    Args:
        name: Of the tasks.
        clock: Monotonic seconds.
        good_seconds: How long a good answer is believed.
        bad_seconds: How long a bad one is.
        max_good: Good answers kept; the oldest go.
        max_bad: Bad answers kept.
    """

    def __init__(
        self,
        name: str,
        *,
        clock: Callable[[], float],
        good_seconds: float,
        bad_seconds: float,
        max_good: int,
        max_bad: int,
    ) -> None:
        self._name = name
        self._good: TTLCache[K, V] = TTLCache(max_good, good_seconds, timer=clock)
        self._bad: TTLCache[K, V] = TTLCache(max_bad, bad_seconds, timer=clock)
        self._running: dict[K, asyncio.Task[V]] = {}

    async def get(self, key: K, ask: Callable[[], Coroutine[Any, Any, V]]) -> V:
        """Return the answer that is known, or that of whoever asks already, or ask.

        Raises:
            Exception: Whatever ``ask`` raised, to everyone who waited for it.
        """
        for cache in (self._good, self._bad):
            known = cache.get(key, _NOTHING)
            if known is not _NOTHING:
                return cast("V", known)
        task = self._running.get(key)
        if task is None:
            task = asyncio.create_task(self._ask(key, ask), name=self._name)
            task.add_done_callback(_note_outcome)
            self._running[key] = task
        return await asyncio.shield(task)

    async def stop(self) -> None:
        """End the questions under way. Idempotent."""
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _ask(self, key: K, ask: Callable[[], Coroutine[Any, Any, V]]) -> V:
        try:
            answer = await ask()
            (self._good if answer else self._bad)[key] = answer
            return answer
        finally:
            del self._running[key]


def _note_outcome(task: "asyncio.Task[Any]") -> None:
    """Look at an error that nobody may wait for any more, so that asyncio does not complain."""
    if not task.cancelled():
        task.exception()
