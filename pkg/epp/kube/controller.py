"""Controller: turns cache events into keys, and keys into calls of a reconciler.

A reconciler gets a key and nothing else. It re-reads what it needs, makes the world agree, and
says what should happen next:

==================  ==================================================================
outcome             what the controller does
==================  ==================================================================
raises              count, log, retry after the key's back-off
``requeue_after``   start the back-off over, process again after that many seconds
``requeue``         retry after the key's back-off
otherwise           start the back-off over
==================  ==================================================================

An error of the API server is logged as one line. Anything else is a defect until proven otherwise:
its line says where, and the first of each kind and place carries the traceback.
Reference: controller-runtime pkg/internal/controller/controller.go.
"""

import asyncio
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, TypeVar

from epp.kube.cache import KubeObject, ObjectCache, ObjectEvent
from epp.kube.errors import ApiError
from epp.kube.predicates import Predicate, everything
from epp.kube.workqueue import QueueShutDownError, WorkQueue
from epp.logs import get_logger
from epp_api.meta import NamespacedName

log = get_logger(__name__)

T = TypeVar("T", bound=KubeObject)
KeyMapper = Callable[[ObjectEvent[T]], Iterable[NamespacedName]]


_SHOWN_TRACEBACKS = 100
"""Places of errors that are remembered; a program that has more has told enough."""


class Outcome(StrEnum):
    """How one call of a reconciler ended."""

    SUCCESS = "success"
    ERROR = "error"
    REQUEUE = "requeue"
    REQUEUE_AFTER = "requeue_after"


OutcomeObserver = Callable[[str, str], None]
"""Called with the controller's name and the outcome, once per call of its reconciler."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What should happen next; the default is nothing.

    Attributes:
        requeue: Retry after the key's back-off.
        requeue_after: Process again after this many seconds, > 0; wins over ``requeue``.
    """

    requeue: bool = False
    requeue_after: float = 0.0


class Reconciler(Protocol):
    """Makes the world agree with one object. Idempotent; may be called for no reason."""

    async def reconcile(self, key: NamespacedName) -> Result:
        """Process one key. Any exception means: try again later."""
        ...


def own_key(event: ObjectEvent[T]) -> Iterable[NamespacedName]:
    """The mapper of a controller that reconciles what it watches."""
    return (event.key,)


class Controller:
    """One reconciler, its queue and its workers.

    Two workers never hold the same key. One worker is enough for a reconciler that waits for
    nothing: all of them share one event loop.

    Args:
        name: For logs and metrics.
        reconciler: Called with each key.
        workers: How many keys may be processed at once.
        on_outcome: Told how each call ended.
        queue: Keys that wait.
    """

    def __init__(
        self,
        name: str,
        reconciler: Reconciler,
        *,
        workers: int = 1,
        on_outcome: OutcomeObserver = lambda _name, _outcome: None,
        queue: WorkQueue[NamespacedName] | None = None,
    ) -> None:
        self.name = name
        self.queue: WorkQueue[NamespacedName] = WorkQueue() if queue is None else queue
        self._reconciler = reconciler
        self._workers = workers
        self._on_outcome = on_outcome
        self._tasks: list[asyncio.Task[None]] = []
        self._shown: set[tuple[type[Exception], str]] = set()

    def watch(
        self,
        cache: ObjectCache[T],
        *,
        predicate: Predicate[T] = everything,
        keys: KeyMapper[T] = own_key,
    ) -> None:
        """Add the keys that an event of a cache concerns, if it passes the predicate."""

        def on_event(event: ObjectEvent[T]) -> None:
            if predicate(event):
                for key in keys(event):
                    self.queue.add(key)

        cache.subscribe(on_event)

    async def start(self) -> None:
        """Start the workers."""
        self._tasks = [
            asyncio.create_task(self._work(), name=f"controller {self.name} worker {number}")
            for number in range(self._workers)
        ]

    async def wait_ended(self) -> None:
        """Wait until a worker has ended by itself; raise what ended it."""
        ended, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in ended:
            task.result()

    async def stop(self) -> None:
        """Stop the workers, what they are doing included, and wait for them. Idempotent."""
        self.queue.shut_down()
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def process(self, key: NamespacedName) -> Outcome:
        """Reconcile a key that was taken from the queue, and decide what happens next."""
        try:
            outcome, after = await self._reconcile(key)
            self._tell(outcome)
            match outcome:
                case Outcome.ERROR | Outcome.REQUEUE:
                    self.queue.add_rate_limited(key)
                case Outcome.REQUEUE_AFTER:
                    self.queue.forget(key)
                    self.queue.add_after(key, after)
                case Outcome.SUCCESS:
                    self.queue.forget(key)
            return outcome
        finally:
            self.queue.done(key)

    async def _reconcile(self, key: NamespacedName) -> tuple[Outcome, float]:
        try:
            result = await self._reconciler.reconcile(key)
        except Exception as exc:
            failures = self.queue.failures(key) + 1
            log.error(
                "reconcile failed",
                controller=self.name,
                key=str(key),
                error=exc,
                failures=failures,
                **self._origin(exc),
            )
            return Outcome.ERROR, 0.0
        if result.requeue_after > 0:
            return Outcome.REQUEUE_AFTER, result.requeue_after
        return (Outcome.REQUEUE if result.requeue else Outcome.SUCCESS), 0.0

    def _origin(self, exc: Exception) -> dict[str, object]:
        """Where an unexpected error was raised; the whole way there when that is news."""
        if isinstance(exc, ApiError):
            return {}
        last = traceback.extract_tb(exc.__traceback__)[-1]
        place = f"{last.filename}:{last.lineno}"
        if (type(exc), place) in self._shown or len(self._shown) >= _SHOWN_TRACEBACKS:
            return {"at": place}
        self._shown.add((type(exc), place))
        # Both renderers print the field of this name as it is.
        return {"at": place, "exception": "".join(traceback.format_exception(exc))}

    def _tell(self, outcome: Outcome) -> None:
        """Tell the observer; one that fails must not end the worker."""
        try:
            self._on_outcome(self.name, outcome)
        except Exception as exc:
            log.error("outcome observer failed", controller=self.name, error=exc)

    async def _work(self) -> None:
        while True:
            try:
                key = await self.queue.get()
            except QueueShutDownError:
                return
            await self.process(key)
            await asyncio.sleep(0)  # a storm of keys must not starve requests
