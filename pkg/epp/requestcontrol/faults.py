"""FaultLog: contained faults, each logged once a minute.

What is contained can happen on every request; one line a minute tells an operator as much. Owns
what it remembers, bounded by number and time.
"""

from collections.abc import Callable

from cachetools import TTLCache

from epp.logs import get_logger

log = get_logger(__name__)

LOG_EVERY_SECONDS = 60.0
MAX_REMEMBERED_FAULTS = 64


class FaultLog:
    """Says the same thing once a minute.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._said: TTLCache[tuple[str, str], bool] = TTLCache(
            MAX_REMEMBERED_FAULTS, LOG_EVERY_SECONDS, timer=clock
        )

    def say(self, event: str, *, error: Exception | str, plugin: str = "") -> None:
        """Log a fault, unless the same event of the same plugin was logged within the minute."""
        if (event, plugin) in self._said:
            return
        self._said[event, plugin] = True
        fields = {"plugin": plugin} if plugin else {}
        log.error(event, error=error, again_after_seconds=LOG_EVERY_SECONDS, **fields)
