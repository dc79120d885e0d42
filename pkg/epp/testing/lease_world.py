"""LeaseWorld: electors that compete for one Lease, with every way for a request to go wrong."""

import asyncio
import itertools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from epp.kube.errors import (
    ApiError,
    ConflictError,
    NotFoundError,
    ServerError,
    UnreachableError,
)
from epp.kube.leaderelection import LeaderElector
from epp.kube.resource import LEASES
from epp.testing.sim_time import SimProcess, Timeline

NAMESPACE = "ns"
NAME = "lock"
LATENCY_SECONDS = 0.005
"""One way, between a process and the API server."""

SLOW_SECONDS = 1.7
NETWORK_TROUBLES = ("refused", "request-lost", "answer-lost", "broken", "slow")


class LeaseStore:
    """One Lease with the API server's optimistic concurrency.

    Attributes:
        lease: The object, None while there is none. A test may edit it.
        writes: Every version that was stored.
    """

    def __init__(self) -> None:
        self.lease: Any = None
        self.writes: list[dict[str, Any]] = []
        self._version = itertools.count(1)

    @property
    def spec(self) -> Any:
        """What the Lease says."""
        return self.lease["spec"]

    @property
    def holder(self) -> str:
        """Whom it names."""
        return "" if self.lease is None else str(self.spec.get("holderIdentity") or "")

    def apply(self, method: str, path: str, body: Any) -> bytes:
        """Do what a request asks for; raises what the API server would answer."""
        name = "" if method == "POST" else NAME
        if path != LEASES.path(namespace=NAMESPACE, name=name):
            raise NotFoundError(f"{method} {path}: no such path", status=404)
        if method == "POST":
            if self.lease is not None:
                raise ConflictError("exists already", status=409)
            return self.store(body)
        if self.lease is None:
            raise NotFoundError("no such lease", status=404)
        if method == "PUT":
            if body["metadata"]["resourceVersion"] != self.lease["metadata"]["resourceVersion"]:
                raise ConflictError("changed meanwhile", status=409)
            return self.store(body)
        return json.dumps(self.lease).encode()

    def store(self, body: Mapping[str, Any]) -> bytes:
        """Store a new version."""
        version = str(next(self._version))
        self.lease = {**body, "metadata": {**body["metadata"], "resourceVersion": version}}
        self.writes.append(self.lease)
        return json.dumps(self.lease).encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """What happens to a process, or to its requests, for a while. Times are true seconds.

    Attributes:
        start: When it begins.
        seconds: How long it lasts.
        kind: One of ``NETWORK_TROUBLES``, or a word of the test's own.
    """

    start: float
    seconds: float
    kind: str

    def holds(self, now: float) -> bool:
        """Whether it lasts now."""
        return self.start <= now < self.start + self.seconds


class LeaseSimClient:
    """The way from one process to the store.

    Attributes:
        troubles: Network troubles, past and future.
        calls: Time, method and timeout of every request.
        fault: Answers a method by itself, unless it returns None.
    """

    def __init__(self, process: SimProcess, store: LeaseStore) -> None:
        self.troubles: list[Trouble] = []
        self.calls: list[tuple[float, str, float]] = []
        self.fault: Callable[[str], ApiError | bytes | None] = lambda _method: None
        self._process = process
        self._store = store

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: object | None = None,
        content_type: str = "application/json",
        timeout_seconds: float = 30.0,
        what: str = "",
    ) -> bytes:
        """Travel to the store and back, or fail on the way."""
        if not self._process.alive or query or content_type != "application/json":
            raise UnreachableError(f"{what}: a dead process, or a strange request")
        now = self._process.timeline.now
        self.calls.append((now, method, timeout_seconds))
        kinds = {trouble.kind for trouble in self.troubles if trouble.holds(now)}
        way_seconds = SLOW_SECONDS if "slow" in kinds else LATENCY_SECONDS
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        def arrive() -> None:
            outcome = self._outcome(method, path, body, what, kinds)
            if not kinds & {"answer-lost", "request-lost"}:
                self._process.after(way_seconds, lambda: _finish(answer, outcome))

        late = UnreachableError(f"{what}: no answer within {timeout_seconds} s")
        timer = self._process.call_later(timeout_seconds, lambda: _finish(answer, late))
        self._process.timeline.at(now + way_seconds, arrive)
        try:
            return await answer
        finally:
            timer.cancel()

    def _outcome(
        self, method: str, path: str, body: object, what: str, kinds: set[str]
    ) -> bytes | ApiError:
        fault = self.fault(method)
        if fault is not None:
            return fault
        if kinds & {"refused", "request-lost"}:
            return UnreachableError(f"{what}: refused")
        if "broken" in kinds:
            return ServerError(f"{what}: broken", status=500)
        try:
            return self._store.apply(method, path, body)
        except ApiError as exc:
            return exc


