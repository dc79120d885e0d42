"""EndpointScraper: the scrapes of one endpoint, one at a time, as a small state machine.

It is either waiting (a timer is armed), scraping (a fetch is in progress, whose deadline is the
fetcher's) or closed. Results go to ``EndpointRows`` together with the time at which the next
result is due: the start of the next scrape plus what the last one took. A row is stale against
that promise, so every change of the schedule renews it. Nothing in here blocks or awaits.
"""

from collections.abc import Callable
from typing import Protocol

from epp.backend.endpoint import Endpoint
from epp.backend.endpoint_rows import EndpointRows
from epp.backend.metrics_client import FetchListener
from epp.backend.metrics_state import UNKNOWN_STATE
from epp.backend.page_mode import PageMode
from epp.backend.refresh_schedule import RefreshSchedule
from epp.backend.scrape_errors import ScrapeError, ScrapeFailure, ScrapePartial
from epp.backend.scrape_plan import LORA_SIGNAL, ScrapeOutcome, ScrapePlan
from epp.logs import Verbosity, get_logger

log = get_logger(__name__)


class TimerHandle(Protocol):
    """An armed timer."""

    def cancel(self) -> None:
        """Disarm it."""
        ...


class Timers(Protocol):
    """What an event loop offers; tests drive one by hand."""

    def call_later(self, delay: float, callback: Callable[[], object], /) -> TimerHandle:
        """Call back after ``delay`` seconds."""
        ...


class Fetcher(Protocol):
    """Fetches pages of one address, and reports each result once to its listener."""

    def get(self, query: str) -> None:
        """Start fetching; an empty query asks for the full page."""
        ...

    def close(self) -> None:
        """Abandon everything, silently."""
        ...


class FetcherFactory(Protocol):
    """Makes fetchers: ``MetricsClient``."""

    def fetcher(self, address: str, port: int, listener: FetchListener) -> Fetcher:
        """A fetcher of one address."""
        ...


class ScrapeMetrics(Protocol):
    """Where results are counted."""

    def scrape_failed(self, reason: str) -> None:
        """A scrape brought nothing."""
        ...

    def scrape_partial(self, reason: str) -> None:
        """A scrape lacked a metric, or held one that cannot be read."""
        ...


