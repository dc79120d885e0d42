"""TransportStats: what happened on a transport, as plain numbers.

Counters only grow; whoever shows them reads the attributes. They are kept always, because an
addition costs less than asking whether to add.
"""

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class TransportStats:
    """Counters of one server.

    Attributes:
        connections: Connections accepted.
        streams: Streams opened.
        messages_received: Messages of peers.
        bytes_received: Their payload.
        messages_sent: Messages of ours.
        bytes_sent: Their payload.
        resets: Streams that the peer reset.
        refused_messages: Messages too large, compressed in an unknown way, or cut short.
        errors: Connections, streams and handshakes that ended because of what the peer did, and
            idle connections that made room for others, by kind.
        blocked_seconds: Time that connections had answers which the peer's windows kept back.
    """

    connections: int = 0
    streams: int = 0
    messages_received: int = 0
    bytes_received: int = 0
    messages_sent: int = 0
    bytes_sent: int = 0
    resets: int = 0
    refused_messages: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    blocked_seconds: float = 0.0
