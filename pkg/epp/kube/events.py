"""EventRecorder: tells operators what happened to an object, as ``events.k8s.io/v1`` Events.

``record`` never waits, never raises and never asks the API server: one task writes, slowly.
The same said again of the same object within a while is a repeat: it is counted, and the Event's
``series`` is brought up to date now and then, so that a storm makes few writes. Whatever cannot
be written is dropped and counted, with one log line when writing stops working and one when it
works again.

Owns a bounded TTL cache of recent Events, a queue of their keys (never more than one wish per
key), and its task. The cache entry holds what is known, the queue only says who is due.
Reference: client-go tools/events/event_broadcaster.go (series). Departs from it: the note
belongs to the identity of an Event, and pending repeats are written after a fixed time.
"""

import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from cachetools import TTLCache

from epp.kube.api import KubeRequests
from epp.kube.clock import LOOP_CLOCK, Clock
from epp.kube.errors import ApiError, NotFoundError, TooManyRequestsError
from epp.kube.manager import Loop
from epp.kube.resource import EVENTS
from epp.kube.timing import micro_time, sleep
from epp.kube.workqueue import WorkQueue
from epp.logs import get_logger

log = get_logger(__name__)

NOTE_BYTES = 1024
WORD_BYTES = 128
"""Limits of the API: of ``note``, and of ``reason``, ``action`` and ``reportingInstance``."""

_NAME_CHARS = 253 - 17
"""Of the object's name in the Event's name, which is a DNS subdomain with a suffix of ours."""

_REQUEST_SECONDS = 10.0


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
        queued: Events that may wait to be written; further new ones are dropped.
        pause_seconds: Pause between two writes of any kind.
    """

    series_seconds: float = 30.0
    forget_seconds: float = 360.0
    remembered: int = 1024
    queued: int = 256
    pause_seconds: float = 0.05


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
    """What is known of a saying; ``name`` is empty until its Event exists."""

    first_at: float
    last_at: float
    count: int = 1
    written_count: int = 0
    due_at: float
    name: str = ""


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
    ) -> None:
        self._client = client
        self._controller = controller
        self._instance = clip(instance, WORD_BYTES)
        self._settings = settings
        self._observer = NoObserver() if observer is None else observer
        self._clock = clock
        self._wall = wall
        self._suffix = suffix
        self._queue: WorkQueue[_Saying] = WorkQueue(clock=clock)
        self._recent: TTLCache[_Saying, _Known] = TTLCache(
            settings.remembered, settings.forget_seconds, timer=clock.time
        )
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
        for _ in range(len(self._queue)):
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
            known = self._recent.get(saying)
            if known is None:
                self._observer.event_dropped(DropReason.FORGOTTEN)
            else:
                await self._deliver(saying, known)
            self._queue.done(saying)
            await sleep(self._clock, self._settings.pause_seconds)

    async def _deliver(self, saying: _Saying, known: _Known) -> None:
        """Write once; what fails waits for the next repeat."""
        known.due_at = self._clock.time() + self._settings.series_seconds
        count = known.count
        if count == known.written_count:
            return
        try:
            await self._write(saying, known)
        except ApiError as exc:
            refused = 400 <= exc.status < 500 and not isinstance(exc, TooManyRequestsError)
            self._observer.event_dropped(DropReason.REFUSED if refused else DropReason.FAILED)
            if self._trouble is not type(exc):
                self._trouble = type(exc)
                log.warning("events are dropped", controller=self._controller, error=exc)
            return
        known.written_count = count
        self._observer.event_written()
        if self._trouble is not None:
            self._trouble = None
            log.info("events are written again", controller=self._controller)

    async def _write(self, saying: _Saying, known: _Known) -> None:
        if known.name:
            try:
                await self._patch(saying, known)
            except NotFoundError:  # the API server forgets Events after an hour
                known.name = ""
            else:
                return
        await self._create(saying, known)

    async def _create(self, saying: _Saying, known: _Known) -> None:
        namespace = saying.regarding.namespace or "default"
        stem = saying.regarding.name[:_NAME_CHARS].rstrip("-.")
        name = f"{stem}.{self._suffix()}"
        body: dict[str, Any] = {
            "apiVersion": EVENTS.api_version,
            "kind": EVENTS.kind,
            "metadata": {"name": name, "namespace": namespace},
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
        known.name = name

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
