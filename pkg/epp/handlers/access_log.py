"""Joins the gateway's access log with the requests that we routed.

On the lean path the response body never visits us; one log entry per finished request brings its
usage, its length and the endpoint that really served. Entry and request belong together when
request id **and** start time agree, because a client may use its own id twice: the request that
started nearest wins, and when two are equally near neither gets a report (usage is lost,
accounting is not). An entry may come before its stream ends: it waits there. An entry that
belongs to nobody waits for a grace time, then counts as served without us, provided that it
reached a model server and names no pick (another EPP's, or ours before a restart).

Owns what it remembers, all of it bounded: open requests, finished ones for ``TTL_SECONDS`` (but
for a few without their bodies and breakdowns), entries without a request for ``GRACE_SECONDS``. Requests are
remembered whether or not a gateway reports: Envoy opens its log stream after the first of them.
"""

import asyncio
import math
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from typing import Protocol

from google.protobuf.message import DecodeError
from msgspec import Struct
from msgspec.structs import replace

from epp.backend.endpoint import join_host_port
from epp.gen.envoy.data.accesslog.v3.accesslog_pb2 import AccessLogCommon, HTTPAccessLogEntry
from epp.gen.envoy.service.accesslog.v3.als_pb2 import StreamAccessLogsMessage
from epp.gen.google.protobuf.duration_pb2 import Duration
from epp.handlers.request import DESTINATION_HEADER
from epp.logs import get_logger
from epp.metrics.usage import TokenUsage
from epp.requestcontrol.types import AccessReport, RoutingDecision
from epp.transport.stream import CloseReason, StatusCode, StreamSender

log = get_logger(__name__)

USAGE_NAMESPACE = "epp.usage"
"""Dynamic metadata namespace that the generated Envoy configuration writes token counts to."""

TTL_SECONDS = 10.0
"""Entries come 20 ms after the end of a request; a gateway that stalls longer loses its usage."""
GRACE_SECONDS = 1.0
MAX_FINISHED_IDS = 20_000
MAX_PER_ID = 256
MAX_HEAVY_IDS = 64
"""Requests remembered whole: what a busy gateway has between the end of a request and its entry.
Only when entries stay away are the others stripped of what they weigh."""
HEAVY_BODY_BYTES = 64 * 1024
"""A request with a larger body is always stripped."""
MAX_UNMATCHED = 20_000
MAX_SKEW_SECONDS = 5.0
"""Difference of the start times on the two clocks at which an id alone no longer counts."""
AMBIGUOUS_SECONDS = 0.005
"""Two requests of one id whose start times fit this equally well cannot be told apart."""


class AccessReportSink(Protocol):
    """Who is told; the director."""

    def handle_access_report(self, routing: RoutingDecision | None, report: AccessReport) -> None:
        """Take note of a request that the gateway finished; None: it was none of ours."""
        ...


class ExpectedEntry:
    """A routed request whose log entry has not been used.

    Attributes:
        request_id: As the gateway logs it.
        routing: What was decided; None once the request ended and nobody will be told of it.
        started_at: Wall-clock seconds of its headers.
        finished_at: Monotonic seconds of its end; NaN until then.
        wanted: The entry's numbers are news; otherwise they passed through the stream.
        report: The entry, when it came before the end of the stream.
        settled: The entry came.
    """

    __slots__ = (
        "finished_at",
        "report",
        "request_id",
        "routing",
        "settled",
        "started_at",
        "wanted",
    )

    def __init__(self, routing: RoutingDecision, *, started_at: float, wanted: bool) -> None:
        self.request_id = routing.request.request_id
        self.routing: RoutingDecision | None = routing
        self.started_at = started_at
        self.finished_at = math.nan
        self.wanted = wanted
        self.report: AccessReport | None = None
        self.settled = False


class _Entry(Struct, frozen=True):
    started_at: float
    report: AccessReport


