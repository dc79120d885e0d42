"""LeaderElector: one of several replicas leads, agreed on through a Lease.

Time is read from a monotonic clock only. A Lease has lapsed when *this* replica has seen its
record unchanged for the record's own duration, so clocks of replicas may differ by any amount;
the times in the record are for people. The leader counts from the moment at which it *sent* its
last successful renewal, which is before anybody could have seen it, and gives up after a shorter
time than the others wait. Hence the invariant: never two leaders, whatever fails, hangs or is
paused, as long as clocks run at about the same speed.

::

    candidate --takes a free or lapsed Lease--> leader
    leader --no renewal within the deadline · somebody else holds the Lease · stop--> candidate

Who must not write twice asks ``is_leader``. Who only wants to be of use asks ``is_in_charge``, which
stays with the last leader while the API server is away: nobody else can take over then.

A Lease that vanishes counts as changed: its holder makes it again at once, the others wait for
as long as they would have waited for the holder. A clean stop releases the Lease.
Owns its task and what it has seen; everything else is the API server's.
Reference: client-go tools/leaderelection/leaderelection.go. Departs from it in counting the
deadline from the sending, in the vanished Lease, and in waking up when the Lease lapses.
"""

import random
import socket
import time
import uuid
from collections.abc import Callable
from dataclasses import replace

from epp.kube.api import KubeRequests
from epp.kube.clock import LOOP_CLOCK, Clock, Timer
from epp.kube.errors import (
    ApiError,
    ConflictError,
    InvalidError,
    NotFoundError,
    ServerError,
    TooManyRequestsError,
    UnreachableError,
)
from epp.kube.lease import (
    MAX_INT32,
    NO_RECORD,
    Lease,
    LeaseRecord,
    LeaseSettings,
    decode_lease,
    empty_lease,
    record_of,
    with_record,
)
from epp.kube.manager import Loop
from epp.kube.resource import LEASES
from epp.kube.timing import micro_time, sleep
from epp.logs import get_logger

log = get_logger(__name__)

DEFAULT_SETTINGS = LeaseSettings()

_SHORTEST_WAIT_SECONDS = 0.01
"""Before looking at a Lease that is about to lapse: keeps rounding from becoming a busy loop."""

_AWAY = (UnreachableError, TooManyRequestsError, ServerError)
"""The API server answers nobody, as far as we can tell."""

_RELEASED_SECONDS = 1
"""Duration in a released record: the shortest that the API admits."""


def new_identity(name: str = "") -> str:
    """``<name>_<uuid>``, by default the host's name: a restarted replica is another candidate."""
    return f"{name or socket.gethostname()}_{uuid.uuid4()}"


