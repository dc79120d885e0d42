"""Microseconds of the EPP without a transport: serialised messages into the handlers, answers out.

Per request on both data paths, by phase, and per streamed reply chunk. Everything is on that
``epp serve`` has on: metrics, breakdown, decision log, the memory for the access log. Phases are
medians of wall-clock intervals, sums are process CPU time. A phase's name is indented below the
phase that it is part of; "exchange" is what is left: protobuf, state machine, body parser.

Usage: bench_exchange.py [--quick]. Compare ratios of one run, not numbers of two.
"""

import argparse
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from prometheus_client import CollectorRegistry
from rich.console import Console
from rich.table import Table

from epp.backend.endpoint_rows import EndpointRows
from epp.backend.metrics_state import MetricsState
from epp.datastore.datastore import Datastore
from epp.gen.envoy.service.ext_proc.v3.external_processor_pb2 import (
    HttpHeaders,
    ProcessingRequest,
    ProtocolConfiguration,
)
from epp.handlers.access_log import AccessLog
from epp.handlers.server import PROCESS_METHOD, ExtProcService
from epp.metrics.metrics import Metrics
from epp.requestcontrol.admission import SaturationAdmission
from epp.requestcontrol.candidates import Candidates
from epp.requestcontrol.director import Director
from epp.saturation.detector import SaturationDetector
from epp.scheduling.filters.low_latency import LowLatencyFilter
from epp.scheduling.pickers.random_picker import RandomPicker
from epp.scheduling.profile import SchedulerProfile
from epp.scheduling.profilehandlers.single_profile_handler import SingleProfileHandler
from epp.scheduling.scheduler import Scheduler
from epp.testing.builders import make_endpoint
from epp.testing.ext_proc_client import GATEWAY, LEAN
from epp.transport.stream import CloseReason, Metadata, StatusCode, StreamHandler

ENDPOINTS = 100
PATHS = {"lean": LEAN, "gateway": GATEWAY}
BUDGET = {"lean": "75", "gateway": "85", "chunk": "10 with transport"}

BODY = b'{"model": "tiny", "max_tokens": 1, "prompt": "' + b"x" * 1000 + b'"}'
REQUEST = {
    ":method": "POST",
    ":path": "/v1/completions",
    ":authority": "bench",
    ":scheme": "http",
    "content-type": "application/json",
    "content-length": str(len(BODY)),
    "x-forwarded-proto": "http",
    "user-agent": "bench",
}
REPLY = b'{"id":"x","usage":{"prompt_tokens":10,"completion_tokens":1,"total_tokens":11}}'
CHUNK = b'data: {"id":"x","choices":[{"index":0,"text":" word"' + b" " * 144 + b"}]}\n\n"
BATCH = 100
"""Requests, or chunks, per sample of CPU time."""


class Sink:
    """A sender that throws everything away."""

    metadata: Metadata = ()

    def hold(self, change_bytes: int) -> None:
        """See ``StreamSender.hold``."""

    def send(self, payload: bytes) -> None:
        """See ``StreamSender.send``."""

    def finish(
        self,
        code: StatusCode = StatusCode.OK,
        details: str = "",
        *,
        metadata: Metadata = (),
    ) -> None:
        """See ``StreamSender.finish``."""


class Stopwatch:
    """Times calls of methods of an object from outside, by replacing nothing but its caller's view.

    Args:
        target: What everything else goes to.
        samples: Where microseconds are appended, by name of the method.
        names: Methods that are timed.
    """

    def __init__(self, target: Any, samples: dict[str, list[float]], *names: str) -> None:
        self._target = target
        for name in names:
            setattr(self, name, _timed(getattr(target, name), samples.setdefault(name, [])))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._target, name)


def _timed(call: Callable[..., Any], samples: list[float]) -> Callable[..., Any]:
    def timed(*args: Any, **kwargs: Any) -> Any:
        began = time.perf_counter()
        answer = call(*args, **kwargs)
        samples.append((time.perf_counter() - began) * 1e6)
        return answer

    return timed


