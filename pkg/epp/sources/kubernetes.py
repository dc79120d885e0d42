"""KubernetesSource: the API server as a source of objects.

It owns one informer per kind and the caches that they fill. Watches are narrow: one namespace, the
one pool by name, and of the pods only those that the pool selects. When the selector changes, the
pods are listed again with the new one, and a pod that both select never leaves the cache. The
changed pool itself is shown only then: before, nobody would know a pod that the new one selects.

Kinds may be missing in a cluster: their caches are empty then, and they are looked for again.
"""

import asyncio
from asyncio import FIRST_COMPLETED
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgspec

from epp.datastore.endpoint_pool import EndpointPool, pool_from_v1, pool_from_v1alpha2
from epp.kube.api import KubeApi
from epp.kube.cache import KubeObject, ObjectCache, ObjectEvent
from epp.kube.informer import Candidate, Informer
from epp.kube.reflector_observer import NullObserver, ReflectorObserver
from epp.kube.reflector_settings import DEFAULT_SETTINGS, ReflectorSettings
from epp.kube.resource import PODS, Resource
from epp.logs import get_logger
from epp.sources.caches import SourceCaches
from epp.sources.kinds import KINDS, OLD_POOLS, POOLS, SourceKind
from epp_api.core_v1 import Pod
from epp_api.meta import NamespacedName, ObjectMeta
from epp_api.v1.inferencepool_types import InferencePool, InferencePoolSpec, LabelSelector, Port

log = get_logger(__name__)

T = TypeVar("T", bound=KubeObject)


class ArrivingPools(ObjectCache[T]):
    """Pools as the API server has them, which reconcilers are shown later.

    Args:
        shown: What reconcilers read.
    """

    def __init__(self, shown: ObjectCache[T]) -> None:
        super().__init__(shown.kind)
        self._shown = shown

    def mark_synced(self) -> None:
        """The first list is in, and shown: nothing is held back then."""
        super().mark_synced()
        self._shown.mark_synced()

    def show(self) -> None:
        """Let reconcilers see what has arrived."""
        self._shown.replace(self.list())