class AccessLog:
    """The AccessLogService, and the memory that joins it with our streams.

    Args:
        sink: Who is told.
        clock: Monotonic seconds.
        wall_clock: Seconds since the epoch, as the gateway's start times.
        call_later: Calls a function after some seconds; the running loop's by default.
    """

    def __init__(
        self,
        sink: AccessReportSink,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        call_later: Callable[[float, Callable[[], None]], object] | None = None,
    ) -> None:
        self._sink = sink
        self._clock = clock
        self._wall_clock = wall_clock
        self._call_later = call_later or _loop_call_later
        self._open: dict[str, list[ExpectedEntry]] = {}
        self._finished: OrderedDict[str, list[ExpectedEntry]] = OrderedDict()
        self._unmatched: deque[tuple[float, _Entry]] = deque()

    def expect(self, routing: RoutingDecision, *, wanted: bool) -> ExpectedEntry:
        """Remember a request that was just routed.

        Args:
            routing: What was decided.
            wanted: Report the entry; False when the response passes through the stream.
        """
        age = self._clock() - routing.request.received_at
        expected = ExpectedEntry(routing, started_at=self._wall_clock() - age, wanted=wanted)
        self._open.setdefault(expected.request_id, []).append(expected)
        return expected

    def finish(self, expected: ExpectedEntry) -> None:
        """Take note that a request ended, after its completion was told."""
        _remove(self._open, expected.request_id, expected)
        if expected.report is not None:
            self._tell(expected.routing, expected.report)
        elif not expected.settled:
            self._remember(expected)

    def _remember(self, expected: ExpectedEntry) -> None:
        """Keep a finished request until its entry comes, with as little of it as is needed."""
        expected.finished_at = self._clock()
        self._forget_before(expected.finished_at - TTL_SECONDS)
        routing = expected.routing
        if not expected.wanted:
            expected.routing = None
        elif routing is not None and (
            routing.request.size_bytes > HEAVY_BODY_BYTES or len(self._finished) >= MAX_HEAVY_IDS
        ):
            expected.routing = _lightened(routing)
        remembered = self._finished.pop(expected.request_id, [])
        remembered.append(expected)
        if len(remembered) > MAX_PER_ID:
            del remembered[0]
        self._finished[expected.request_id] = remembered
        if len(self._finished) > MAX_FINISHED_IDS:
            self._finished.popitem(last=False)

    def _forget_before(self, instant: float) -> None:
        """Forget ids whose last request ended before; they are in the order of that."""
        finished = self._finished
        while finished and next(iter(finished.values()))[-1].finished_at <= instant:
            finished.popitem(last=False)

    def open_stream(self, sender: StreamSender) -> "_ReportStream":
        """Serve one StreamAccessLogs call."""
        return _ReportStream(self, sender)

    def take(self, entry: HTTPAccessLogEntry) -> None:
        """Take one finished request of the gateway's log."""
        if entry.common_properties.intermediate_log_entry:
            return
        start = entry.common_properties.start_time
        found = _Entry(
            started_at=start.seconds + start.nanos / 1e9,
            report=access_report(entry),
        )
        if self._settle(found) or not _bypassed(entry):
            return
        if not self._unmatched:
            self._call_later(GRACE_SECONDS, self._give_up)
        self._unmatched.append((self._clock() + GRACE_SECONDS, found))
        if len(self._unmatched) > MAX_UNMATCHED:
            self._tell(None, self._unmatched.popleft()[1].report)

    def _settle(self, entry: _Entry) -> bool:
        """Give an entry to the request that it belongs to; False when there is none."""
        self._forget_before(self._clock() - TTL_SECONDS)
        request_id = entry.report.request_id
        nearest = sorted(
            (abs(expected.started_at - entry.started_at), index, expected)
            for index, expected in enumerate(self._waiting(request_id))
        )
        if not nearest or nearest[0][0] > MAX_SKEW_SECONDS:
            return False
        distance, _, expected = nearest[0]
        expected.settled = True
        finished = _remove(self._finished, request_id, expected)
        ambiguous = len(nearest) > 1 and nearest[1][0] - distance < AMBIGUOUS_SECONDS
        if ambiguous or not expected.wanted:
            return True
        if finished:
            self._tell(expected.routing, entry.report)
        else:
            expected.report = entry.report
        return True

    def _waiting(self, request_id: str) -> Iterator[ExpectedEntry]:
        for expected in self._open.get(request_id, ()):
            if not expected.settled:
                yield expected
        yield from self._finished.get(request_id, ())

    def _give_up(self) -> None:
        """Count the entries whose grace time is over as served without us."""
        now = self._clock()
        while self._unmatched and self._unmatched[0][0] <= now:
            entry = self._unmatched.popleft()[1]
            if not self._settle(entry):
                self._tell(None, entry.report)
        if self._unmatched:
            self._call_later(max(self._unmatched[0][0] - now, 0.0), self._give_up)

    def _tell(self, routing: RoutingDecision | None, report: AccessReport) -> None:
        try:
            self._sink.handle_access_report(routing, report)
        except Exception as exc:
            log.error("access report failed", request_id=report.request_id, error=exc)


