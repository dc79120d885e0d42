"""KubeWorld: all that the EPP knows of a cluster, in the test's own process.

The parts of ``epp serve`` between the API server and the datastore, wired as there: source, caches,
controllers, Events, status. There are no ports and no requests, and waits are short, so that a test
sees in a tenth of a second what one process would show another in seconds.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from epp.backend.endpoint import Endpoint
from epp.backend.endpoint_rows import EndpointRows
from epp.controller.model_status_setup import build_status_controller
from epp.controller.setup import build_controllers
from epp.datastore.datastore import Datastore
from epp.kube.cache_barrier import CacheBarrier
from epp.kube.client import KubeClient
from epp.kube.connection_settings import ConnectionSettings
from epp.kube.controller import Controller
from epp.kube.events import EventRecorder, EventSettings
from epp.kube.reflector_settings import ReflectorSettings
from epp.kube.workqueue import Backoff
from epp.sources.kubernetes import KubernetesSource
from epp.testing.api_admin import ApiAdmin, identity
from epp.testing.informer_world import Counts
from epp.testing.kube_manifests import Manifest, PodState
from epp.testing.stack import eventually
from epp_api.meta import NamespacedName

CONTROLLER_NAME = "example.com/endpoint-picker"
START_SECONDS = 20.0

HASTY = ReflectorSettings(
    silent_list_seconds=2.0,
    short_watch_seconds=0.2,
    backoff=Backoff(first_seconds=0.05, max_seconds=0.25, jitter_ratio=0.5),
    missing_seconds=0.2,
    refused_seconds=0.1,
)
"""As in production, with a tenth of the patience."""

PAGED = replace(HASTY, streams_lists=False, page_size=2)
"""For servers that do not stream lists; the pages are small enough to need several."""

HASTY_EVENTS = EventSettings(series_seconds=0.1, pause_seconds=0.0)
STATUS_RETRY_SECONDS = 0.3


class Journal:
    """Every change of the served set, as an EDS file or a scraper would hear of it.

    Attributes:
        lines: ``("added" | "changed" | "removed", name of the endpoint, its address)``.
    """

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, str]] = []

    def endpoint_added(self, endpoint: Endpoint) -> None:
        """Write it down."""
        self.lines.append(("added", endpoint.name, endpoint.target))

    def endpoint_updated(self, old: Endpoint, new: Endpoint) -> None:  # noqa: ARG002 - protocol
        """Write it down."""
        self.lines.append(("changed", new.name, new.target))

    def endpoint_removed(self, endpoint: Endpoint) -> None:
        """Write it down."""
        self.lines.append(("removed", endpoint.name, endpoint.target))

    @property
    def removed(self) -> set[str]:
        """Pods that have lost an endpoint at some time."""
        return {name.rpartition("-rank-")[0] for what, name, _ in self.lines if what == "removed"}


class KubeWorld:
    """The EPP's knowledge of one pool. Enter it to start; it belongs to one event loop.

    Args:
        connection: How to reach the API server, and as whom.
        pool: The pool that is served.
        settings: How to list and watch.
        wait: Enter the block once everything has been read; otherwise at once.
        source: More arguments of ``KubernetesSource``.

    Attributes:
        datastore: What requests would see.
        journal: How it came to be.
        counts: What reflectors report.
        outcomes: ``(controller, outcome)`` of each call of a reconciler.
    """

    def __init__(
        self,
        connection: ConnectionSettings,
        pool: NamespacedName,
        *,
        settings: ReflectorSettings = HASTY,
        wait: bool = True,
        **source: Any,
    ) -> None:
        self.counts = Counts()
        self.client = KubeClient(connection)
        self.source = KubernetesSource(
            self.client, pool, settings=settings, observer=self.counts, **source
        )
        self.rows = EndpointRows()
        self.datastore = Datastore(self.rows)
        self.journal = Journal()
        self.datastore.add_endpoint_listener(self.journal)
        self.outcomes: list[tuple[str, str]] = []
        self._pool = pool
        self._wait = wait
        self._events = EventRecorder(
            self.client, controller=CONTROLLER_NAME, instance="test", settings=HASTY_EVENTS
        )
        self._controllers: Sequence[Controller] = ()
        self._beginning: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Start to follow the cluster."""
        await self._events.start()
        await self.source.start()
        self._beginning = asyncio.create_task(self._begin(), name="kube world begins")
        if self._wait:
            try:
                await asyncio.wait_for(asyncio.shield(self._beginning), START_SECONDS)
            except BaseException:
                await self._stop()
                raise
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _exc: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        """Stop everything."""
        await self._stop()

    @property
    def has_synced(self) -> bool:
        """Every first list is in, and controllers run."""
        return bool(self._controllers)

    @property
    def endpoints(self) -> dict[str, str]:
        """Addresses by name of the endpoint, which is ``<pod>-rank-<i>``."""
        table = self.datastore.endpoint_table()
        return {endpoint.name: endpoint.target for endpoint in table.endpoints}

    @property
    def pods(self) -> set[str]:
        """Names of the pods that are served."""
        return {endpoint.pod_name for endpoint in self.datastore.endpoint_table().endpoints}

    @property
    def models(self) -> dict[str, str]:
        """Name of the object that owns each model name."""
        return {m.spec.model_name: m.metadata.name for m in self.datastore.model_list()}

    @property
    def objectives(self) -> dict[str, int]:
        """Priorities by name of the objective."""
        return {o.metadata.name: o.priority for o in self.datastore.objective_list()}

    def target_of(self, model_name: str) -> list[str]:
        """Targets of the rewrite rule that applies to a model name."""
        found = self.datastore.rewrite_get(model_name)
        return [] if found is None else [target.model_rewrite for target in found.targets]

    async def until(
        self, condition: Callable[[], Any], *, what: str = "condition", seconds: float = 10.0
    ) -> None:
        """Wait for a condition. Raises TimeoutError, with what is known."""
        try:
            await eventually(condition, seconds=seconds, what=what)
        except TimeoutError as exc:
            exc.add_note(f"endpoints {self.endpoints}, models {self.models}")
            exc.add_note(f"objectives {self.objectives}, journal {self.journal.lines[-20:]}")
            raise

    async def serves(self, *pods: str) -> None:
        """Wait until exactly these pods are served."""
        await self.until(lambda: self.pods == set(pods), what=f"the pods {sorted(pods)}")

    async def caught_up(self, *stored: Mapping[str, Any]) -> None:
        """Wait until objects are known as the API server stored them, and have been reconciled."""
        await self.until(lambda: all(map(self._knows, stored)), what="the stored objects")
        await self.idle()

    async def idle(self) -> None:
        """Wait until controllers have nothing to do."""
        await self.until(
            lambda: all(controller.queue.idle for controller in self._controllers),
            what="idle controllers",
        )

    def _knows(self, stored: Mapping[str, Any]) -> bool:
        meta = stored["metadata"]
        cache = self.source.caches.by_type[(stored["apiVersion"], stored["kind"])]
        known = cache.get(NamespacedName(meta["namespace"], meta["name"]))
        return known is not None and int(known.metadata.resource_version) >= int(
            meta["resourceVersion"]
        )

    async def _begin(self) -> None:
        caches = self.source.caches
        await CacheBarrier(list(caches.by_type.values())).start()
        status = build_status_controller(
            caches,
            self._pool,
            client=self.client,
            events=self._events,
            on_outcome=self._note,
            retry_seconds=STATUS_RETRY_SECONDS,
        )
        running = [
            *build_controllers(caches, self.datastore, self._pool, on_outcome=self._note),
            status.controller,
        ]
        for controller in running:
            await controller.start()
        self._controllers = running

    def _note(self, controller: str, outcome: str) -> None:
        self.outcomes.append((controller, outcome))

    async def _stop(self) -> None:
        if self._beginning is not None:
            self._beginning.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._beginning
        for controller in reversed(self._controllers):
            await controller.stop()
        await self.source.stop()
        await self._events.stop()
        await self.client.close()


