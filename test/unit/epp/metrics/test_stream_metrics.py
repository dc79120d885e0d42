"""The gRPC port's counters as metrics."""

from prometheus_client.registry import CollectorRegistry

from epp.metrics.families import SELECTABLE_NAME_SETS
from epp.metrics.stream_metrics import expose_streams
from epp.transport.stats import TransportStats


def test_the_numbers_are_those_of_the_transport_when_scraped() -> None:
    registry, stats = CollectorRegistry(), TransportStats()
    expose_streams(registry, SELECTABLE_NAME_SETS, stats)

    stats.streams = 3
    stats.messages_received, stats.bytes_sent = 7, 512
    stats.errors["flood"] += 2
    stats.blocked_seconds = 1.5

    read = registry.get_sample_value
    assert read("epp_grpc_streams_total") == 3
    assert read("epp_grpc_messages_total", {"direction": "received"}) == 7
    assert read("epp_grpc_messages_total", {"direction": "sent"}) == 0
    assert read("epp_grpc_message_bytes_total", {"direction": "sent"}) == 512
    assert read("epp_grpc_connection_errors_total", {"kind": "flood"}) == 2
    assert read("epp_grpc_blocked_seconds_total") == 1.5
