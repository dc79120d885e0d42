"""PodChurn: pods that come, become ready and go, at a steady rate, and what should be served.

A number of slots live through pod after pod, each with a name and an address of its own, so that
an address tells for good which pod a request was sent to. Some pods become unready before they
are deleted. Each write is one event of a watch.
"""

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

from epp.kube.resource import PODS
from epp.testing.api_admin import ApiAdmin
from epp.testing.fake_kube import FakeKube
from epp.testing.kube_manifests import PodState

Write = Callable[[], Awaitable[None]]

UNREADY_EACH = 3
"""Every third pod becomes unready before it goes."""


class PodWriter(Protocol):
    """Where pods live."""

    async def create(self, state: PodState) -> None:
        """Create a pod without a status."""
        ...

    async def report(self, state: PodState) -> None:
        """Write its status."""
        ...

    async def delete(self, state: PodState) -> None:
        """Delete it at once."""
        ...


class ApiPods:
    """Pods of a real API server."""

    def __init__(self, admin: ApiAdmin, namespace: str) -> None:
        self._admin = admin
        self._namespace = namespace

    async def create(self, state: PodState) -> None:
        """POST."""
        await self._admin.create(state.manifest, namespace=self._namespace)

    async def report(self, state: PodState) -> None:
        """PATCH of the status."""
        await self._admin.patch_status(state.manifest, state.status, namespace=self._namespace)

    async def delete(self, state: PodState) -> None:
        """DELETE without grace."""
        await self._admin.delete(state.manifest, namespace=self._namespace, grace_seconds=0)


class FakePods:
    """Pods of a fake API server, which streams them to whoever watches."""

    def __init__(self, kube: FakeKube, namespace: str) -> None:
        self._kube = kube
        self._namespace = namespace

    async def create(self, state: PodState) -> None:
        """Store it."""
        self._kube.create(PODS, self._object(state, {}))

    async def report(self, state: PodState) -> None:
        """Store its status."""
        change: Any = {"status": state.status}
        self._kube.patch(PODS, self._namespace, state.name, change)

    async def delete(self, state: PodState) -> None:
        """Remove it."""
        self._kube.delete(PODS, self._namespace, state.name)

    def _object(self, state: PodState, status: Any) -> Any:
        made = state.manifest
        made["metadata"]["namespace"] = self._namespace
        return {**made, "status": status}


class PodChurn:
    """Pods that come and go.

    Args:
        pods: Where they live.
        port: Their port, for ``gone``.
        per_second: Writes in a second.
        slots: Pods at a time.
        network: First two numbers of their addresses.

    Attributes:
        events: Writes so far.
        ready: Names of the pods that should be served now.
        gone: When pods ceased to be servable, by ``ip:port``, on the monotonic clock.
        quiet_since: When the last write had its answer.
    """

    def __init__(
        self,
        pods: PodWriter,
        *,
        port: int,
        per_second: float,
        slots: int = 30,
        network: str = "127.90",
    ) -> None:
        self.events = 0
        self.ready: set[str] = set()
        self.gone: dict[str, float] = {}
        self.quiet_since = 0.0
        self._pods = pods
        self._port = port
        self._pause = 1.0 / per_second
        self._slots = [self._lives() for _ in range(slots)]
        self._network = network
        self._numbers = itertools.count(1)
        self._due = 0.0
        self._left = 0

    async def run(self, events: int) -> float:
        """Write so many events; return how many seconds that took. Goes on where it ended last."""
        began = time.monotonic()
        self._left = events
        self._due = began
        async with asyncio.TaskGroup() as group:
            for slot, writes in enumerate(self._slots):
                group.create_task(self._live(writes), name=f"pod slot {slot}")
        self.quiet_since = time.monotonic()
        return self.quiet_since - began

    async def _live(self, writes: Iterator[Write]) -> None:
        """Go on with a slot's pods, until there are events enough."""
        while await self._turn():
            await next(writes)()

    def _lives(self) -> Iterator[Write]:
        """What happens to the pods of a slot, one after another, for ever."""
        while True:
            state = self._next()
            yield partial(self._pods.create, state)
            yield partial(self._becomes_ready, state)
            if state.name.endswith("u"):
                yield partial(self._ends, state, self._pods.report, replace(state, ready=False))
            yield partial(self._ends, state, self._pods.delete, state)

    async def _becomes_ready(self, state: PodState) -> None:
        self.ready.add(state.name)
        await self._pods.report(state)

    async def _ends(
        self, pod: PodState, write: Callable[[PodState], Awaitable[None]], state: PodState
    ) -> None:
        await write(state)
        self.ready.discard(pod.name)
        self.gone.setdefault(f"{pod.ip}:{self._port}", time.monotonic())

    def _next(self) -> PodState:
        number = next(self._numbers)
        suffix = "u" if number % UNREADY_EACH == 0 else ""
        ip = f"{self._network}.{number // 250}.{number % 250 + 1}"
        return PodState(name=f"churn-{number}{suffix}", ip=ip)

    async def _turn(self) -> bool:
        """Wait for the time of the next write; False when there are enough."""
        if self._left <= 0:
            return False
        self._left -= 1
        self.events += 1
        now = time.monotonic()
        due = max(self._due, now)  # what a busy machine has missed is not made up for by a flood
        self._due = due + self._pause
        await asyncio.sleep(max(0.0, due - now))
        return True