class KubernetesSource:
    """Feeds the caches from an API server.

    Args:
        client: The API server. Closed by whoever made it.
        pool: The pool that is served; its namespace is the only one that is watched.
        pool_group: API group of the pool; empty takes whichever has it, v1 first.
        pod_selector: Serve the pods of this label selector, on ``target_ports``, without an
            InferencePool and the kinds that refer to one; None serves the pool.
        target_ports: Ports of those pods.
        observer: Counts.
        settings: How to list and watch.
    """

    def __init__(
        self,
        client: KubeApi,
        pool: NamespacedName,
        *,
        pool_group: str = "",
        pod_selector: str | None = None,
        target_ports: Sequence[int] = (),
        observer: ReflectorObserver | None = None,
        settings: ReflectorSettings = DEFAULT_SETTINGS,
    ) -> None:
        self.caches = SourceCaches()
        self._client = client
        self._pool = pool
        self._pod_selector = pod_selector
        self._target_ports = tuple(target_ports)
        self._observer = observer or NullObserver()
        self._settings = settings
        self._arriving = ArrivingPools(self.caches.pools_v1)
        self._arriving_old = ArrivingPools(self.caches.pools_v1alpha2)
        self._awaits_pods = False
        self._kinds = [kind for kind in KINDS if self._follows(kind, pool_group)]
        self._informers = [self._informer(kind) for kind in self._kinds]
        self._pool_informers = [
            informer
            for kind, informer in zip(self._kinds, self._informers, strict=True)
            if kind.resource in {POOLS, OLD_POOLS}
        ]
        self._pods: Informer[Pod] | None = None
        self._selector = pod_selector
        self._selected = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to fill the caches; each says itself when it is complete."""
        if self._pod_selector is None:
            self._arriving.subscribe(self._pool_changed)
            self._arriving_old.subscribe(self._pool_changed)
            self.caches.pods.subscribe(self._pod_changed)
        else:
            self._arriving.upsert(self._own_pool())
            self._arriving.show()
        for cache in self._unfollowed():
            cache.mark_synced()
        for informer in self._informers:
            await informer.start()
        self._task = asyncio.create_task(self._follow_pods(), name="pods of the pool")

    async def stop(self) -> None:
        """Stop following; the caches keep what they have. Idempotent."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))
        for informer in self._informers:
            await informer.stop()

    async def wait_ended(self) -> None:
        """Wait until something has ended by itself, which nothing should; raise what ended it."""
        if self._task is None:
            return
        waits = [asyncio.ensure_future(informer.wait_ended()) for informer in self._informers]
        try:
            done, _ = await asyncio.wait((self._task, *waits), return_when=FIRST_COMPLETED)
            for ended in done:
                ended.result()
        finally:
            for wait in waits:
                wait.cancel()

    async def _follow_pods(self) -> None:
        """Follow the pods of the pool; without a pool there are none, until it comes."""
        if self._selector is None:
            await self.caches.pools_v1.wait_synced()
            await self.caches.pools_v1alpha2.wait_synced()
        if self._selector is None:
            self._say_that_we_wait()
            self.caches.pods.mark_synced()
            await self._selected.wait()
        pods = self._pods = Informer(
            self._client,
            self.caches.pods,
            [Candidate(resource=PODS, decode=_decoder(Pod))],
            namespace=self._pool.namespace,
            label_selector=self._selector or "",
            settings=self._settings,
            observer=_PodObserver(self._observer, self._show_pools),
        )
        await pods.start()
        try:
            await pods.wait_ended()
        finally:
            await pods.stop()

    def _say_that_we_wait(self) -> None:
        unread = [informer.served for informer in self._pool_informers if informer.refused]
        if unread:
            log.warning(
                "pool cannot be read, waiting for it", pool=str(self._pool), forbidden=unread
            )
        else:
            log.info("pool does not exist yet, waiting for it", pool=str(self._pool))

    def _pool_changed(self, _event: ObjectEvent[Any]) -> None:
        """Follow the pods that the pool selects now; those of a pool that is gone stay known."""
        pool = self._current_pool()
        if pool is None:
            self._show_pools()
            return
        selector = ",".join(f"{key}={value}" for key, value in sorted(pool.selector.items()))
        if self._pods is not None and selector != self._selector:
            self._awaits_pods = True
            self._pods.reselect(selector)
        self._selector = selector
        self._selected.set()
        if not self._awaits_pods:
            self._show_pools()

    def _pod_changed(self, event: ObjectEvent[Pod]) -> None:
        """The pods of a new selector are in before those of the old one go: show the pool between."""
        if self._awaits_pods and event.new is None:
            self._show_pools()

    def _show_pools(self) -> None:
        self._awaits_pods = False
        self._arriving.show()
        self._arriving_old.show()

    def _current_pool(self) -> EndpointPool | None:
        current = self._arriving.get(self._pool)
        if current is not None and current.metadata.deletion_timestamp is None:
            return pool_from_v1(current)
        old = self._arriving_old.get(self._pool)
        if old is not None and old.metadata.deletion_timestamp is None:
            return pool_from_v1alpha2(old)
        return None

    def _follows(self, kind: SourceKind, pool_group: str) -> bool:
        if self._pod_selector is not None or kind.resource == PODS:
            return False
        is_pool = kind.resource in {POOLS, OLD_POOLS}
        return not (is_pool and pool_group and kind.resource.group != pool_group)

    def _unfollowed(self) -> Sequence[ObjectCache[Any]]:
        followed = {PODS, *(kind.resource for kind in self._kinds)}
        return [self.caches.by_type[k.type_id] for k in KINDS if k.resource not in followed]

    def _informer(self, kind: SourceKind) -> Informer[Any]:
        arriving: dict[Resource, ObjectCache[Any]] = {
            POOLS: self._arriving,
            OLD_POOLS: self._arriving_old,
        }
        is_pool = kind.resource in arriving
        return Informer(
            self._client,
            arriving.get(kind.resource, self.caches.by_type[kind.type_id]),
            [Candidate(resource=kind.resource, decode=_decoder(kind.type))],
            namespace=self._pool.namespace,
            field_selector=f"metadata.name={self._pool.name}" if is_pool else "",
            optional=True,
            settings=self._settings,
            observer=self._observer,
        )

    def _own_pool(self) -> InferencePool:
        """A pool for pods that no InferencePool selects; the API server does the selecting."""
        ports = [Port(number=number) for number in self._target_ports]
        return InferencePool(
            metadata=ObjectMeta(name=self._pool.name, namespace=self._pool.namespace),
            spec=InferencePoolSpec(selector=LabelSelector(match_labels={}), target_ports=ports),
        )


class _PodObserver:
    """Passes on what it is told, and says when a list of pods is complete."""

    def __init__(self, observer: ReflectorObserver, on_listed: Callable[[], None]) -> None:
        self._observer = observer
        self._on_listed = on_listed

    def relisted(self, kind: str) -> None:
        self._observer.relisted(kind)
        self._on_listed()

    def watch_restarted(self, kind: str) -> None:
        self._observer.watch_restarted(kind)

    def failed(self, kind: str, reason: str) -> None:
        self._observer.failed(kind, reason)


def _decoder(kind: type[T]) -> Callable[[bytes | msgspec.Raw], T]:
    return msgspec.json.Decoder(kind).decode