def handlers(samples: dict[str, list[float]] | None = None) -> Callable[[], StreamHandler]:
    """The EPP for one pool, wired as ``epp serve`` is; timed by phase when samples are wanted."""

    def watch(target: Any, *names: str) -> Any:
        return target if samples is None else Stopwatch(target, samples, *names)

    metrics = Metrics(CollectorRegistry())
    rows = EndpointRows()
    for number in range(ENDPOINTS):
        pod = make_endpoint(f"pod-{number}", address=f"10.0.0.{number}")
        rows.put(pod)
        rows.publish(pod.key, MetricsState(waiting_requests=number % 3), now=0.0, due_at=1e12)
    profile = SchedulerProfile(name="p", filters=[LowLatencyFilter()], picker=RandomPicker())
    scheduler = Scheduler({"p": profile}, SingleProfileHandler(), metrics.plugin_timer)
    director = Director(
        datastore=watch(Datastore(rows), "endpoint_table"),
        scheduler=watch(scheduler, "schedule"),
        admission=SaturationAdmission(SaturationDetector()),
        candidates=Candidates(),
        rows=rows,
        metrics=metrics,
        observe=metrics.plugin_timer,
        random=random.Random(1),
    )
    services = ExtProcService(
        watch(director, "handle_request", "handle_complete"),
        metrics=metrics,
        access_log=watch(AccessLog(director), "expect", "finish"),
    ).services
    return lambda: services[PROCESS_METHOD](Sink())


def headers(values: Mapping[str, str]) -> HttpHeaders:
    """A message of headers as Envoy writes it: raw values."""
    message = HttpHeaders()
    for name, value in values.items():
        message.headers.headers.add(key=name, raw_value=value.encode())
    return message


def conversation(config: ProtocolConfiguration, request_id: str, reply_type: str) -> list[bytes]:
    """What the gateway sends for one request, up to and with the response headers."""
    first = ProcessingRequest(
        request_headers=headers({**REQUEST, "x-request-id": request_id}), protocol_config=config
    )
    body = ProcessingRequest()
    body.request_body.body = BODY
    body.request_body.end_of_stream = True
    reply = ProcessingRequest(
        response_headers=headers({":status": "200", "content-type": reply_type})
    )
    return [message.SerializeToString() for message in (first, body, reply)]


def reply_body(body: bytes, *, last: bool) -> bytes:
    """A message of the response body."""
    message = ProcessingRequest()
    message.response_body.body = body
    message.response_body.end_of_stream = last
    return message.SerializeToString()


def conversations(path: str) -> list[list[bytes]]:
    """Whole requests, each under an id of its own."""
    rest = [reply_body(REPLY, last=True)] if path == "gateway" else []
    return [
        [*conversation(PATHS[path], f"id-{number}", "application/json"), *rest]
        for number in range(BATCH)
    ]


def serve(open_stream: Callable[[], StreamHandler], requests: Sequence[list[bytes]]) -> None:
    """Requests from their first message to their end, one after another."""
    for request in requests:
        stream = open_stream()
        for message in request:
            stream.on_message(message)
        stream.on_half_close()
        stream.on_closed(CloseReason.FINISHED)


def least_cpu(work: Callable[[], None], batches: int) -> float:
    """Process CPU time in microseconds per request or chunk, of the quickest batch."""
    taken = []
    for _ in range(batches):
        began = time.process_time()
        work()
        taken.append((time.process_time() - began) * 1e6 / BATCH)
    return min(taken)


def phases(path: str, batches: int) -> list[tuple[str, float, str]]:
    """Rows of the table for requests: phase, microseconds, budget."""
    requests = conversations(path)
    untimed = handlers()
    serve(untimed, requests)
    whole = least_cpu(lambda: serve(untimed, requests), batches)
    samples: dict[str, list[float]] = {}
    timed = handlers(samples)
    for _ in range(batches):
        serve(timed, requests)
    median = {name: statistics.median(found) for name, found in samples.items()}
    log = median["expect"] + median["finish"]
    inside = median["handle_request"] + median["handle_complete"] + log
    return [
        ("request", whole, BUDGET[path]),
        ("  exchange", whole - inside, ""),
        ("  director: route", median["handle_request"], ""),
        ("    snapshot", median["endpoint_table"], ""),
        ("    schedule", median["schedule"], ""),
        ("  director: complete", median["handle_complete"], ""),
        ("  access log memory", log, ""),
    ]


def chunk(batches: int) -> float:
    """Microseconds per chunk of a streamed reply that passes through."""
    stream = handlers()()
    for message in conversation(GATEWAY, "id", "text/event-stream"):
        stream.on_message(message)
    piece = reply_body(CHUNK, last=False)

    def pass_through() -> None:
        for _ in range(BATCH):
            stream.on_message(piece)

    return least_cpu(pass_through, batches)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="30 batches instead of 200")
    batches = 30 if parser.parse_args(argv).quick else 200
    table = Table(title=f"Handlers, {ENDPOINTS} endpoints, no transport (µs CPU)")
    for name in ("path", "phase", "µs", "budget"):
        table.add_column(name, justify="left" if name in ("path", "phase") else "right")
    for path in PATHS:
        for phase, micros, budget in phases(path, batches):
            table.add_row(path, phase, f"{micros:.1f}", budget)
    table.add_row(
        "gateway", f"reply chunk of {len(CHUNK)} B", f"{chunk(batches):.1f}", BUDGET["chunk"]
    )
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
