"""Reflector: keeps a store equal to what the API server has of one kind.

Three nested loops, each with one concern: ``run`` for ever, over changes of the selector;
``_follow`` over rounds, with back-off between those that fail; ``_round`` once from what is known
to the end of one watch. Requests live in ``listing`` and ``watching``.

Invariants: the store is only written here; it changes when a list is complete, never during one;
what does not decode keeps its last good state; nothing here blocks the loop for more than a few
milliseconds; a server that refuses, closes or expires at once is asked ever more slowly.
Reference: client-go tools/cache/reflector.go (protocol), kopf clients/watching.py (the split).
"""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import replace
from typing import Generic, Never, Protocol, TypeVar, assert_never

from epp.kube.api import KubeApi
from epp.kube.cache import KubeObject
from epp.kube.clock import LOOP_CLOCK, Clock
from epp.kube.decoding import Decode, Decoded, ObjectDecoder
from epp.kube.errors import (
    ApiError,
    ForbiddenError,
    GoneError,
    InvalidError,
    NotFoundError,
    ServerError,
    TooManyRequestsError,
)
from epp.kube.listing import BATCH, Listing, list_all
from epp.kube.reflector_observer import NullObserver, ReflectorObserver
from epp.kube.reflector_settings import DEFAULT_SETTINGS, ReflectorSettings
from epp.kube.retry import FailureLog, reason_of, retrying
from epp.kube.selection import Selection
from epp.kube.watching import Bookmark, Changed, Deleted, Event, Unknown, watch
from epp.logs import get_logger
from epp_api.meta import NamespacedName

log = get_logger(__name__)

T = TypeVar("T", bound=KubeObject)

_GATEWAY_TIMEOUT = 504
"""What a server says that has not caught up with a resourceVersion within three seconds."""


class KindGoneError(Exception):
    """The API server does not serve this kind."""


class Store(Protocol[T]):
    """Where objects go; ``cache.ObjectCache`` fits."""

    def list(self) -> Sequence[T]:
        """Every object."""
        ...

    def upsert(self, obj: T) -> None:
        """Store an object; an equal one changes nothing."""
        ...

    def delete(self, key: NamespacedName) -> None:
        """Forget an object."""
        ...

    def mark_synced(self) -> None:
        """The first complete list is in."""
        ...


