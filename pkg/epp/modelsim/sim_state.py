"""What reached a simulated pod: counters, and the last thousand requests, for tests to look at.

Owner of that record. Scrapes and health checks are counted, not recorded.
"""

import hashlib
from collections import Counter, deque
from dataclasses import asdict, dataclass
from typing import Any

from epp.modelsim.http_message import HttpRequest

MAX_RECORDS = 1000

_KEPT_HEADERS = frozenset(
    {"host", "content-type", "content-length", "transfer-encoding", "user-agent", "traceparent"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRecord:
    """One request as it arrived.

    Attributes:
        number: Counts requests from 1.
        method: HTTP method.
        path: Path without query.
        model: Model named in the body; None when there is none or no JSON.
        headers: The ``x-`` headers and a few others; repeated ones keep every value.
        body_bytes: Bytes received.
        body_sha1: Hexadecimal SHA-1 of the body.
    """

    number: int
    method: str
    path: str
    model: str | None
    headers: dict[str, list[str]]
    body_bytes: int
    body_sha1: str


class SimState:
    """The record of one pod.

    Attributes:
        paths: Requests by path, faults included.
        statuses: Complete replies by status.
        outcomes: Requests of the OpenAI endpoints: ``finished``, ``refused``, ``aborted`` by the
            client, ``faulted``.
        requests: The last requests, oldest first.
        in_flight: Requests of the OpenAI endpoints that the engine works on.
    """

    def __init__(self) -> None:
        self.paths: Counter[str] = Counter()
        self.statuses: Counter[int] = Counter()
        self.outcomes: Counter[str] = Counter()
        self.requests: deque[RequestRecord] = deque(maxlen=MAX_RECORDS)
        self.in_flight = 0
        self._recorded = 0

    def record(self, request: HttpRequest, model: str | None) -> None:
        """Remember a request."""
        self._recorded += 1
        headers: dict[str, list[str]] = {}
        for name, value in request.headers:
            if name.startswith("x-") or name in _KEPT_HEADERS:
                headers.setdefault(name, []).append(value)
        self.requests.append(
            RequestRecord(
                number=self._recorded,
                method=request.method,
                path=request.path,
                model=model,
                headers=headers,
                body_bytes=len(request.body),
                body_sha1=hashlib.sha1(request.body, usedforsecurity=False).hexdigest(),
            )
        )

    def clear(self) -> None:
        """Forget everything but what is in flight."""
        self.paths.clear()
        self.statuses.clear()
        self.outcomes.clear()
        self.requests.clear()
        self._recorded = 0

    def document(self, limit: int) -> dict[str, Any]:
        """Return it for JSON, with the newest ``limit`` requests."""
        newest = list(self.requests)[max(len(self.requests) - limit, 0) :]
        return {
            "paths": dict(self.paths),
            "statuses": {str(status): count for status, count in self.statuses.items()},
            "outcomes": dict(self.outcomes),
            "in_flight": self.in_flight,
            "recorded": self._recorded,
            "requests": [asdict(record) for record in newest],
        }
