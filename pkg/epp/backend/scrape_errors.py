"""Why a scrape brought nothing: one exception with a reason that is safe as a metric label."""

from enum import StrEnum

from epp.errors import TransportError


class ScrapeFailure(StrEnum):
    """Reasons; the values are the ``reason`` label of the failure counter."""

    CONNECT = "connect"
    """No connection: refused, unreachable, TLS handshake failed."""
    TIMEOUT = "timeout"
    """The deadline passed before the last byte."""
    CLOSED = "closed"
    """The peer closed or reset the connection in the middle."""
    STATUS = "status"
    """An HTTP status other than 200."""
    PROTOCOL = "protocol"
    """The answer is not HTTP/1.x, or not one that we can read."""
    TOO_LARGE = "too_large"
    """The page, or its head, is longer than the limit."""
    NO_SIGNAL = "no_signal"
    """A page without a single metric of the engine's mapping."""
    INTERNAL = "internal"
    """A fault of ours while reading the page."""


class ScrapePartial(StrEnum):
    """What a good scrape can lack; the values are the ``reason`` label of the counter."""

    MISSING = "missing"
    MALFORMED = "malformed"


class ScrapeError(TransportError):
    """A scrape that brought nothing.

    Attributes:
        target: ``ip:port`` that was asked.
        reason: What went wrong, for counting.
        detail: What went wrong, for humans.
        status: HTTP status when ``reason`` is ``STATUS``, else 0.
    """

    def __init__(self, target: str, reason: ScrapeFailure, detail: str, *, status: int = 0) -> None:
        super().__init__(f"cannot fetch metrics from {target}: {detail}")
        self.target = target
        self.reason = reason
        self.detail = detail
        self.status = status
