"""KubernetesSource: the API server as a source of objects.

It owns one informer per kind and the caches that they fill. Watches are narrow: one namespace, the
one pool by name, and of the pods only those that the pool selects. When the selector changes, the
pods are listed again with the new one, and a pod that both select never leaves the cache.

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
from epp.kube.reflector_observer import ReflectorObserver
from epp.kube.reflector_settings import DEFAULT_SETTINGS, ReflectorSettings
from epp.kube.resource import PODS
from epp.logs import get_logger
from epp.sources.caches import SourceCaches
from epp.sources.kinds import KINDS, OLD_POOLS, POOLS, SourceKind
from epp_api.core_v1 import Pod
from epp_api.meta import NamespacedName, ObjectMeta
from epp_api.v1.inferencepool_types import InferencePool, InferencePoolSpec, LabelSelector, Port

log = get_logger(__name__)

T = TypeVar("T", bound=KubeObject)


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
        self._observer = observer
        self._settings = settings
        kinds = [kind for kind in KINDS if self._follows(kind, pool_group)]
        self._informers = [self._informer(kind) for kind in kinds]
        self._pods: Informer[Pod] | None = None
        self._selector = pod_selector
        self._selected = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to fill the caches; each says itself when it is complete."""
        if self._pod_selector is None:
            self.caches.pools_v1.subscribe(self._pool_changed)
            self.caches.pools_v1alpha2.subscribe(self._pool_changed)
        else:
            self.caches.pools_v1.upsert(self._own_pool())
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
            log.info("pool does not exist yet, waiting for it", pool=str(self._pool))
            self.caches.pods.mark_synced()
            await self._selected.wait()
        pods = self._pods = Informer(
            self._client,
            self.caches.pods,
            [Candidate(resource=PODS, decode=_decoder(Pod))],
            namespace=self._pool.namespace,
            label_selector=self._selector or "",
            settings=self._settings,
            observer=self._observer,
        )
        await pods.start()
        try:
            await pods.wait_ended()
        finally:
            await pods.stop()

    def _pool_changed(self, _event: ObjectEvent[Any]) -> None:
        """Follow the pods that the pool selects now; those of a pool that is gone stay known."""
        pool = self._current_pool()
        if pool is None:
            return
        self._selector = ",".join(f"{key}={value}" for key, value in sorted(pool.selector.items()))
        self._selected.set()
        if self._pods is not None:
            self._pods.reselect(self._selector)

    def _current_pool(self) -> EndpointPool | None:
        current = self.caches.pools_v1.get(self._pool)
        if current is not None and current.metadata.deletion_timestamp is None:
            return pool_from_v1(current)
        old = self.caches.pools_v1alpha2.get(self._pool)
        if old is not None and old.metadata.deletion_timestamp is None:
            return pool_from_v1alpha2(old)
        return None

    def _follows(self, kind: SourceKind, pool_group: str) -> bool:
        if self._pod_selector is not None or kind.resource == PODS:
            return False
        is_pool = kind.resource in {POOLS, OLD_POOLS}
        return not (is_pool and pool_group and kind.resource.group != pool_group)

    def _unfollowed(self) -> Sequence[ObjectCache[Any]]:
        followed = {id(informer.cache) for informer in self._informers}
        caches = self.caches.by_type.values()
        return [c for c in caches if id(c) not in followed and c is not self.caches.pods]

    def _informer(self, kind: SourceKind) -> Informer[Any]:
        is_pool = kind.resource in {POOLS, OLD_POOLS}
        return Informer(
            self._client,
            self.caches.by_type[kind.type_id],
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


def _decoder(kind: type[T]) -> Callable[[bytes | msgspec.Raw], T]:
    return msgspec.json.Decoder(kind).decode
