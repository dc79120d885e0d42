"""What tests of reflectors and informers share: pods, probes, and a clock that says what waits."""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec

from epp.kube.cache import ObjectCache
from epp.kube.client import KubeClient
from epp.kube.reflector import Reflector
from epp.kube.reflector_settings import ReflectorSettings
from epp.kube.resource import PODS
from epp.kube.selection import Selection
from epp.kube.workqueue import Backoff
from epp.testing.fake_clock import FakeClock, FakeTimer
from epp.testing.fake_kube import FakeKube
from epp.testing.fake_kube_selectors import Json
from epp_api.core_v1 import Pod

NAMESPACE = "demo"

decode_pod = msgspec.json.Decoder(Pod).decode

HASTY = ReflectorSettings(
    page_size=3,
    silent_list_seconds=0.2,
    idle_seconds=0.3,
    short_watch_seconds=0.02,
    backoff=Backoff(first_seconds=0.001, max_seconds=0.02),
)
"""Settings for tests on the real clock: every wait is short."""


def pod_object(name: str, namespace: str = NAMESPACE, **labels: str) -> Json:
    """A pod as the API server stores it."""
    meta = {"name": name, "namespace": namespace, "labels": {"app": "x", **labels}}
    return {"metadata": meta, "status": {"podIP": "10.0.0.1"}}


class CacheProbe:
    """Waits until a cache of pods is in some state; also remembers what was deleted from it."""

    def __init__(self, cache: ObjectCache[Pod]) -> None:
        self._cache = cache
        self._changed = asyncio.Event()
        self.deleted: list[str] = []
        cache.subscribe(self._note)

    @property
    def names(self) -> list[str]:
        """Names in the cache."""
        return [pod.metadata.name for pod in self._cache.list()]

    @property
    def versions(self) -> dict[str, str]:
        """What is in the cache: resourceVersion by name."""
        return {pod.metadata.name: pod.metadata.resource_version for pod in self._cache.list()}

    def agrees_with(self, kube: FakeKube, resource: Any, labels: str = "app=x") -> bool:
        """The cache holds exactly what the server has."""
        stored = kube.list(resource, NAMESPACE, labels)
        metas = [obj["metadata"] for obj in stored]
        return self.versions == {meta["name"]: meta["resourceVersion"] for meta in metas}

    async def until(self, condition: Callable[[], bool], *, seconds: float = 10.0) -> None:
        """Wait for a condition, looked at after every change. Raises TimeoutError."""
        async with asyncio.timeout(seconds):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    def _note(self, event: Any) -> None:
        if event.new is None:
            self.deleted.append(event.key.name)
        self._changed.set()


class Counts:
    """A ReflectorObserver that can be read."""

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()
        self._changed = asyncio.Event()

    def relisted(self, kind: str) -> None:
        """Count a list."""
        self._note(f"{kind} relisted")

    def watch_restarted(self, kind: str) -> None:
        """Count a watch that ended."""
        self._note(f"{kind} restarted")

    def failed(self, kind: str, reason: str) -> None:
        """Count a failure."""
        self._note(f"{kind} {reason}")

    async def until(self, name: str, times: int, *, seconds: float = 10.0) -> None:
        """Wait for a count. Raises TimeoutError."""
        async with asyncio.timeout(seconds):
            while self.seen[name] < times:
                self._changed.clear()
                await self._changed.wait()

    def _note(self, name: str) -> None:
        self.seen[name] += 1
        self._changed.set()


class WaitingClock(FakeClock):
    """A clock whose owner is told when somebody begins to wait.

    Args:
        ignored_seconds: Waits of exactly this length are somebody else's business.
    """

    def __init__(self, *, ignored_seconds: float = -1.0) -> None:
        super().__init__()
        self._ignored = ignored_seconds
        self._waits: asyncio.Queue[float] = asyncio.Queue()

    def call_later(self, delay: float, callback: Callable[[], None], /) -> FakeTimer:
        """Remember the wait."""
        if delay != self._ignored:
            self._waits.put_nowait(delay)
        return super().call_later(delay, callback)

    async def next_wait(self, *, seconds: float = 10.0) -> float:
        """How long the next one waits. Raises TimeoutError when nobody does."""
        async with asyncio.timeout(seconds):
            return await self._waits.get()

    async def skip_wait(self) -> float:
        """Let the next wait end; returns how long it would have been."""
        delay = await self.next_wait()
        self.advance(delay)
        return delay


class ReflectorWorld:
    """A fake server with three pods, and a reflector that follows it."""

    def __init__(self) -> None:
        self.kube = FakeKube()
        for name in ("a", "b", "c"):
            self.kube.create(PODS, pod_object(name))
        self.kube.create(PODS, pod_object("foreign", app="y"))
        self.cache: ObjectCache[Pod] = ObjectCache("Pod")
        self.probe = CacheProbe(self.cache)
        self.counts = Counts()
        self.task: asyncio.Task[None] | None = None

    def begin(self, settings: ReflectorSettings = HASTY, **options: Any) -> None:
        """Start to follow; options are the reflector's."""
        self.client = KubeClient(self.kube.settings())
        selection = Selection(resource=PODS, namespace="demo", label_selector="app=x")
        options.setdefault("observer", self.counts)
        self.reflector = Reflector(
            self.client, selection, decode_pod, self.cache, settings=settings, **options
        )
        self.task = asyncio.create_task(self.reflector.run(), name="reflector under test")

    async def synced(self) -> None:
        """Wait until store and server are equal and a watch is open."""
        await self.probe.until(self.agrees)
        await self.cache.wait_synced()
        await self.kube.until(lambda: self.kube.watching(PODS) > 0)

    def agrees(self, labels: str = "app=x") -> bool:
        """Store and server are equal."""
        return self.probe.agrees_with(self.kube, PODS, labels)

    async def end(self) -> None:
        """Stop following."""
        if self.task is not None:
            self.task.cancel()
            await asyncio.wait((self.task,))
            await self.client.close()