def _finish(answer: "asyncio.Future[bytes]", outcome: bytes | ApiError) -> None:
    if answer.done():
        return
    if isinstance(outcome, ApiError):
        answer.set_exception(outcome)
    else:
        answer.set_result(outcome)


class Replica:
    """A process with its elector.

    Attributes:
        changes: True time and value of every change that it was told about.
        holders: Whom the Lease named at each change.
    """

    def __init__(
        self,
        identity: str,
        world: "LeaseWorld",
        *,
        offset: float = 0.0,
        speed: float = 1.0,
        draw: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._world = world
        self.process = SimProcess(world.timeline, offset=offset, speed=speed)
        self.client = LeaseSimClient(self.process, world.store)
        self.changes: list[Any] = []
        self.holders: list[str] = []
        self.elector = LeaderElector(
            self.client,
            namespace=NAMESPACE,
            name=NAME,
            identity=identity,
            on_change=self._changed,
            clock=self.process,
            wall=self.process.wall,
            draw=draw,
        )

    @property
    def leads(self) -> bool:
        """It would act as the leader now: what a paused or dead process thinks does not count."""
        return self.process.runs and self.elector.is_leader

    async def kill(self) -> None:
        """End it as ``kill -9`` does: nothing is released."""
        self.process.alive = False
        await self.elector.stop()

    def _changed(self, leading: bool) -> None:
        self.changes.append((self._world.timeline.now, leading))
        self.holders.append(self._world.store.holder)


class LeaseWorld:
    """Replicas, one store, one time line, and the rule that is never broken."""

    def __init__(self) -> None:
        self.timeline = Timeline()
        self.store = LeaseStore()
        self.replicas: list[Replica] = []

    def add(
        self,
        identity: str,
        *,
        offset: float = 0.0,
        speed: float = 1.0,
        draw: Callable[[], float] = lambda: 0.0,
    ) -> Replica:
        """A replica that has not started."""
        replica = Replica(identity, self, offset=offset, speed=speed, draw=draw)
        self.replicas.append(replica)
        return replica

    async def start(self, identity: str, *, offset: float = 0.0) -> Replica:
        """A replica that has started."""
        replica = self.add(identity, offset=offset)
        await replica.elector.start()
        return replica

    async def run(self, seconds: float) -> None:
        """Let time pass; never are there two leaders."""
        await self.timeline.run_until(self.timeline.now + seconds, self.never_two_leaders)

    async def run_until_leader(self, replica: Replica, limit_seconds: float = 60.0) -> float:
        """Let time pass until a replica leads; how much that was."""
        start = self.timeline.now
        while not replica.leads:
            if self.timeline.now > start + limit_seconds:
                raise AssertionError(f"{replica.elector.identity} does not become the leader")
            await self.run(0.01)
        return self.timeline.now - start

    async def stop(self, replica: Replica) -> None:
        """Stop a replica cleanly, within a second."""
        stopping = asyncio.create_task(replica.elector.stop(), name="stop")
        await self.run(1.0)
        if not stopping.done():
            raise AssertionError(f"{replica.elector.identity} does not stop")
        await stopping

    def never_two_leaders(self) -> None:
        """The rule."""
        leaders = [replica.elector.identity for replica in self.replicas if replica.leads]
        if len(leaders) > 1:
            raise AssertionError(f"{leaders} lead at {self.timeline.now}")

    async def close(self) -> None:
        """End every replica."""
        for replica in self.replicas:
            await replica.kill()
