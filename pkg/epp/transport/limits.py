"""Limits of the native transport: what a peer may ask of one connection, with the reasons.

Every number stands well above what a proxy does in normal life and well below what hurts. Over
a limit the stream or the connection ends, with a counter and one log line per connection; other
connections do not notice.
"""

from dataclasses import dataclass

MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """A token bucket: ``burst`` at once, ``per_second`` in the long run."""

    burst: int
    per_second: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TransportLimits:
    """What one server, connection, stream or turn may use."""

    max_connections: int = 10_000
    """Open connections. A proxy keeps a few per worker thread; above this, the connection
    without streams that has been silent longest makes room, and if none has, the new one goes.
    TLS handshakes do not count: the event loop tells of a connection when its handshake is done.
    They have ``handshake_seconds`` and the descriptors of the process."""

    max_streams: int = 4_096
    """Streams open at once on one connection. Envoy's own default is 1,024; above the limit it opens
    another connection. All of a connection's streams may end in the same moment."""

    max_message_bytes: int = 33 * MIB
    """One message: Envoy's buffer of 32 MiB for one body, and 1 MiB around it."""

    max_inflated_bytes: int = 3 * MIB // 2
    """One compressed message, inflated: that is done in one go, at some 3 ms per MiB, and 1 KiB on
    the wire can be 1 MiB of it. Envoy never compresses; clients that do send 1 MiB of JSON."""

    inflated: Rate = Rate(burst=32 * MIB, per_second=16 * MIB)
    """Bytes of inflated messages: in the long run a twentieth of the time of one core."""

    max_send_bytes: int | None = None
    """One message of ours; None is no limit."""

    max_connection_bytes: int = 256 * MIB
    """What one connection may make us keep: incomplete messages, bodies that handlers hold, and
    answers that the peer does not take. The stream that asks for more ends, and a peer that does
    not take its answers is not served until it does. What has arrived and waits for its turn has a
    bound of its own, ``max_backlog_bytes``, and a stream takes some KiB besides its content."""

    stream_window_bytes: int = 16 * MIB
    """Receive window of a stream. An update goes out when half of it is used up, so a large one
    keeps updates, which cost the peer a system call each, rare."""

    connection_window_bytes: int = 32 * MIB
    """Receive window of a connection: what can arrive before it has been dealt with."""

    max_header_bytes: int = 16 << 10
    """Decoded header list. A gRPC request has some 500 bytes, metadata included; gRPC's own
    servers take 8 to 16 KiB."""

    max_header_count: int = 128
    """Fields in a header list."""

    fatal_header_bytes: int = 128 << 10
    """Decoded header list that ends the connection instead of the stream. Some 30 bytes on the wire
    can be made to mean that much, again and again; Envoy's own requests have at most 60 KiB."""

    fatal_header_count: int = 1_024
    """Fields in a header list that end the connection."""

    max_continuations: int = 8
    """CONTINUATION frames after one HEADERS frame. A frame holds 16 KiB, so these are enough for
    the longest header list."""

    max_settings: int = 32
    """Entries in one SETTINGS frame; RFC 9113 defines seven."""

    max_unsent_acks: int = 50
    """Acknowledgements of SETTINGS and PING that wait to be written: as many as one read may ask
    for, and a peer that does not read. Each change of the initial window is a walk over all streams:
    20 µs with 4,096 of them."""

    resets: Rate = Rate(burst=100_000, per_second=20_000)
    """RST_STREAM frames. Envoy 1.40 resets every stream at its end, one per request on both data
    paths (measured with test/perf/bench_transport.py), so the long-run rate is well above the
    requests one core can answer. The engine counts, too, up to twice as many; what it finds ends
    the connection before our count has seen the read."""

    glitches: Rate = Rate(burst=100_000, per_second=20_000)
    """Frames that are legal but pointless, as the engine counts them (a reset of a stream that has
    just ended is one). Envoy 1.40 stayed below 20 in 4,000 streams, on either data path."""

    control_frames: Rate = Rate(burst=2_000, per_second=200)
    """PING, SETTINGS, GOAWAY and PRIORITY_UPDATE frames. Keep-alive needs one in some seconds;
    Envoy 1.40 sends one per connection unless told otherwise."""

    window_updates: Rate = Rate(burst=200_000, per_second=50_000)
    """WINDOW_UPDATE frames. A peer with small windows sends two per message that it takes (gRPC's
    own clients come close); Envoy 1.40, whose windows are large, hardly ever sends one."""

    refusals: Rate = Rate(burst=5_000, per_second=500)
    """Requests and messages that are refused: headers or messages too large, malformed, compressed
    in an unknown way, no gRPC, an unknown method. One costs next to nothing to send, and up to
    100 µs to refuse. Honest peers are refused when they are set up wrongly, and then not as often."""

    empty_frames: Rate = Rate(burst=10_000, per_second=2_000)
    """DATA frames that neither carry anything nor end a stream. Honest peers send none; gRPC
    clients end a stream with one, which does not count."""

    stalled_stream_seconds: float = 20.0
    """How long a stream may owe its first message, the rest of a message, or (once we have
    finished) its own end."""

    slowest_message_bytes_per_second: int = 64 << 10
    """What keeps a message from being stalled: a byte every now and then is no progress. Peers send
    a message when they have it whole, at the speed of the network; this is half a megabit."""

    preface_seconds: float = 10.0
    """How long a new connection, its TLS handshake not included, may take to say HTTP/2, its
    settings included."""

    handshake_seconds: float = 5.0
    """How long its TLS handshake may take. One that is given up counts as ``tls unfinished``."""

    idle_seconds: float = 3600.0
    """How long a connection without streams is kept. Envoy closes its own after an hour."""

    keepalive_seconds: float = 60.0
    """Silence after which we ask a peer whether it is there."""

    keepalive_timeout_seconds: float = 20.0
    """How long its answer may take."""

    crowded_seconds: float = 60.0
    """How long a connection at its memory bound may go without taking any of its answers."""

    check_seconds: float = 1.0
    """How often every connection is looked after, and with it how exact the times above are."""

    turn_seconds: float = 0.0005
    """How long one read may keep the event loop; what is left goes on in the next turn."""

    max_backlog_bytes: int = 64 * MIB
    """What has arrived and waits for its turn, headers and bookkeeping counted; above this the
    socket is not read. Twice the connection's window, which bounds the bodies in it."""