class PoolNamespace:
    """What people, Deployments and kubelets do in one namespace.

    Args:
        admin: An administrator.
        name: The namespace.
    """

    def __init__(self, admin: ApiAdmin, name: str) -> None:
        self.admin = admin
        self.name = name

    @property
    def pool_key(self) -> NamespacedName:
        """Key of the pool that manifests make by default."""
        return NamespacedName(self.name, "pool")

    async def put(self, *wanted: Manifest | PodState) -> list[dict[str, Any]]:
        """Create objects, or replace them; pods get their status, too."""
        return [
            await self._put_pod(one)
            if isinstance(one, PodState)
            else (await self.admin.apply([one], namespace=self.name))[0]
            for one in wanted
        ]

    async def patch(self, manifest: Manifest, change: Manifest) -> dict[str, Any]:
        """Merge into an object."""
        return await self.admin.patch(manifest, change, namespace=self.name)

    async def repoint(self, manifest: Manifest, pool: str) -> dict[str, Any]:
        """Let an object refer to another pool."""
        return await self.patch(manifest, {"spec": {"poolRef": {"name": pool}}})

    async def delete(self, *gone: Manifest | PodState, grace_seconds: int | None = 0) -> None:
        """Delete objects; with a grace, pods stay and are marked as being deleted."""
        for one in gone:
            manifest = one.manifest if isinstance(one, PodState) else one
            await self.admin.delete(manifest, namespace=self.name, grace_seconds=grace_seconds)

    async def let_go(self, manifest: Manifest) -> None:
        """Take finalizers off, so that what is being deleted goes."""
        await self.patch(manifest, {"metadata": {"finalizers": []}})

    async def _put_pod(self, state: PodState) -> dict[str, Any]:
        manifest = state.manifest
        if await self.admin.find(manifest, namespace=self.name) is None:
            await self.admin.create(manifest, namespace=self.name)
        else:
            meta = {"labels": dict(state.labels), "annotations": dict(state.annotations)}
            await self.patch(identity("v1", "Pod", state.name), {"metadata": meta})
        return await self.admin.patch_status(manifest, state.status, namespace=self.name)