class EndpointScraper:
    """Scrapes one endpoint until it is closed.

    Args:
        endpoint: Who is scraped.
        plan: How its pages are read.
        rows: Where results go.
        schedule: The pool's pace.
        fetchers: Makes the fetcher of an address.
        timers: The event loop.
        clock: Monotonic seconds; the clock against which rows are judged.
        metrics: Counts failures.
        port_of: The port that serves the metrics of an endpoint; asked before each scrape.
        restricted: Ask for the needed metrics only.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        plan: ScrapePlan,
        *,
        rows: EndpointRows,
        schedule: RefreshSchedule,
        fetchers: FetcherFactory,
        timers: Timers,
        clock: Callable[[], float],
        metrics: ScrapeMetrics,
        port_of: Callable[[Endpoint], int],
        restricted: bool,
    ) -> None:
        self._endpoint = endpoint
        self._plan = plan
        self._rows = rows
        self._schedule = schedule
        self._fetchers = fetchers
        self._timers = timers
        self._clock = clock
        self._metrics = metrics
        self._port_of = port_of
        self._mode = PageMode(restricted=restricted)
        self._fetcher: Fetcher | None = None
        self._address: tuple[str, int] | None = None
        self._timer: TimerHandle | None = None
        self._closed = False
        self._scraping = False
        self._asked_restricted = False
        self._started = float("-inf")
        self._starts_at = float("-inf")
        self._took = 0.0
        self._failures = 0
        self._successes = 0
        self._hurried_at = float("-inf")

    @property
    def failing(self) -> bool:
        """The last scrape failed."""
        return self._failures > 0

    def start(self) -> None:
        """Arm the first scrape, for the next turn of the event loop."""
        self._arm(self._clock())

    def close(self) -> None:
        """Stop for good. Idempotent; no result is stored after this."""
        self._closed = True
        self._disarm()
        self._drop_fetcher()

    def update(self, endpoint: Endpoint, plan: ScrapePlan) -> None:
        """Go on with a new identity; a new address is scraped at once, old values stay till then."""
        moved = (endpoint.address, endpoint.port) != (self._endpoint.address, self._endpoint.port)
        replanned = plan is not self._plan
        self._endpoint, self._plan = endpoint, plan
        if self._closed or not (moved or replanned):
            return
        self._drop_fetcher()
        self._mode.reset()
        now = self._clock()
        self._arm(now)
        self._rows.reschedule(endpoint.key, due_at=now + self._took)

    def wake(self, pool_size: int) -> None:
        """Bring the next scrape forward because a request arrived. Failing ones keep their pace."""
        if self._closed or self._scraping or self._failures:
            return
        self._bring_forward(self._schedule.wake_start(self._started, self._clock(), pool_size))

    def connection_lost(self) -> None:
        """The idle connection was closed: see at once whether the server still lives.

        At most once per idle interval, for servers that close every connection early.
        """
        now = self._clock()
        if self._scraping or self._failures or now - self._hurried_at < self._schedule.idle_seconds:
            return
        self._hurried_at = now
        self._bring_forward(now)

    def page_arrived(self, page: bytes) -> None:
        """Called by the fetcher."""
        row = self._rows.get(self._endpoint.key)
        previous = row.state if row is not None else UNKNOWN_STATE
        try:
            outcome = self._plan.apply(page, previous)
        except Exception as exc:  # the metrics refresh loop goes on whatever a page does to us
            self._fail(ScrapeFailure.INTERNAL, f"{type(exc).__name__}: {exc}")
            return
        if self._asked_restricted:
            if self._mode.needs_full_page(outcome.missing):
                self._ask(restricted=False)
                return
        else:
            self._mode.full_page_came(outcome.missing)
        if outcome.updated:
            self._succeed(outcome)
        else:
            self._fail(ScrapeFailure.NO_SIGNAL, "the page has none of the expected metrics")

    def fetch_failed(self, error: ScrapeError) -> None:
        """Called by the fetcher."""
        if error.reason is ScrapeFailure.CONNECT:
            self._mode.reset()
        elif self._asked_restricted and 400 <= error.status < 500:
            self._mode.needs_full_page(self._plan.signals)
            self._ask(restricted=False)
            return
        self._fail(error.reason, error.detail)

    def _begin(self) -> None:
        self._timer = None
        self._scraping = True
        self._started = self._clock()
        address = (self._endpoint.address, self._port_of(self._endpoint))
        if self._fetcher is None or address != self._address:
            self._drop_fetcher()
            self._scraping = True
            self._address = address
            self._fetcher = self._fetchers.fetcher(*address, self)
        self._ask(restricted=not self._mode.full)

    def _ask(self, *, restricted: bool) -> None:
        self._asked_restricted = restricted
        if self._fetcher is not None:
            self._fetcher.get(self._plan.query if restricted else "")

    def _succeed(self, outcome: ScrapeOutcome) -> None:
        now = self._clock()
        self._scraping = False
        self._took = now - self._started
        if self._failures:
            self._failures = 0
            log.info("endpoint scrape recovered", **self._fields())
        start = self._next_start(now)
        self._rows.publish(self._endpoint.key, outcome.state, now=now, due_at=start + self._took)
        self._arm(start, now)
        if not outcome.complete:
            self._note_partial(outcome)

    def _next_start(self, now: float) -> float:
        self._successes += 1
        interval = self._interval(now)
        if self._successes == 1:
            return max(now, self._schedule.first_start(self._started, interval))
        return self._schedule.next_start(self._started, now, interval)

    def _fail(self, reason: ScrapeFailure, detail: str) -> None:
        now = self._clock()
        self._scraping = False
        self._failures += 1
        self._metrics.scrape_failed(reason)
        if self._failures == 1:
            log.info("endpoint scrape failing", **self._fields(), reason=reason, error=detail)
        elif log.enabled(Verbosity.DEBUG):
            log.debug("endpoint scrape failed", **self._fields(), reason=reason, error=detail)
        start = self._schedule.retry_start(self._failures, now, self._interval(now))
        self._rows.fail(self._endpoint.key, due_at=start)
        self._arm(start, now)

    def _interval(self, now: float) -> float:
        row = self._rows.get(self._endpoint.key)
        return self._schedule.interval(row.in_flight if row is not None else 0, now)

    def _note_partial(self, outcome: ScrapeOutcome) -> None:
        if outcome.malformed:
            self._metrics.scrape_partial(ScrapePartial.MALFORMED)
        if any(signal != LORA_SIGNAL for signal in outcome.missing):
            self._metrics.scrape_partial(ScrapePartial.MISSING)
        if log.enabled(Verbosity.DEBUG):
            log.debug(
                "endpoint scrape incomplete",
                **self._fields(),
                missing=outcome.missing,
                malformed=outcome.malformed,
            )

    def _bring_forward(self, start: float) -> None:
        if self._closed or self._timer is None or self._starts_at <= start:
            return
        self._arm(start)
        self._rows.reschedule(self._endpoint.key, due_at=start + self._took)

    def _arm(self, start: float, now: float | None = None) -> None:
        self._disarm()
        if self._closed:
            return
        self._starts_at = start
        delay = start - (self._clock() if now is None else now)
        self._timer = self._timers.call_later(max(0.0, delay), self._begin)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _drop_fetcher(self) -> None:
        self._scraping = False
        if self._fetcher is not None:
            self._fetcher.close()
            self._fetcher = None

    def _fields(self) -> dict[str, object]:
        return {"endpoint": self._endpoint.key, "target": self._endpoint.target}
