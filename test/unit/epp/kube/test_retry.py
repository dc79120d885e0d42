"""How long to wait after which failure, and what is said about it."""

import asyncio

import pytest
from structlog.testing import capture_logs

from epp.kube.errors import (
    ApiError,
    ForbiddenError,
    GoneError,
    TooManyRequestsError,
    UnreachableError,
)
from epp.kube.retry import MAX_RETRY_AFTER_SECONDS, FailureLog, reason_of, retrying
from epp.kube.workqueue import Backoff
from epp.testing.fake_clock import FakeClock, FakeTimer

BACKOFF = Backoff(first_seconds=1.0, max_seconds=8.0, jitter_ratio=0.5)


AWAY = UnreachableError("x")
BUSY = TooManyRequestsError("x", status=429)


class HastyClock(FakeClock):
    """Lets every wait end as soon as it begins, and remembers how long it was."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float] = []

    def call_later(self, delay, callback, /) -> FakeTimer:
        self.waits.append(delay)
        timer = super().call_later(delay, callback)
        asyncio.get_running_loop().call_soon(self.advance, delay)
        return timer


async def run(*failures: Exception, draw: float = 0.0) -> tuple[list[float], list[float]]:
    """Let a function fail so often, then succeed; return announced and real waits."""
    clock, left, announced = HastyClock(), list(failures), []
    policy = retrying(
        backoff=BACKOFF,
        clock=clock,
        draw=lambda: draw,
        gives_up=(LookupError,),
        on_failure=lambda _exc, seconds: announced.append(seconds),
    )

    async def attempt() -> str:
        if left:
            raise left.pop(0)
        return "done"

    assert await policy(attempt) == "done"
    return announced, clock.waits


@pytest.mark.parametrize(
    ("failures", "draw", "want"),
    [
        pytest.param([OSError()] * 5, 0.0, [1, 2, 4, 8, 8], id="doubles-up-to-the-limit"),
        pytest.param([OSError()] * 2, 1.0, [0.5, 1.0], id="jitter-shortens"),
        pytest.param([TooManyRequestsError("x", retry_after=5)], 0.0, [5], id="server-asks"),
        pytest.param([TooManyRequestsError("x", retry_after=5)], 1.0, [5.5], id="never-earlier"),
        pytest.param(
            [TooManyRequestsError("x", retry_after=0.1)], 0.0, [1], id="not-sooner-than-back-off"
        ),
        pytest.param(
            [TooManyRequestsError("x", retry_after=1e9)],
            0.0,
            [MAX_RETRY_AFTER_SECONDS],
            id="within-reason",
        ),
        pytest.param([GoneError("x"), GoneError("x")], 0.0, [2], id="first-expiry-costs-nothing"),
        pytest.param([AWAY] * 6, 0.0, [1, 2, 4, 5, 5, 5], id="a-server-that-is-away"),
        pytest.param(
            [*[AWAY] * 5, BUSY, BUSY, GoneError("x"), GoneError("x")],
            0.0,
            [1, 2, 4, 5, 5, 1, 2, 2],
            id="a-server-that-restarts-gets-further",
        ),
        pytest.param(
            [AWAY, BUSY, AWAY, BUSY, AWAY, BUSY],
            0.0,
            [1, 1, 2, 4, 5, 8],
            id="to-and-fro-is-no-progress",
        ),
    ],
)
async def test_waits(failures: list[Exception], draw: float, want: list[float]) -> None:
    announced, waits = await run(*failures, draw=draw)

    assert waits == pytest.approx(want)
    assert [seconds for seconds in announced if seconds] == pytest.approx(want)


async def test_some_failures_end_it() -> None:
    with pytest.raises(KeyError):
        await run(OSError(), KeyError("x"))


async def test_cancellation_ends_it() -> None:
    with pytest.raises(asyncio.CancelledError):
        await run(asyncio.CancelledError())  # type: ignore[arg-type]  # what a task gets


def test_a_series_of_failures_is_one_line_and_its_end_another() -> None:
    failures = FailureLog("watch failed", kind="Pod")

    with capture_logs() as logs:
        failures.works()
        for _ in range(3):
            failures.failed(ForbiddenError("no", status=403), 1.0)
        failures.failed(ApiError("other", status=418), 1.0)
        failures.works()
        failures.works()

    assert [(one["log_level"], one["event"]) for one in logs] == [
        ("warning", "watch failed"),
        ("warning", "watch failed"),
        ("info", "works again"),
    ]
    assert all(one["kind"] == "Pod" for one in logs)


def test_a_restart_of_the_server_is_one_line_and_what_must_be_mended_another() -> None:
    failures = FailureLog("watch failed")
    series = (AWAY, BUSY, GoneError("x", status=410), ForbiddenError("no", status=403), AWAY)

    with capture_logs() as logs:
        for failure in series:
            failures.failed(failure, 1.0)

    said = [one["error"] for one in logs if one["log_level"] == "warning"]
    assert said == [AWAY, series[3]]


async def test_a_new_series_starts_over() -> None:
    clock = HastyClock()
    policy = retrying(backoff=BACKOFF, clock=clock, draw=lambda: 0.0, on_failure=lambda *_: None)

    async def fail_twice(left: list[Exception]) -> None:
        if left:
            raise left.pop()

    await policy(fail_twice, [AWAY, AWAY])
    await policy(fail_twice, [AWAY, AWAY])

    assert clock.waits == pytest.approx([1, 2, 1, 2])


def test_reasons_are_short_names() -> None:
    assert reason_of(ForbiddenError("x")) == "Forbidden"
    assert reason_of(KeyError("x")) == "Key"
