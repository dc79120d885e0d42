"""Controller: turns cache events into keys, and keys into calls of a reconciler.

A reconciler gets a key and nothing else. It re-reads what it needs, makes the world agree, and
says what should happen next:

==================  ==================================================================
outcome             what the controller does
==================  ==================================================================
raises              count, log once, retry after the key's back-off
``requeue_after``   start the back-off over, process again after that many seconds
``requeue``         retry after the key's back-off
otherwise           start the back-off over
==================  ==================================================================

Reference: controller-runtime pkg/internal/controller/controller.go.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from epp.kube.cache import KubeObject, ObjectCache, ObjectEvent
from epp.kube.workqueue import QueueShutDownError, WorkQueue
from epp.logs import get_logger
from epp_api.meta import NamespacedName

log = get_logger(__name__)

T = TypeVar("T", bound=KubeObject)
Predicate = Callable[[ObjectEvent[T]], bool]
KeyMapper = Callable[[ObjectEvent[T]], Iterable[NamespacedName]]
OutcomeObserver = Callable[[str, str], None]
"""Called with the controller's name and ``success``, ``error``, ``requeue`` or ``requeue_after``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What should happen next; the default is nothing.

    Attributes:
        requeue: Retry after the key's back-off.
        requeue_after: Process again after this many seconds, > 0.
    """

    requeue: bool = False
    requeue_after: float = 0.0


class Reconciler(Protocol):
    """Makes the world agree with one object. Idempotent; may be called for no reason."""

    def reconcile(self, key: NamespacedName) -> Result:
        """Process one key. Any exception means: try again later."""
        ...


def own_key(event: ObjectEvent[T]) -> Iterable[NamespacedName]:
    """The mapper of a controller that reconciles what it watches."""
    return (event.key,)


class Controller:
    """One reconciler, its queue and its worker.

    Reconcilers are synchronous, so one worker is all there is to gain from one event loop.

    Args:
        name: For logs and metrics.
        reconciler: Called with each key.
        on_outcome: Told how each call ended.
        queue: Injected by tests.
    """

    def __init__(
        self,
        name: str,
        reconciler: Reconciler,
        *,
        on_outcome: OutcomeObserver = lambda _name, _outcome: None,
        queue: WorkQueue[NamespacedName] | None = None,
    ) -> None:
        self.name = name
        self.queue: WorkQueue[NamespacedName] = queue or WorkQueue()
        self._reconciler = reconciler
        self._on_outcome = on_outcome
        self._task: asyncio.Task[None] | None = None

    def watch(
        self,
        cache: ObjectCache[T],
        *,
        predicate: Predicate[T] | None = None,
        keys: KeyMapper[T] = own_key,
    ) -> None:
        """Add the keys that an event of a cache concerns, if it passes the predicate."""

        def on_event(event: ObjectEvent[T]) -> None:
            if predicate is None or predicate(event):
                for key in keys(event):
                    self.queue.add(key)

        cache.subscribe(on_event)

    async def start(self) -> None:
        """Start the worker."""
        self._task = asyncio.create_task(self._work(), name=f"controller {self.name}")

    async def stop(self) -> None:
        """Stop the worker and wait for it. Idempotent."""
        self.queue.shut_down()
        if self._task is not None:
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def _work(self) -> None:
        while True:
            try:
                key = await self.queue.get()
            except QueueShutDownError:
                return
            self.process(key)
            await asyncio.sleep(0)  # a storm of keys must not starve requests

    def process(self, key: NamespacedName) -> None:
        """Reconcile a key that was taken from the queue, and decide what happens next."""
        try:
            result = self._reconciler.reconcile(key)
        except Exception as exc:
            retries = self.queue.failures(key)
            log.error(
                "reconcile failed", controller=self.name, key=str(key), error=exc, retries=retries
            )
            self._finish(key, "error")
            return
        if result.requeue_after > 0:
            self._finish(key, "requeue_after", after=result.requeue_after)
        elif result.requeue:
            self._finish(key, "requeue")
        else:
            self._finish(key, "success")

    def _finish(self, key: NamespacedName, outcome: str, *, after: float = 0.0) -> None:
        self._on_outcome(self.name, outcome)
        if outcome in {"error", "requeue"}:
            self.queue.add_rate_limited(key)
        else:
            self.queue.forget(key)
        if after > 0:
            self.queue.add_after(key, after)
        self.queue.done(key)
