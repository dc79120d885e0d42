"""Collector: keeps the metrics of every endpoint of the pool fresh.

Owns one ``EndpointScraper`` per endpoint, told by the datastore which endpoints there are, and the
pace of the pool, told by request control when requests arrive. Listens before an endpoint enters
``EndpointRows``, so the first scrape starts on the next turn of the event loop. A removed endpoint
is closed synchronously and never stores again; one that comes back under the same key starts anew.
"""

import asyncio
import time
from collections.abc import Callable
from random import Random
from typing import Protocol

from epp.backend.endpoint import Endpoint, EndpointKey
from epp.backend.endpoint_rows import EndpointRows
from epp.backend.endpoint_scraper import EndpointScraper, FetcherFactory, ScrapeMetrics, Timers
from epp.backend.providers.engines import EngineMappings
from epp.backend.providers.mapping import EngineMapping
from epp.backend.refresh_schedule import RefreshSchedule, RefreshSettings
from epp.backend.scrape_plan import ScrapePlan, ScrapeRules
from epp.logs import get_logger

log = get_logger(__name__)


class CollectorClient(FetcherFactory, Protocol):
    """What the collector needs of ``MetricsClient``."""

    async def close(self) -> None:
        """Close every connection and wait for it."""
        ...


class Collector:
    """The scrapers of a pool; implements the datastore's listener of endpoints.

    Args:
        rows: Where results go.
        client: Fetches pages; closed by ``stop``.
        mappings: The engines.
        metrics: Counts failures.
        settings: Intervals.
        rules: How series are chosen.
        port_of: Port that serves the metrics of an endpoint; by default its own port.
        clock: Monotonic seconds, the same as of the tables that are taken from ``rows``.
        random: Source of jitter.
        timers: The event loop; by default the running one.
    """

    def __init__(
        self,
        rows: EndpointRows,
        client: CollectorClient,
        mappings: EngineMappings,
        *,
        metrics: ScrapeMetrics,
        settings: RefreshSettings | None = None,
        rules: ScrapeRules | None = None,
        port_of: Callable[[Endpoint], int] | None = None,
        clock: Callable[[], float] = time.monotonic,
        random: Random | None = None,
        timers: Timers | None = None,
    ) -> None:
        self._rows = rows
        self._client = client
        self._mappings = mappings
        self._metrics = metrics
        self._settings = settings or RefreshSettings()
        self._rules = rules or ScrapeRules()
        self._port_of = port_of or _own_port
        self._clock = clock
        self._timers = timers
        self._schedule = RefreshSchedule(
            self._settings, clock=clock, random=random or Random(), on_wake=self._wake_soon
        )
        self._plans: dict[EngineMapping, ScrapePlan] = {}
        self._endpoints: dict[EndpointKey, Endpoint] = {}
        self._scrapers: dict[EndpointKey, EndpointScraper] = {}
        self._running = False

    @property
    def scrapers(self) -> int:
        """Endpoints that are being scraped."""
        return len(self._scrapers)

    async def start(self) -> None:
        """Scrape every endpoint told so far, and each one told from now on."""
        if self._timers is None:
            self._timers = asyncio.get_running_loop()
        self._running = True
        self._log_disabled_signals()
        for endpoint in self._endpoints.values():
            self._scrape(endpoint)

    async def stop(self) -> None:
        """End every scrape; no connection and no task is left. Idempotent."""
        self._running = False
        for scraper in self._scrapers.values():
            scraper.close()
        self._scrapers.clear()
        await self._client.close()

    def request_arrived(self) -> None:
        """Note a request: the pool is scraped at the fast pace for a while. O(1)."""
        self._schedule.request_arrived()

    def endpoint_added(self, endpoint: Endpoint) -> None:
        """Datastore listener: start scraping, on the next turn of the event loop."""
        self._endpoints[endpoint.key] = endpoint
        if self._running:
            self._scrape(endpoint)

    def endpoint_updated(self, old: Endpoint, new: Endpoint) -> None:
        """Datastore listener: address or labels changed."""
        self._endpoints[new.key] = new
        scraper = self._scrapers.get(new.key)
        if scraper is not None:
            log.debug("endpoint scrape moves", endpoint=new.key, old=old.target, target=new.target)
            scraper.update(new, self._plan_of(new))

    def endpoint_removed(self, endpoint: Endpoint) -> None:
        """Datastore listener: stop scraping. Removing twice is harmless."""
        self._endpoints.pop(endpoint.key, None)
        scraper = self._scrapers.pop(endpoint.key, None)
        if scraper is not None:
            scraper.close()

    def _scrape(self, endpoint: Endpoint) -> None:
        if self._timers is None:
            return
        before = self._scrapers.pop(endpoint.key, None)
        if before is not None:
            before.close()
        scraper = EndpointScraper(
            endpoint,
            self._plan_of(endpoint),
            rows=self._rows,
            schedule=self._schedule,
            fetchers=self._client,
            timers=self._timers,
            clock=self._clock,
            metrics=self._metrics,
            port_of=self._port_of,
            restricted=self._settings.restricted,
        )
        self._scrapers[endpoint.key] = scraper
        scraper.start()

    def _plan_of(self, endpoint: Endpoint) -> ScrapePlan:
        mapping = self._mappings.for_labels(endpoint.labels)
        plan = self._plans.get(mapping)
        if plan is None:
            plan = self._plans[mapping] = ScrapePlan(mapping, self._rules)
        return plan

    def _wake_soon(self) -> None:
        if self._running and self._timers is not None:
            self._timers.call_later(0.0, self._wake)

    def _wake(self) -> None:
        pool_size = len(self._scrapers)
        for scraper in self._scrapers.values():
            scraper.wake(pool_size)

    def _log_disabled_signals(self) -> None:
        mapping = self._mappings.default
        for signal in ("queued", "running", "kv_usage", "lora", "cache_info"):
            if not getattr(mapping, signal):
                log.info("metric not scraped", signal=signal, engine=mapping.name)


def _own_port(endpoint: Endpoint) -> int:
    return endpoint.port
