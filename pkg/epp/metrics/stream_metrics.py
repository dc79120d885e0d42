"""Metrics of the gRPC port's connections, streams and messages; on request.

The transport counts for itself; this reads its numbers when scraped, so a message costs nothing
more with the metrics than without.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from prometheus_client.registry import CollectorRegistry

from epp.metrics.exposition import NumberCollector
from epp.metrics.families import Family, Kind, NameSet, own_name


def _counter(rest: str, unit: str, help_text: str, labels: tuple[str, ...] = ()) -> Family:
    return Family(
        key=f"grpc_{rest}",
        kind=Kind.COUNTER,
        unit=unit,
        help=help_text,
        labels=labels,
        names=own_name(f"grpc_{rest}", labels),
    )


CONNECTIONS = _counter("connections_total", "connections", "Connections that peers opened.")
STREAMS = _counter("streams_total", "streams", "Streams that peers opened.")
MESSAGES = _counter("messages_total", "messages", "Messages, by direction.", ("direction",))
BYTES = _counter(
    "message_bytes_total", "bytes", "Payload of the messages, by direction.", ("direction",)
)
RESETS = _counter(
    "resets_total", "streams", "Streams that peers reset, as proxies do at the end of each."
)
REFUSED = _counter(
    "refused_messages_total",
    "messages",
    "Messages that were too large, compressed in an unknown way, or cut short.",
)
ERRORS = _counter(
    "connection_errors_total",
    "errors",
    "Connections, streams and TLS handshakes that ended because of what the peer did, and idle "
    "connections that made room for others, by kind.",
    ("kind",),
)
BLOCKED = _counter(
    "blocked_seconds_total",
    "seconds",
    "Time that connections had answers which their peers' windows kept back.",
)

STREAM_FAMILIES = (CONNECTIONS, STREAMS, MESSAGES, BYTES, RESETS, REFUSED, ERRORS, BLOCKED)


class TransportStats(Protocol):
    """Counters of a transport; ``epp.transport.stats.TransportStats`` fits."""

    connections: int
    streams: int
    messages_received: int
    bytes_received: int
    messages_sent: int
    bytes_sent: int
    resets: int
    refused_messages: int
    blocked_seconds: float

    @property
    def errors(self) -> Mapping[str, int]:
        """Connections, streams and handshakes that ended because of what the peer did, by kind."""
        ...


Numbers = Sequence[tuple[tuple[str, ...], float]]


def expose_streams(
    registry: CollectorRegistry, name_sets: Iterable[NameSet], stats: TransportStats
) -> None:
    """Register the metrics of one transport. To be called once per registry."""
    names = frozenset(name_sets)
    readers: Sequence[tuple[Family, Callable[[], Numbers]]] = (
        (CONNECTIONS, lambda: [((), float(stats.connections))]),
        (STREAMS, lambda: [((), float(stats.streams))]),
        (
            MESSAGES,
            lambda: [
                (("received",), float(stats.messages_received)),
                (("sent",), float(stats.messages_sent)),
            ],
        ),
        (
            BYTES,
            lambda: [
                (("received",), float(stats.bytes_received)),
                (("sent",), float(stats.bytes_sent)),
            ],
        ),
        (RESETS, lambda: [((), float(stats.resets))]),
        (REFUSED, lambda: [((), float(stats.refused_messages))]),
        (ERRORS, lambda: [((kind,), float(n)) for kind, n in sorted(stats.errors.items())]),
        (BLOCKED, lambda: [((), stats.blocked_seconds)]),
    )
    for family, read in readers:
        registry.register(NumberCollector(family, names, read))
