"""How requests to the API server are tried again: for ever, ever more slowly, and quietly.

``retrying`` is a tenacity policy with the package's own back-off, clock and random source, which
never comes back earlier than the server asked. A series of failures that changes is a server that
gets further, as one does that restarts: refused, still initialising, version expired. The back-off
starts over with each class of failure that is new in the series. ``FailureLog`` turns a series into
one line when it begins, one for whatever an operator must mend, and one when it ends.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace

import tenacity

from epp.kube.clock import Clock
from epp.kube.errors import ApiError, GoneError, TooManyRequestsError, UnreachableError
from epp.kube.timing import sleep
from epp.kube.workqueue import Backoff
from epp.logs import get_logger

log = get_logger(__name__)

MAX_RETRY_AFTER_SECONDS = 300.0
"""A server that asks for more is asked again nevertheless."""

MAX_UNREACHABLE_SECONDS = 5.0
"""A server that is away is looked for this often: asking costs it nothing, and once it is back what
we know is old."""

_PASSES = (UnreachableError, TooManyRequestsError, GoneError)
"""What a server says, or does not, while it restarts: nothing that an operator must mend."""

FailureHandler = Callable[[Exception, float], None]
"""Called with what failed and the seconds until the next try."""


def retrying(
    *,
    backoff: Backoff,
    clock: Clock,
    draw: Callable[[], float] = random.random,
    gives_up: tuple[type[Exception], ...] = (),
    on_failure: FailureHandler,
) -> tenacity.AsyncRetrying:
    """Make a policy that repeats an awaited function until it returns.

    An expired resourceVersion is part of normal life: its first retry in a series comes at once.

    Args:
        backoff: Waits between tries.
        clock: Measures them.
        draw: Uniform in [0, 1), for jitter.
        gives_up: Exceptions that end it; cancellation always does.
        on_failure: Told about every failure.
    """
    series = _Series()
    away = replace(backoff, max_seconds=min(backoff.max_seconds, MAX_UNREACHABLE_SECONDS))

    def wait(state: tenacity.RetryCallState) -> float:
        failure = _failure(state)
        tries = series.tries(failure, is_first=state.attempt_number == 1)
        if isinstance(failure, GoneError) and tries == 1:
            return 0.0
        waits = away if isinstance(failure, UnreachableError) else backoff
        seconds = waits.delay_seconds(tries, draw())
        asked = failure.retry_after if isinstance(failure, ApiError) else None
        return seconds if asked is None else max(seconds, _asked_seconds(asked, draw()))

    def is_worth_it(exc: BaseException) -> bool:
        return isinstance(exc, Exception) and not isinstance(exc, gives_up)

    def before_sleep(state: tenacity.RetryCallState) -> None:
        failure = _failure(state)
        if isinstance(failure, Exception):
            on_failure(failure, state.upcoming_sleep)

    def pause(seconds: float) -> Awaitable[None]:
        return sleep(clock, seconds) if seconds > 0 else asyncio.sleep(0)

    return tenacity.AsyncRetrying(
        sleep=pause,
        wait=wait,
        retry=tenacity.retry_if_exception(is_worth_it),
        before_sleep=before_sleep,
    )


class _Series:
    """Failures in a row."""

    def __init__(self) -> None:
        self._seen: set[type[BaseException]] = set()
        self._tries = 0

    def tries(self, failure: BaseException | None, *, is_first: bool) -> int:
        """Count a failure: how many since the latest of a class that the series did not have."""
        if is_first:
            self._seen.clear()
        kind = type(failure) if failure is not None else Exception
        self._tries = self._tries + 1 if kind in self._seen else 1
        self._seen.add(kind)
        return self._tries


class FailureLog:
    """A line when a series of failures begins, when it turns into something to mend, when it ends.

    Args:
        event: Constant event of the line, e.g. ``watch failed``.
        fields: Fields of every line.
    """

    def __init__(self, event: str, **fields: object) -> None:
        self._event = event
        self._log = log.bind(**fields)
        self._state: tuple[type[Exception], int] | None = None

    def failed(self, exc: Exception, retry_seconds: float) -> None:
        """Say it when it is the first, or other than the last one and not about to pass."""
        state = (type(exc), exc.status if isinstance(exc, ApiError) else 0)
        is_news = self._state is None or (state != self._state and not isinstance(exc, _PASSES))
        say = self._log.warning if is_news else self._log.debug
        say(self._event, error=exc, retry_seconds=round(retry_seconds, 2))
        self._state = state

    def works(self) -> None:
        """Say that a series of failures has ended, if there was one."""
        if self._state is not None:
            self._log.info("works again", after=self._event)
            self._state = None


def reason_of(exc: Exception) -> str:
    """Name a failure for counters: the class without ``Error``, e.g. ``Forbidden``."""
    return type(exc).__name__.removesuffix("Error")


def _failure(state: tenacity.RetryCallState) -> BaseException | None:
    return None if state.outcome is None else state.outcome.exception()


def _asked_seconds(asked: float, draw: float) -> float:
    """What the server asked for, and up to a tenth more: others were told the same."""
    return min(asked, MAX_RETRY_AFTER_SECONDS) * (1.0 + 0.1 * draw)
