"""Informer: a cache of one kind that fills itself and stays up to date, as a runnable.

A kind that may be missing is looked for, and followed in the first group version that is served.
While it is missing its cache is empty and counts as synced; it is looked for again, and let go
again when its definition is deleted. A single 404 proves nothing: it is confirmed by discovery. One
that is served but forbidden counts as synced after a while, and is tried on.
"""

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from epp.kube.api import KubeApi
from epp.kube.cache import KubeObject, ObjectCache
from epp.kube.clock import LOOP_CLOCK, Clock, Timer
from epp.kube.decoding import Decode
from epp.kube.discovery import first_served
from epp.kube.reflector import KindGoneError, Reflector
from epp.kube.reflector_observer import NullObserver, ReflectorObserver
from epp.kube.reflector_settings import DEFAULT_SETTINGS, ReflectorSettings
from epp.kube.resource import Resource
from epp.kube.retry import FailureLog, reason_of, retrying
from epp.kube.selection import Selection
from epp.kube.timing import sleep
from epp.logs import get_logger

log = get_logger(__name__)

T = TypeVar("T", bound=KubeObject)

CONFIRM_SECONDS = 1.0
"""Between a 404 and the question whether the kind is really gone: a starting API server may not
have read its custom resource definitions yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate(Generic[T]):
    """A kind in one of its group versions.

    Attributes:
        resource: Where it lives.
        decode: Decodes one object, e.g. ``msgspec.json.Decoder(Pod).decode``.
    """

    resource: Resource
    decode: Decode[T]


class Informer(Generic[T]):
    """Follows one kind into a cache.

    Args:
        client: The API server.
        cache: Filled here and nowhere else.
        candidates: Group versions of the kind, the preferred one first.
        namespace: Empty means all of them.
        label_selector: As in the API.
        field_selector: As in the API.
        optional: The kind may be missing. Otherwise it is waited for.
        on_served: Called with the apiVersion that is followed, or None when the kind is missing,
            whenever that changes.
        settings: How to list and watch.
        clock: Measures waits.
        draw: Uniform in [0, 1), for jitter.
        observer: Counts.
    """

    def __init__(
        self,
        client: KubeApi,
        cache: ObjectCache[T],
        candidates: Sequence[Candidate[T]],
        *,
        namespace: str = "",
        label_selector: str = "",
        field_selector: str = "",
        optional: bool = False,
        on_served: Callable[[str | None], None] = lambda _api_version: None,
        settings: ReflectorSettings = DEFAULT_SETTINGS,
        clock: Clock = LOOP_CLOCK,
        draw: Callable[[], float] = random.random,
        observer: ReflectorObserver | None = None,
    ) -> None:
        self.cache = cache
        self._client = client
        self._candidates = {candidate.resource: candidate for candidate in candidates}
        self._namespace = namespace
        self._label_selector = label_selector
        self._field_selector = field_selector
        self._optional = optional
        self._on_served = on_served
        self._settings = settings
        self._clock = clock
        self._draw = draw
        self._observer = observer or NullObserver()
        wanted = ",".join(candidate.resource.api_version for candidate in candidates)
        named = {"kind": cache.kind, "api_version": wanted}
        self._failures = FailureLog("cannot ask whether the kind is served", **named)
        self._contradictions = FailureLog("kind is served but not found", **named)
        self._refused = False
        self._reflector: Reflector[T] | None = None
        self._served: str | None = None
        self._looked = False
        self._patience: Timer | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def has_synced(self) -> bool:
        """The cache holds a complete list, or the kind is known to be missing."""
        return self.cache.has_synced

    @property
    def refused(self) -> bool:
        """The cache counts as complete although we may not read the kind."""
        return self._refused

    @property
    def served(self) -> str | None:
        """The apiVersion that is followed; None while the kind is missing or not looked for."""
        return self._served

    def reselect(self, label_selector: str) -> None:
        """Follow another label selector; see ``Reflector.reselect``."""
        self._label_selector = label_selector
        if self._reflector is not None:
            self._reflector.reselect(label_selector)

    async def start(self) -> None:
        """Begin to fill the cache; ``cache.wait_synced`` waits for it."""
        self._task = asyncio.create_task(self._run(), name=f"informer {self.cache.kind}")

    async def wait_ended(self) -> None:
        """Wait until it has ended by itself, which it never should; raise what ended it."""
        if self._task is not None:
            await asyncio.shield(self._task)

    async def stop(self) -> None:
        """Stop following. The cache keeps what it has. Idempotent."""
        if self._patience is not None:
            self._patience.cancel()
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait((task,))

    async def _run(self) -> None:
        resource = self._sure() or await self._look()
        while True:
            if resource is None:
                self._note_missing()
                await sleep(
                    self._clock, self._settings.missing_seconds * (1.0 - 0.2 * self._draw())
                )
                resource = await self._look()
                continue
            self._note_served(resource)
            gone = await self._follow(self._candidates[resource])
            await sleep(self._clock, CONFIRM_SECONDS)
            resource = await self._look()
            if resource is not None:
                self._observer.failed(self.cache.kind, reason_of(gone))
                self._contradictions.failed(gone, CONFIRM_SECONDS)

    def _sure(self) -> Resource | None:
        """The kind that need not be looked for."""
        resources = list(self._candidates)
        return None if self._optional or len(resources) > 1 else resources[0]

    async def _look(self) -> Resource | None:
        """The group version to follow, None when no candidate is served. Waits for an answer."""
        policy = retrying(
            backoff=self._settings.backoff,
            clock=self._clock,
            draw=self._draw,
            on_failure=self._note_failure,
        )
        found: Resource | None = await policy(first_served, self._client, list(self._candidates))
        self._failures.works()
        return found

    async def _follow(self, candidate: Candidate[T]) -> KindGoneError:
        """Keep the cache up to date until the server says that there is no such kind."""
        selection = Selection(
            resource=candidate.resource,
            namespace=self._namespace,
            label_selector=self._label_selector,
            field_selector=self._field_selector,
        )
        self._reflector = Reflector(
            self._client,
            selection,
            candidate.decode,
            self.cache,
            settings=self._settings,
            clock=self._clock,
            draw=self._draw,
            observer=self._observer,
            on_forbidden=self._note_forbidden,
        )
        try:
            await self._reflector.run()
        except KindGoneError as exc:
            return exc
        finally:
            self._reflector = None

    def _note_served(self, resource: Resource) -> None:
        if self._served != resource.api_version:
            self._looked, self._served = True, resource.api_version
            log.info("following a kind", kind=self.cache.kind, api_version=resource.api_version)
            self._on_served(resource.api_version)

    def _note_missing(self) -> None:
        for obj in self.cache.list():
            self.cache.delete(obj.metadata.key)
        if self._optional:
            self.cache.mark_synced()
        if self._served is None and self._looked:
            return
        self._looked, self._served = True, None
        wanted = [resource.api_version for resource in self._candidates]
        log.info("kind is not served, waiting for it", kind=self.cache.kind, api_versions=wanted)
        self._on_served(None)

    def _note_forbidden(self) -> None:
        """Nobody waits for ever for an optional kind that we may not read."""
        if self._optional and not self.cache.has_synced and self._patience is None:
            seconds = self._settings.refused_seconds
            self._patience = self._clock.call_later(seconds, self._go_on_without)

    def _go_on_without(self) -> None:
        if not self.cache.has_synced:
            self._refused = True
            log.warning(
                "kind is forbidden, going on without it",
                kind=self.cache.kind,
                api_version=self._served,
            )
            self.cache.mark_synced()

    def _note_failure(self, exc: Exception, retry_seconds: float) -> None:
        self._observer.failed(self.cache.kind, reason_of(exc))
        self._failures.failed(exc, retry_seconds)
