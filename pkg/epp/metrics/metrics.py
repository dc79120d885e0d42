"""Metrics: every instrument of the EPP, and the methods that write them.

Owned by the program, handed to whoever records; no other module knows prometheus_client. Every
method is a plain call from the event loop that takes a few microseconds at most, takes no lock
and never raises for what a client sent. Label values are bounded (``LabelCap``, ``CellStore``).
Known label values start at zero, so that rates exist from the first scrape.

What it must not do: read the datastore. Pool gauges come through ``collectors.PoolCollector``.
"""

import time
from collections.abc import Callable, Iterable
from typing import Protocol

from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import CollectorRegistry

from epp.metrics import system_families as families
from epp.metrics.cells import CellStore, HistogramCell, NumberCell, histogram_store, number_store
from epp.metrics.exposition import HistogramCollector, NumberCollector, numbers_of
from epp.metrics.families import SELECTABLE_NAME_SETS, NameSet
from epp.metrics.label_cap import DEFAULT_MAX_LABEL_VALUES, LabelCap
from epp.metrics.request_families import REQUEST_PROCESSING, RESPONSE_PROCESSING
from epp.metrics.request_metrics import RequestMetrics
from epp.version import __version__

SOURCE_TYPE = "metrics-data-source"
EXTRACTOR_TYPE = "core-metrics-extractor"
"""The reference's names of what scrapes and what reads a page."""


class TypedNameLike(Protocol):
    """Type and instance name of a plugin."""

    @property
    def type(self) -> str:
        """Type, e.g. ``queue-scorer``."""
        ...

    @property
    def name(self) -> str:
        """Instance name."""
        ...


class PluginTimer:
    """Times the calls of one plugin at one point, nested ones too.

    Counts an exception that passes through, does not swallow it.
    """

    __slots__ = ("_clock", "_duration", "_errors", "_labels", "_started")

    def __init__(
        self,
        labels: tuple[str, str, str],
        duration: HistogramCell,
        errors: CellStore[NumberCell],
        clock: Callable[[], float],
    ) -> None:
        self._labels = labels
        self._duration = duration
        self._errors = errors
        self._clock = clock
        self._started: list[float] = []

    def __enter__(self) -> None:
        self._started.append(self._clock())

    def __exit__(self, kind: object, error: object, trace: object, /) -> None:
        self._duration.observe(self._clock() - self._started.pop())
        if kind is not None:
            self._errors.at(self._labels).value += 1.0