class Reflector(Generic[T]):
    """Lists and watches one kind into a store.

    Args:
        client: Where to ask.
        selection: What to ask for.
        decode: Decodes one object.
        store: Where objects go.
        settings: How to list and watch.
        clock: Measures waits.
        draw: Uniform in [0, 1), for jitter.
        observer: Counts.
        on_forbidden: Called whenever RBAC does not allow a list or a watch.
    """

    def __init__(
        self,
        client: KubeApi,
        selection: Selection,
        decode: Decode[T],
        store: Store[T],
        *,
        settings: ReflectorSettings = DEFAULT_SETTINGS,
        clock: Clock = LOOP_CLOCK,
        draw: Callable[[], float] = random.random,
        observer: ReflectorObserver | None = None,
        on_forbidden: Callable[[], None] = lambda: None,
    ) -> None:
        self.kind = selection.resource.kind
        self._client = client
        self._selection = selection
        self._store = store
        self._settings = settings
        self._clock = clock
        self._draw = draw
        self._observer = observer or NullObserver()
        self._on_forbidden = on_forbidden
        self._decoder = ObjectDecoder(self.kind, decode, on_broken=self._count_broken)
        self._streams = settings.streams_lists
        self._version = ""
        self._following: asyncio.Task[None] | None = None
        api_version = selection.resource.api_version
        self._failures = FailureLog(
            "list and watch failed", kind=self.kind, api_version=api_version
        )
        self._unknown_types: set[str] = set()

    def reselect(self, label_selector: str) -> None:
        """Follow another label selector from now on.

        The store keeps what it has until the new list is complete: objects that both selectors
        select never disappear from it.
        """
        if label_selector == self._selection.label_selector:
            return
        self._selection = replace(self._selection, label_selector=label_selector)
        if self._following is not None:
            self._following.cancel()

    async def run(self) -> Never:
        """Keep the store up to date for ever.

        Raises:
            KindGoneError: The API server does not serve the kind, or not any more.
        """
        while True:
            self._version = ""
            following = asyncio.create_task(self._follow(), name=f"reflector {self.kind}")
            self._following = following
            try:
                await asyncio.wait((following,))
            finally:
                self._following = None
                following.cancel()
                await asyncio.wait((following,))
            if not following.cancelled():
                following.result()

    async def _follow(self) -> None:
        """Round after round, for ever; the back-off starts over after one that was worth it."""
        policy = retrying(
            backoff=self._settings.backoff,
            clock=self._clock,
            draw=self._draw,
            gives_up=(KindGoneError,),
            on_failure=self._note_failure,
        )
        while True:
            await policy(self._round)

    async def _round(self) -> None:
        """List if need be, then watch until the watch ends. Returns if that was worth it."""
        try:
            if self._version:
                await self._watch_on()
            elif self._streams:
                await self._stream()
            else:
                await self._list()
                await self._watch_on()
        except NotFoundError as exc:
            raise KindGoneError(str(exc)) from exc
        except Exception as exc:
            if not isinstance(exc, ApiError) or _spoils_version(exc):
                self._version = ""
            raise

    async def _list(self) -> None:
        listing = await list_all(
            self._client,
            self._selection,
            self._decoder,
            limit=self._settings.page_size,
            timeout_seconds=self._settings.list_seconds,
        )
        await self._apply(listing)

    async def _stream(self) -> None:
        """List and watch in one request; without the feature, in pages from now on."""
        query = {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan"}
        reason = "no end of the initial events"
        async with AsyncExitStack() as opened:
            is_listed = False
            try:
                events = await opened.enter_async_context(self._open(query))
                is_listed = await self._apply_initial(events)
            except InvalidError as exc:
                reason = str(exc)
            if is_listed:
                await self._consume(events)
                return
        self._streams = False
        log.info("server does not stream lists, using pages", kind=self.kind, reason=reason)
        await self._list()
        await self._watch_on()

    async def _watch_on(self) -> None:
        async with self._open({"resourceVersion": self._version}) as events:
            await self._consume(events)

    def _open(
        self, query: Mapping[str, str]
    ) -> AbstractAsyncContextManager[AsyncIterator[Event[T]]]:
        # Spread, so that not every watch of every replica ends at the same time.
        seconds = int(self._settings.watch_seconds * (1.0 + self._draw()))
        return watch(
            self._client,
            self._selection,
            self._decoder,
            {**query, "timeoutSeconds": str(max(seconds, 1))},
            idle_seconds=self._settings.idle_seconds,
        )

    async def _apply_initial(self, events: AsyncIterator[Event[T]]) -> bool:
        """Store a streamed list, and let go of it: the watch that follows may last for hours."""
        listing = await self._initial_events(events)
        if listing is not None:
            await self._apply(listing)
        return listing is not None

    async def _initial_events(self, events: AsyncIterator[Event[T]]) -> Listing[T] | None:
        """Collect a streamed list. None when the server does not stream one."""
        objects: dict[NamespacedName, Decoded[T]] = {}
        silence = self._settings.silent_list_seconds
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(silence) as deadline:
                async for event in events:
                    match event:
                        case Changed(decoded):
                            objects[decoded.key] = decoded
                        case Deleted(key, _):
                            objects.pop(key, None)
                        case Bookmark(version, ends_list):
                            return Listing(list(objects.values()), version) if ends_list else None
                        case Unknown(kind):
                            self._note_unknown(kind)
                    deadline.reschedule(loop.time() + silence)
                    if len(objects) % BATCH == 0:
                        await asyncio.sleep(0)
        except TimeoutError:
            pass
        return None

    async def _apply(self, listing: Listing[T]) -> None:
        """Make the store hold what was listed, giving way to others in between.

        Additions come first: whoever looks in between sees too much rather than nothing.
        """
        listed = {decoded.key for decoded in listing.objects}
        gone = [key for obj in self._store.list() if (key := obj.metadata.key) not in listed]
        for number, decoded in enumerate(listing.objects, start=1):
            if decoded.value is not None:
                self._store.upsert(decoded.value)
            if number % BATCH == 0:
                await asyncio.sleep(0)
        for number, key in enumerate(gone, start=1):
            self._store.delete(key)
            self._decoder.forget(key)
            if number % BATCH == 0:
                await asyncio.sleep(0)
        self._version = listing.resource_version
        self._store.mark_synced()
        self._observer.relisted(self.kind)
        log.debug("listed", kind=self.kind, objects=len(listed), deleted=len(gone))

    async def _consume(self, events: AsyncIterator[Event[T]]) -> None:
        """Store what a watch brings until it ends. Raises unless that was worth a watch."""
        begun, version = self._clock.time(), self._version
        short = self._settings.short_watch_seconds
        lasting = self._clock.call_later(short, self._failures.works)
        ended: ApiError | None = None
        try:
            await self._handle_all(events)
        except ApiError as exc:
            ended = exc
        finally:
            lasting.cancel()
        self._observer.watch_restarted(self.kind)
        was_worth_it = self._version != version or self._clock.time() - begun >= short
        if not was_worth_it or isinstance(ended, NotFoundError | TooManyRequestsError):
            what = self._selection.what("watch")
            raise ended or ServerError(f"{what}: the server ends the watch at once")
        if ended is not None:
            self._observer.failed(self.kind, reason_of(ended))
            log.debug("watch interrupted", kind=self.kind, error=ended)
            if _spoils_version(ended):
                self._version = ""

    async def _handle_all(self, events: AsyncIterator[Event[T]]) -> None:
        handled = 0
        async for event in events:
            self._failures.works()
            self._handle(event)
            handled += 1
            if handled % BATCH == 0:
                await asyncio.sleep(0)

    def _handle(self, event: Event[T]) -> None:
        match event:
            case Changed(decoded):
                if decoded.value is not None:
                    self._store.upsert(decoded.value)
                self._version = decoded.resource_version or self._version
            case Deleted(key, version):
                self._store.delete(key)
                self._version = version or self._version
            case Bookmark(version, _):
                self._go_on_from(version)
            case Unknown(kind):
                self._note_unknown(kind)
            case _:
                assert_never(event)

    def _go_on_from(self, version: str) -> None:
        """Take a bookmark. One that is older than what we have seen is of another history."""
        known = self._version
        if version.isdecimal() and known.isdecimal() and int(version) < int(known):
            what = self._selection.what("watch")
            raise GoneError(f"{what}: resourceVersion went back from {known} to {version}")
        self._version = version or known

    def _note_failure(self, exc: Exception, retry_seconds: float) -> None:
        self._observer.failed(self.kind, reason_of(exc))
        if isinstance(exc, ForbiddenError):
            self._on_forbidden()
        if retry_seconds > 0:
            self._failures.failed(exc, retry_seconds)
        else:
            log.debug("listing again", kind=self.kind, reason=exc)

    def _note_unknown(self, kind: str) -> None:
        if kind not in self._unknown_types:
            self._unknown_types.add(kind)
            log.warning("unusable watch event ignored", kind=self.kind, type=kind[:40])

    def _count_broken(self) -> None:
        self._observer.failed(self.kind, "Undecodable")


def _spoils_version(exc: ApiError) -> bool:
    """Tell whether the version we go on from may be the reason: list again."""
    too_new = isinstance(exc, ServerError) and exc.status == _GATEWAY_TIMEOUT
    return too_new or isinstance(exc, GoneError | InvalidError)
