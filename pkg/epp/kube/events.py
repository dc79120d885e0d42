"""EventRecorder: tells operators what happened to an object, as ``events.k8s.io/v1`` Events.

``record`` never waits, never raises and never asks the API server: one task writes, slowly.
The same said again of the same object within a while is a repeat: it is counted, and the Event's
``series`` is brought up to date now and then, so that a storm makes few writes. A write that fails
because the API server is away or busy is tried again a few times, ever more slowly, while others go
on. Whatever cannot be written then is dropped and counted, with one log line when writing stops
working and one when it works again.

Owns a bounded TTL cache of recent Events, a queue of their keys (never more than one wish per
key), the bounded set of those that are to be tried again, and its task. The cache entry holds what
is known, the queue only says who is due.
Reference: client-go tools/events/event_broadcaster.go (series). Departs from it: the note
belongs to the identity of an Event, and pending repeats are written after a fixed time.
"""

import random
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from cachetools import TTLCache

from epp.kube.api import KubeRequests
from epp.kube.clock import LOOP_CLOCK, Clock
from epp.kube.errors import (
    ApiError,
    ConflictError,
    NotFoundError,
    ServerError,
    TooManyRequestsError,
    UnreachableError,
)
from epp.kube.manager import Loop
from epp.kube.resource import EVENTS
from epp.kube.timing import micro_time, sleep
from epp.kube.workqueue import Backoff, WorkQueue
from epp.logs import get_logger

log = get_logger(__name__)

NOTE_BYTES = 1024
WORD_BYTES = 128
"""Limits of the API: of ``note``, and of ``reason``, ``action`` and ``reportingInstance``."""

_NAME_CHARS = 253 - 17
"""Of the object's name in the Event's name, which is a DNS subdomain with a suffix of ours."""

_REQUEST_SECONDS = 10.0

_BACKOFF = Backoff(first_seconds=1.0, max_seconds=30.0)
_MAX_RETRY_AFTER_SECONDS = 60.0
"""A server that asks for more is asked again nevertheless."""

_PASSES = (UnreachableError, TooManyRequestsError, ServerError)
"""What may be otherwise in a moment, though nobody mends anything."""


class EventType(StrEnum):
    """How bad it is."""

    NORMAL = "Normal"
    WARNING = "Warning"


class DropReason(StrEnum):
    """Why an Event was not written."""

    QUEUE_FULL = "queue_full"
    FORGOTTEN = "forgotten"
    STOPPED = "stopped"
    REFUSED = "refused"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectRef:
    """The object that an Event is about. An Event lives in its namespace."""

    api_version: str
    kind: str
    namespace: str
    name: str
    uid: str = ""

    def wire(self) -> Mapping[str, str]:
        """The reference as the API writes it; what is empty is left out."""
        fields = {
            "apiVersion": self.api_version,
            "kind": self.kind,
            "namespace": self.namespace,
            "name": self.name,
            "uid": self.uid,
        }
        return {field: value for field, value in fields.items() if value}


class EventObserver(Protocol):
    """Counts what became of Events; called on the event loop, must be cheap."""

    def event_written(self) -> None:
        """One write succeeded."""
        ...

    def event_dropped(self, why: DropReason) -> None:
        """One was given up."""
        ...