class Metrics:
    """Every instrument, registered with one registry.

    Args:
        registry: Ours alone; never prometheus_client's default one.
        name_sets: Generations of names to expose.
        max_label_values: Distinct model names that keep their own label.
        commit: Source revision, a label of the info metric.
        clock: Monotonic seconds, for plugin timers.
        process_metrics: Expose CPU, memory, file descriptors, garbage collections.

    Attributes:
        registry: As given.
        name_sets: As given.
        request_routed: ``RequestMetrics.routed``, likewise the next three.
        request_finished: ``RequestMetrics.finished``.
        request_usage: ``RequestMetrics.usage_known``.
        request_failed: ``RequestMetrics.failed``.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        *,
        name_sets: Iterable[NameSet] = SELECTABLE_NAME_SETS,
        max_label_values: int = DEFAULT_MAX_LABEL_VALUES,
        commit: str = "unknown",
        clock: Callable[[], float] = time.perf_counter,
        process_metrics: bool = True,
    ) -> None:
        self.registry = registry
        self.name_sets = frozenset(name_sets)
        self._clock = clock
        self._cap = LabelCap(max_label_values)
        self._requests = RequestMetrics(self._cap)
        self.request_routed = self._requests.routed
        self.request_finished = self._requests.finished
        self.request_usage = self._requests.usage_known
        self.request_failed = self._requests.failed
        self._create_stores()
        self._register(process_metrics=process_metrics)
        self._start_at_zero(commit)

    def _create_stores(self) -> None:
        self._request_processing = histogram_store(REQUEST_PROCESSING)
        self._response_processing = histogram_store(RESPONSE_PROCESSING)
        self._scheduler_duration = histogram_store(families.SCHEDULER_DURATION)
        self._scheduler_attempts = number_store(
            families.SCHEDULER_ATTEMPTS, kept_labels=("status",)
        )
        self._plugin_duration = histogram_store(families.PLUGIN_DURATION)
        self._plugin_errors = number_store(families.PLUGIN_ERRORS)
        self._timers: dict[tuple[str, str, str], PluginTimer] = {}
        self._info = number_store(families.INFO)
        self._without_epp = number_store(families.SERVED_WITHOUT_EPP)
        self._not_honoured = number_store(families.PICKS_NOT_HONOURED)
        self._poll_errors = number_store(families.POLL_ERRORS)
        self._extract_errors = number_store(families.EXTRACT_ERRORS)
        self._scrape_failures = number_store(families.SCRAPE_FAILURES)
        self._scrape_incomplete = number_store(families.SCRAPE_INCOMPLETE)
        self._reconciles = number_store(families.RECONCILES)
        self._manifest_problems = number_store(families.MANIFEST_PROBLEMS)

    def _register(self, *, process_metrics: bool) -> None:
        for numbers in self._number_stores():
            family = numbers.family
            self.registry.register(NumberCollector(family, self.name_sets, numbers_of(numbers)))
        for histograms in self._histogram_stores():
            self.registry.register(HistogramCollector(histograms, self.name_sets))
        if process_metrics:
            ProcessCollector(registry=self.registry)
            PlatformCollector(registry=self.registry)
            GCCollector(registry=self.registry)

    def _number_stores(self) -> Iterable[CellStore[NumberCell]]:
        yield from self._requests.number_stores()
        yield from (self._info, self._scheduler_attempts, self._plugin_errors)
        yield from (self._without_epp, self._not_honoured)
        yield from (self._poll_errors, self._extract_errors)
        yield from (self._scrape_failures, self._scrape_incomplete)
        yield from (self._reconciles, self._manifest_problems)

    def _histogram_stores(self) -> Iterable[CellStore[HistogramCell]]:
        yield from self._requests.histogram_stores()
        yield from (self._request_processing, self._response_processing)
        yield from (self._scheduler_duration, self._plugin_duration)

    def _start_at_zero(self, commit: str) -> None:
        self._info.cell(commit, __version__).set(1.0)
        self._request_processing_cell = self._request_processing.cell()
        self._response_processing_cell = self._response_processing.cell()
        self._scheduler_duration_cell = self._scheduler_duration.cell()
        self._without_epp_cell = self._without_epp.cell()
        self._not_honoured_cell = self._not_honoured.cell()
        self._manifest_problems_cell = self._manifest_problems.cell()
        self._poll_errors_cell = self._poll_errors.cell(SOURCE_TYPE)
        self._extract_errors_cell = self._extract_errors.cell(SOURCE_TYPE, EXTRACTOR_TYPE)

    # Requests

    def pin_models(self, names: Iterable[str]) -> None:
        """Let declared model and target model names keep their own labels whatever the cap.

        Additive: a name stays pinned for the life of the process.
        """
        self._cap.pin(names)

    def request_processing(self, seconds: float) -> None:
        """Observe the time from request headers to our answer to the body."""
        self._request_processing_cell.observe(seconds)

    def response_processing(self, seconds: float) -> None:
        """Observe the time spent on a response; zero (nothing done) is left out."""
        if seconds > 0:
            self._response_processing_cell.observe(seconds)

    def served_without_epp(self, n: int = 1) -> None:
        """Count requests that the gateway served without asking us."""
        self._without_epp_cell.value += n

    def pick_not_honoured(self) -> None:
        """Count a request that went to an endpoint nobody picked."""
        self._not_honoured_cell.value += 1.0

    # Scheduling

    def scheduler_run(
        self,
        seconds: float,
        ok: bool,
        *,
        target_model: str = "",
        endpoint_name: str = "",
        namespace: str = "",
        port: str | int = "",
    ) -> None:
        """Observe one scheduling run; the endpoint is the first pick, ignored on failure."""
        self._scheduler_duration_cell.observe(seconds)
        model = self._cap.admit(target_model)
        if ok:
            labels = ("success", model, endpoint_name, namespace, str(port))
        else:
            labels = ("failure", model, "", "", "")
        self._scheduler_attempts.at(labels).value += 1.0

    def endpoint_removed(self, endpoint_name: str, namespace: str) -> None:
        """Forget the series of an endpoint that left the pool."""
        gone = (endpoint_name, namespace)
        self._scheduler_attempts.discard(lambda labels: labels[2:4] == gone)

    def plugin_timer(self, extension_point: str, plugin: TypedNameLike) -> PluginTimer:
        """Return a context manager around one call of a plugin."""
        labels = (extension_point, plugin.type, plugin.name)
        timer = self._timers.get(labels)
        if timer is None:
            duration = self._plugin_duration.at(labels)
            timer = PluginTimer(labels, duration, self._plugin_errors, self._clock)
            self._timers[labels] = timer
        return timer

    def plugin_error(self, extension_point: str, plugin_type: str, plugin_name: str) -> None:
        """Count a plugin failure that no timer saw, such as a score that is no number."""
        self._plugin_errors.cell(extension_point, plugin_type, plugin_name).value += 1.0

    # Sources of data

    def scrape_failed(self, reason: str) -> None:
        """Count a scrape that brought nothing. Reasons are few and fixed, e.g. ``timeout``."""
        self._poll_errors_cell.value += 1.0
        self._scrape_failures.cell(reason).value += 1.0

    def scrape_partial(self, reason: str) -> None:
        """Count a scrape that lacked a metric or held a bad value. Reasons are few and fixed."""
        self._extract_errors_cell.value += 1.0
        self._scrape_incomplete.cell(reason).value += 1.0

    def reconcile_done(self, kind: str, outcome: str) -> None:
        """Count a reconcile run."""
        self._reconciles.cell(kind, outcome).value += 1.0

    def manifest_problems(self, count: int) -> None:
        """Tell how many manifests or files cannot be used right now."""
        self._manifest_problems_cell.set(float(count))

    def declare(
        self,
        *,
        scrape_failure_reasons: Iterable[str] = (),
        scrape_partial_reasons: Iterable[str] = (),
        reconciles: Iterable[tuple[str, str]] = (),
    ) -> None:
        """Start counters of known label values at zero.

        Args:
            scrape_failure_reasons: What ``scrape_failed`` may be told.
            scrape_partial_reasons: What ``scrape_partial`` may be told.
            reconciles: Pairs of kind and outcome that ``reconcile_done`` may be told.
        """
        for reason in scrape_failure_reasons:
            self._scrape_failures.cell(reason)
        for reason in scrape_partial_reasons:
            self._scrape_incomplete.cell(reason)
        for kind, outcome in reconciles:
            self._reconciles.cell(kind, outcome)

    def observe_streams(self, read: Callable[[], int]) -> None:
        """Expose the number of open streams, read when scraped. To be called once."""
        self.registry.register(
            NumberCollector(
                families.STREAMS_IN_FLIGHT, self.name_sets, lambda: [((), float(read()))]
            )
        )