class LeaderElector:
    """A candidate for one Lease, from ``start`` to ``stop``.

    Args:
        client: Makes the requests.
        namespace: Namespace of the Lease.
        name: Its name.
        identity: Who we are, unique among the replicas.
        settings: Timing.
        on_change: Called with ``is_leader`` when it has changed; must not wait or raise.
        clock: Monotonic seconds and timers; decides everything.
        wall: Seconds since the epoch; only written down.
        draw: Uniform in [0, 1), for jitter.
    """

    def __init__(
        self,
        client: KubeRequests,
        *,
        namespace: str,
        name: str,
        identity: str,
        settings: LeaseSettings = DEFAULT_SETTINGS,
        on_change: Callable[[bool], None] = lambda _leading: None,
        clock: Clock = LOOP_CLOCK,
        wall: Callable[[], float] = time.time,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._client = client
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._settings = settings
        self._on_change = on_change
        self._clock = clock
        self._wall = wall
        self._draw = draw
        self._log = log.bind(lease=f"{namespace}/{name}")
        self._loop = Loop(f"leader election {namespace}/{name}", self._run)
        self._lease: Lease | None = None
        self._record = NO_RECORD
        self._seen_at = 0.0
        self._leading = False
        self._renewed_at = 0.0
        self._lapse_timer: Timer | None = None
        self._may_hold = False
        self._trouble: type[ApiError] | None = None
        self._away_at: float | None = None

    @property
    def is_leader(self) -> bool:
        """We lead now. Exact at any moment, also right after this process was paused."""
        return self._leading and self._clock.time() < self._lapses_at

    @property
    def is_in_charge(self) -> bool:
        """We lead, or led last and hear just now that the API server is away.

        Not exact: whoever is cut off from an API server that others reach keeps it.
        """
        if self.is_leader:
            return True
        led_last = self._may_hold and self._record.holder == self._identity
        away_at = self._away_at
        return (
            led_last
            and away_at is not None
            and self._clock.time() - away_at < self._settings.renew_deadline_seconds
        )

    @property
    def leader(self) -> str:
        """Identity that the Lease names as far as we know; empty when it is free."""
        return self._record.holder

    @property
    def identity(self) -> str:
        """Who we are."""
        return self._identity

    async def start(self) -> None:
        """Become a candidate; does not wait for the outcome."""
        await self._loop.start()

    async def wait_ended(self) -> None:
        """Wait for the end of the task, which only a defect can bring."""
        await self._loop.wait_ended()

    async def stop(self) -> None:
        """Stop leading, then release the Lease; takes no longer than the deadline. Idempotent."""
        await self._loop.stop()
        self._step_down("stopped")
        if self._may_hold:
            self._may_hold = False
            await self._release()

    async def _run(self) -> None:
        while True:
            await self._try()
            await sleep(self._clock, self._pause_seconds())

    async def _try(self) -> None:
        """Renew or acquire; failures are logged once per kind and are nothing but failures."""
        try:
            await self._renew_or_acquire()
        except ConflictError as exc:
            self._away_at = None
            self._log.debug("somebody else wrote the lease", error=exc)
        except ApiError as exc:
            self._away_at = self._clock.time() if isinstance(exc, _AWAY) else None
            if self._trouble is not type(exc):
                self._trouble = type(exc)
                self._log.warning("lease cannot be used, trying again", error=exc)
        else:
            self._away_at = None
            if self._trouble is not None:
                self._trouble = None
                self._log.info("lease can be used again")

    async def _renew_or_acquire(self) -> None:
        """A leader writes at once; who loses a race looks again, once."""
        if self._leading:
            try:
                await self._claim()
            except (ConflictError, NotFoundError, InvalidError) as exc:
                self._log.debug("lease is not as we left it", error=exc)
            else:
                return
        await self._read()
        if self._may_take():
            await self._claim()

    def _may_take(self) -> bool:
        return (
            self._record.holder in {"", self._identity}
            or self._clock.time() >= self._others_lapse_at
        )

    async def _read(self) -> None:
        what = self._what("get")
        try:
            payload = await self._request("GET", name=self._name, what=what)
        except NotFoundError:
            self._see(None)
        else:
            self._see(decode_lease(payload, what))

    async def _claim(self) -> None:
        """Write our name and the time into the Lease, or make the Lease."""
        sent_at = self._clock.time()
        self._may_hold = True
        self._see(await self._write(self._next_record()))
        self._renewed(sent_at)

    async def _write(self, record: LeaseRecord) -> Lease:
        if self._lease is None:
            body = with_record(empty_lease(self._namespace, self._name), record)
            what = self._what("create")
            payload = await self._request("POST", body=body, what=what)
        else:
            body = with_record(self._lease, record)
            what = self._what("update")
            payload = await self._request("PUT", name=self._name, body=body, what=what)
        return decode_lease(payload, what)

    async def _request(
        self, method: str, *, name: str = "", body: Lease | None = None, what: str
    ) -> bytes:
        return await self._client.request(
            method,
            LEASES.path(namespace=self._namespace, name=name),
            body=body,
            timeout_seconds=self._timeout_seconds(),
            what=what,
        )

    def _what(self, verb: str) -> str:
        return f"{verb} {LEASES.qualified} {self._namespace}/{self._name}"

    def _timeout_seconds(self) -> float:
        """Half the deadline leaves time for a second try; a leader has what is left of it."""
        half = self._settings.renew_deadline_seconds / 2
        if self.is_leader:
            return min(half, self._lapses_at - self._clock.time())
        return half

    def _next_record(self) -> LeaseRecord:
        now = micro_time(self._wall())
        before = self._record
        ours = before.holder == self._identity
        changes = 0 if ours or before == NO_RECORD else 1
        return LeaseRecord(
            holder=self._identity,
            duration_seconds=self._settings.lease_seconds,
            acquire_time=before.acquire_time if ours and before.acquire_time else now,
            renew_time=now,
            transitions=min(before.transitions + changes, MAX_INT32),
        )

    def _see(self, lease: Lease | None) -> None:
        """Take in what the Lease says now; None when there is none.

        A vanished Lease is a record that changes once: its holder may have renewed it just
        before.
        """
        record = replace(self._record, renew_time="") if lease is None else record_of(lease)
        before, self._lease = self._record, lease
        if record != before:
            self._record = record
            self._seen_at = self._clock.time()
        if record.holder not in {"", before.holder, self._identity}:
            self._log.info("somebody else leads", leader=record.holder)
        if record.holder not in {"", self._identity}:
            self._may_hold = False
            self._step_down("somebody else holds the lease")

    def _renewed(self, sent_at: float) -> None:
        """A renewal that was sent at this time has succeeded, unless that is too long ago."""
        self._renewed_at = sent_at
        left_seconds = self._lapses_at - self._clock.time()
        if left_seconds <= 0:
            return
        self._cancel_lapse()
        self._lapse_timer = self._clock.call_later(left_seconds, self._lapse)
        if not self._leading:
            self._leading = True
            self._log.info("leading", identity=self._identity)
            self._on_change(True)

    def _lapse(self) -> None:
        self._step_down("not renewed within the deadline")

    def _step_down(self, reason: str) -> None:
        self._cancel_lapse()
        if self._leading:
            self._leading = False
            self._log.info("no longer leading", identity=self._identity, reason=reason)
            self._on_change(False)

    def _cancel_lapse(self) -> None:
        if self._lapse_timer is not None:
            self._lapse_timer.cancel()
            self._lapse_timer = None

    @property
    def _lapses_at(self) -> float:
        """When we stop leading unless renewed."""
        return self._renewed_at + self._settings.renew_deadline_seconds

    @property
    def _others_lapse_at(self) -> float:
        """When the holder we see has lost the Lease unless its record changes."""
        return self._seen_at + (self._record.duration_seconds or self._settings.lease_seconds)

    def _pause_seconds(self) -> float:
        """A jittered retry, cut short when the Lease lapses before."""
        pause = self._settings.retry_seconds * (1.0 - self._settings.jitter_ratio * self._draw())
        if self._leading or self._may_take():
            return pause
        until_lapse = self._others_lapse_at - self._clock.time()
        return min(pause, max(until_lapse, _SHORTEST_WAIT_SECONDS))

    async def _release(self) -> None:
        """Empty the Lease if it names us, also when we do not know how our last write ended."""
        try:
            await self._read()
            if self._lease is None or self._record.holder != self._identity:
                return
            now = micro_time(self._wall())
            free = LeaseRecord(
                duration_seconds=_RELEASED_SECONDS,
                acquire_time=now,
                renew_time=now,
                transitions=self._record.transitions,
            )
            self._see(await self._write(free))
        except ApiError as exc:
            self._log.warning("lease not released, others wait until it lapses", error=exc)
        else:
            self._log.info("lease released", identity=self._identity)
