"""CacheBarrier: a runnable whose start waits until caches hold their first complete list."""

import asyncio
from collections.abc import Sequence
from typing import Protocol

from epp.logs import get_logger

log = get_logger(__name__)

REMIND_SECONDS = 10.0
"""How often an operator is told what is still missing."""


class Syncable(Protocol):
    """What the barrier needs of an ``ObjectCache``."""

    @property
    def kind(self) -> str:
        """Kind of the objects."""
        ...

    @property
    def has_synced(self) -> bool:
        """The first complete list has been stored."""
        ...

    async def wait_synced(self) -> None:
        """Wait for it."""
        ...


class CacheBarrier:
    """Waits for caches, however long it takes, and says which ones are late.

    Args:
        caches: All of them must have synced.
        remind_seconds: Time between two log lines.
    """

    def __init__(
        self, caches: Sequence[Syncable], *, remind_seconds: float = REMIND_SECONDS
    ) -> None:
        self._caches = caches
        self._remind_seconds = remind_seconds

    async def start(self) -> None:
        """Wait for every cache."""
        while missing := [cache for cache in self._caches if not cache.has_synced]:
            try:
                await asyncio.wait_for(missing[0].wait_synced(), self._remind_seconds)
            except TimeoutError:
                kinds = sorted(cache.kind for cache in self._caches if not cache.has_synced)
                log.info("still waiting for the first list", kinds=kinds)

    async def stop(self) -> None:
        """Nothing to stop."""