DEFAULT_LIMITS = TransportLimits()


class TokenBucket:
    """Counts one kind of event against a rate.

    Args:
        rate: What is allowed.
        now: Seconds, of the clock that ``take`` is called with.
    """

    __slots__ = ("_rate", "_tokens", "_updated")

    def __init__(self, rate: Rate, now: float) -> None:
        self._rate = rate
        self._tokens = float(rate.burst)
        self._updated = now

    def take(self, now: float, amount: float = 1.0) -> bool:
        """Take so many; False when there are not as many left."""
        rate = self._rate
        tokens = self._tokens + (now - self._updated) * rate.per_second
        self._updated = now
        self._tokens = min(tokens, float(rate.burst)) - amount
        return self._tokens >= 0.0


class Meters:
    """What one connection has left of its rates."""

    __slots__ = (
        "control_frames",
        "empty_frames",
        "inflated",
        "refusals",
        "resets",
        "window_updates",
    )

    def __init__(self, limits: TransportLimits, now: float) -> None:
        self.control_frames = TokenBucket(limits.control_frames, now)
        self.empty_frames = TokenBucket(limits.empty_frames, now)
        self.inflated = TokenBucket(limits.inflated, now)
        self.refusals = TokenBucket(limits.refusals, now)
        self.resets = TokenBucket(limits.resets, now)
        self.window_updates = TokenBucket(limits.window_updates, now)