class NoObserver:
    """Counts nothing."""

    def event_written(self) -> None:
        """Ignore."""

    def event_dropped(self, why: DropReason) -> None:
        """Ignore."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventSettings:
    """Bounds of a recorder.

    Attributes:
        series_seconds: Shortest time between two writes for the same Event.
        forget_seconds: An Event that was not repeated for so long is a new one the next time.
        remembered: Events that are remembered for repeats; the oldest make room.
        queued: Events that may wait to be written, and as many for another try; more are dropped.
        pause_seconds: Pause between two writes of any kind.
        tries: Tries of one write while the API server is away, the first included.
        backoff: Waits between them: two minutes with all of the tries, a restart of an API server.
    """

    series_seconds: float = 30.0
    forget_seconds: float = 360.0
    remembered: int = 1024
    queued: int = 256
    pause_seconds: float = 0.05
    tries: int = 8
    backoff: Backoff = _BACKOFF


DEFAULT_SETTINGS = EventSettings()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Saying:
    """What makes two Events the same."""

    regarding: ObjectRef
    type: EventType
    reason: str
    action: str
    note: str


@dataclass(slots=True, kw_only=True)
class _Known:
    """What is known of a saying; ``name`` is empty until its Event was sent."""

    first_at: float
    last_at: float
    count: int = 1
    written_count: int = 0
    due_at: float
    name: str = ""
    exists: bool = False
    failures: int = 0


class EventRecorder:
    """Records Events on behalf of one controller; a runnable of ``epp.kube.manager``.

    Args:
        client: Makes the requests.
        controller: ``reportingController``, a qualified name such as ``example.com/widget``.
        instance: ``reportingInstance``, e.g. the pod's name.
        settings: Bounds.
        observer: Told what becomes of Events.
        clock: Monotonic seconds and timers.
        wall: Seconds since the epoch; only written down.
        suffix: Gives an Event's name its unique end, at most 16 characters of a DNS label.
        draw: Uniform in [0, 1), for jitter.
    """

    def __init__(
        self,
        client: KubeRequests,
        *,
        controller: str,
        instance: str,
        settings: EventSettings = DEFAULT_SETTINGS,
        observer: EventObserver | None = None,
        clock: Clock = LOOP_CLOCK,
        wall: Callable[[], float] = time.time,
        suffix: Callable[[], str] = lambda: uuid.uuid4().hex[:16],
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._client = client
        self._controller = controller
        self._instance = clip(instance, WORD_BYTES)
        self._settings = settings
        self._observer = NoObserver() if observer is None else observer
        self._clock = clock
        self._wall = wall
        self._suffix = suffix
        self._draw = draw
        self._queue: WorkQueue[_Saying] = WorkQueue(clock=clock)
        self._recent: TTLCache[_Saying, _Known] = TTLCache(
            settings.remembered, settings.forget_seconds, timer=clock.time
        )
        self._again_at: dict[_Saying, float] = {}
        self._loop = Loop(f"event recorder {controller}", self._run)
        self._stopped = False
        self._trouble: type[ApiError] | None = None

    def record(
        self, regarding: ObjectRef, event_type: EventType, reason: str, action: str, note: str
    ) -> None:
        """Say something about an object.

        Args:
            regarding: The object.
            event_type: Normal or Warning.
            reason: Why, one CamelCase word for machines; cut at 128 bytes.
            action: What was done or tried, the same way.
            note: A sentence for people; cut at 1,024 bytes.
        """
        saying = _Saying(
            regarding=regarding,
            type=event_type,
            reason=clip(reason, WORD_BYTES),
            action=clip(action, WORD_BYTES),
            note=clip(note, NOTE_BYTES),
        )
        if self._stopped:
            self._observer.event_dropped(DropReason.STOPPED)
        elif (known := self._recent.get(saying)) is None:
            self._first(saying)
        else:
            self._repeat(saying, known)

    async def start(self) -> None:
        """Start writing what was recorded and what will be."""
        await self._loop.start()

    async def wait_ended(self) -> None:
        """Wait for the end of the task, which only a defect can bring."""
        await self._loop.wait_ended()

    async def stop(self) -> None:
        """Stop writing; what waits is dropped. Idempotent."""
        self._stopped = True
        now = self._clock.time()
        later = sum(again_at > now for again_at in self._again_at.values())
        self._again_at.clear()
        for _ in range(len(self._queue) + later):
            self._observer.event_dropped(DropReason.STOPPED)
        await self._loop.stop()
        self._queue.shut_down()

    def _first(self, saying: _Saying) -> None:
        if len(self._queue) >= self._settings.queued:
            self._observer.event_dropped(DropReason.QUEUE_FULL)
            return
        now = self._wall()
        self._recent[saying] = _Known(first_at=now, last_at=now, due_at=self._clock.time())
        self._queue.add(saying)

    def _repeat(self, saying: _Saying, known: _Known) -> None:
        known.count += 1
        known.last_at = self._wall()
        self._recent[saying] = known
        self._queue.add_after(saying, known.due_at - self._clock.time())

    async def _run(self) -> None:
        while True:
            saying = await self._queue.get()
            self._again_at.pop(saying, None)
            known = self._recent.get(saying)
            if known is None:
                self._observer.event_dropped(DropReason.FORGOTTEN)
            else:
                await self._deliver(saying, known)
            self._queue.done(saying)
            await sleep(self._clock, self._settings.pause_seconds)

    async def _deliver(self, saying: _Saying, known: _Known) -> None:
        """Write once; what fails waits for another try, or for the next repeat."""
        known.due_at = self._clock.time() + self._settings.series_seconds
        count = known.count
        if count == known.written_count:
            return
        try:
            await self._write(saying, known)
        except ApiError as exc:
            if not self._try_again(saying, known, exc):
                self._drop(exc)
            return
        known.written_count, known.failures = count, 0
        self._observer.event_written()
        if self._trouble is not None:
            self._trouble = None
            log.info("events are written again", controller=self._controller)

    def _try_again(self, saying: _Saying, known: _Known, exc: ApiError) -> bool:
        """Come back to a saying after a while; False when that is not worth it any more."""
        known.failures += 1
        full = len(self._again_at) >= self._settings.queued
        if full or not isinstance(exc, _PASSES) or known.failures >= self._settings.tries:
            known.failures = 0
            return False
        seconds = self._settings.backoff.delay_seconds(known.failures, self._draw())
        seconds = max(seconds, min(exc.retry_after or 0.0, _MAX_RETRY_AFTER_SECONDS))
        self._recent[saying] = known  # remembered for as long as from its last repeat
        self._again_at[saying] = self._clock.time() + seconds
        self._queue.add_after(saying, seconds)
        log.debug("event is tried again", error=exc, retry_seconds=round(seconds, 2))
        return True

    def _drop(self, exc: ApiError) -> None:
        passes = isinstance(exc, _PASSES)
        self._observer.event_dropped(DropReason.FAILED if passes else DropReason.REFUSED)
        if self._trouble is not type(exc):
            self._trouble = type(exc)
            log.warning("events are dropped", controller=self._controller, error=exc)

    async def _write(self, saying: _Saying, known: _Known) -> None:
        if not known.exists:
            await self._create(saying, known)
            return
        try:
            await self._patch(saying, known)
        except NotFoundError:  # the API server forgets Events after an hour
            known.name, known.exists = "", False
            await self._create(saying, known)

    async def _create(self, saying: _Saying, known: _Known) -> None:
        """Make the Event, under the name that an earlier try had: it may have arrived."""
        known.name = known.name or self._new_name(saying)
        try:
            await self._post(saying, known)
        except ConflictError:
            known.exists = True
            if known.count > 1:
                await self._patch(saying, known)
        known.exists = True

    def _new_name(self, saying: _Saying) -> str:
        stem = saying.regarding.name[:_NAME_CHARS].rstrip("-.")
        return f"{stem}.{self._suffix()}"

    async def _post(self, saying: _Saying, known: _Known) -> None:
        namespace = saying.regarding.namespace or "default"
        body: dict[str, Any] = {
            "apiVersion": EVENTS.api_version,
            "kind": EVENTS.kind,
            "metadata": {"name": known.name, "namespace": namespace},
            "eventTime": micro_time(known.first_at),
            "reportingController": self._controller,
            "reportingInstance": self._instance,
            "action": saying.action,
            "reason": saying.reason,
            "regarding": saying.regarding.wire(),
            "note": saying.note,
            "type": saying.type.value,
        }
        if known.count > 1:
            body["series"] = _series(known)
        await self._client.request(
            "POST",
            EVENTS.path(namespace=namespace),
            body=body,
            timeout_seconds=_REQUEST_SECONDS,
            what=f"create {EVENTS.qualified} in namespace {namespace}",
        )

    async def _patch(self, saying: _Saying, known: _Known) -> None:
        namespace = saying.regarding.namespace or "default"
        await self._client.request(
            "PATCH",
            EVENTS.path(namespace=namespace, name=known.name),
            body={"series": _series(known)},
            content_type="application/merge-patch+json",
            timeout_seconds=_REQUEST_SECONDS,
            what=f"patch {EVENTS.qualified} {namespace}/{known.name}",
        )


def _series(known: _Known) -> Mapping[str, object]:
    return {"count": known.count, "lastObservedTime": micro_time(known.last_at)}


def clip(text: str, limit: int) -> str:
    """Cut a text to a number of UTF-8 bytes, never within a character."""
    encoded = text.encode("utf-8", "replace")
    return encoded[:limit].decode("utf-8", "ignore")