class _ReportStream:
    """One StreamAccessLogs call: entries come until the gateway's worker goes away."""

    __slots__ = ("_access_log", "_sender")

    def __init__(self, access_log: AccessLog, sender: StreamSender) -> None:
        self._access_log = access_log
        self._sender = sender

    def on_message(self, payload: bytes) -> None:
        """Take a batch of entries; a batch that is none ends the stream."""
        try:
            message = StreamAccessLogsMessage.FromString(payload)
        except DecodeError:
            self._sender.finish(StatusCode.INVALID_ARGUMENT, "not a StreamAccessLogsMessage")
            return
        for entry in message.http_logs.log_entry:
            self._access_log.take(entry)

    def on_half_close(self) -> None:
        """End our side as well."""
        self._sender.finish()

    def on_closed(self, reason: CloseReason) -> None:
        """Take note that this worker reports no more."""
        log.debug("access log stream closed", reason=reason.value)


def access_report(entry: HTTPAccessLogEntry) -> AccessReport:
    """Translate a log entry; times that never happened are None, a missing duration is 0."""
    common = entry.common_properties
    last = common.time_to_last_downstream_tx_byte
    whole = last if common.HasField("time_to_last_downstream_tx_byte") else common.duration
    first = common.HasField("time_to_first_downstream_tx_byte")
    return AccessReport(
        request_id=entry.request.request_id,
        served_by=_served_by(common),
        status=entry.response.response_code.value,
        response_bytes=entry.response.response_body_bytes,
        first_byte_seconds=_seconds(common.time_to_first_downstream_tx_byte) if first else None,
        duration_seconds=_seconds(whole),
        usage=_usage(common),
    )


def _served_by(common: AccessLogCommon) -> str:
    address = common.upstream_remote_address.socket_address
    return join_host_port(address.address, address.port_value) if address.address else ""


def _bypassed(entry: HTTPAccessLogEntry) -> bool:
    """Tell whether a model server got the request although nobody picked it."""
    common = entry.common_properties
    flags = common.response_flags
    unreached = (
        flags.upstream_connection_failure or flags.no_healthy_upstream or flags.upstream_overflow
    )
    picked = DESTINATION_HEADER in entry.request.request_headers
    tried = common.upstream_remote_address.socket_address.address
    return bool(tried) and not unreached and not picked


def _usage(common: AccessLogCommon) -> TokenUsage | None:
    namespaces = common.metadata.filter_metadata
    if USAGE_NAMESPACE not in namespaces:
        return None
    fields = namespaces[USAGE_NAMESPACE].fields
    counts = {
        name: int(fields[name].number_value)
        for name in ("prompt_tokens", "completion_tokens", "cached_tokens")
        if name in fields and 0 <= fields[name].number_value <= 2**53
    }
    return TokenUsage(**counts) if counts else None


def _seconds(duration: Duration) -> float:
    return duration.seconds + duration.nanos / 1e9


def _remove(
    lists: dict[str, list[ExpectedEntry]],
    request_id: str,
    expected: ExpectedEntry,
) -> bool:
    remembered = lists.get(request_id)
    if remembered is None or expected not in remembered:
        return False
    remembered.remove(expected)
    if not remembered:
        del lists[request_id]
    return True


def _lightened(routing: RoutingDecision) -> RoutingDecision:
    """Keep names and counts, drop body and breakdown."""
    light = routing.without_content()
    return replace(light, decision=replace(light.decision, profiles=()))


def _loop_call_later(seconds: float, call: Callable[[], None]) -> object:
    return asyncio.get_running_loop().call_later(seconds, call)
