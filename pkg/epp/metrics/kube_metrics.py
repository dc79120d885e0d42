"""KubeMetrics: what happens between us and the API server; only with the Kubernetes source.

Fits ``epp.kube.reflector_observer.ReflectorObserver`` and ``epp.kube.events.EventObserver``
without importing them.
"""

from collections.abc import Callable, Iterable

from prometheus_client.registry import CollectorRegistry

from epp.metrics.cells import number_store
from epp.metrics.exposition import NumberCollector, numbers_of
from epp.metrics.families import Family, Kind, NameSet, own_name

RELISTS = Family(
    key="kube_relists_total",
    kind=Kind.COUNTER,
    unit="lists",
    help="Complete lists of a kind: one at the start, more when a watch could not go on.",
    labels=("kind",),
    names=own_name("kube_relists_total", ("kind",)),
)
WATCH_RESTARTS = Family(
    key="kube_watch_restarts_total",
    kind=Kind.COUNTER,
    unit="watches",
    help="Watches of a kind that ended and began again; API servers end them every few minutes.",
    labels=("kind",),
    names=own_name("kube_watch_restarts_total", ("kind",)),
)
ERRORS = Family(
    key="kube_errors_total",
    kind=Kind.COUNTER,
    unit="errors",
    help="Lists, watches and objects of a kind that failed, by reason.",
    labels=("kind", "reason"),
    names=own_name("kube_errors_total", ("kind", "reason")),
)
EVENTS = Family(
    key="kube_events_total",
    kind=Kind.COUNTER,
    unit="events",
    help="Events by what became of them: written, or why they were dropped.",
    labels=("outcome",),
    names=own_name("kube_events_total", ("outcome",)),
)
LEADER = Family(
    key="leader",
    kind=Kind.GAUGE,
    unit="",
    help="1 while this replica holds the Lease; only with leader election.",
    names=own_name("leader"),
)

KUBE_FAMILIES = (RELISTS, WATCH_RESTARTS, ERRORS, EVENTS, LEADER)


class KubeMetrics:
    """Counters of one API server client.

    Args:
        registry: Where they are exposed.
        name_sets: Generations of names to expose.
        kinds: Kinds that are followed, to start at zero.
    """

    def __init__(
        self, registry: CollectorRegistry, name_sets: Iterable[NameSet], *, kinds: Iterable[str]
    ) -> None:
        self._registry = registry
        self._name_sets = frozenset(name_sets)
        self._relists = number_store(RELISTS)
        self._restarts = number_store(WATCH_RESTARTS)
        self._errors = number_store(ERRORS, kept_labels=("kind",), max_cells=200)
        self._events = number_store(EVENTS)
        for store in (self._relists, self._restarts, self._errors, self._events):
            registry.register(NumberCollector(store.family, self._name_sets, numbers_of(store)))
        for kind in kinds:
            self._relists.cell(kind)
            self._restarts.cell(kind)
        self._events.cell("written")

    def relisted(self, kind: str) -> None:
        """A complete list is in the cache."""
        self._relists.cell(kind).value += 1.0

    def watch_restarted(self, kind: str) -> None:
        """A watch has ended and another one begins."""
        self._restarts.cell(kind).value += 1.0

    def failed(self, kind: str, reason: str) -> None:
        """A list, a watch or an object failed. Reasons are few, e.g. ``Forbidden``."""
        self._errors.cell(kind, reason).value += 1.0

    def event_written(self) -> None:
        """An Event, or one more of a series, was written."""
        self._events.cell("written").value += 1.0

    def event_dropped(self, why: str) -> None:
        """An Event was not written."""
        self._events.cell(str(why)).value += 1.0

    def observe_leader(self, is_leader: Callable[[], bool]) -> None:
        """Expose who leads, read when scraped. To be called once."""
        self._registry.register(
            NumberCollector(LEADER, self._name_sets, lambda: [((), float(is_leader()))])
        )
