"""Which flag chose a port, and which is to blame when it cannot be listened on."""

from epp.server.option_values import Options
from epp.transport.listening import ListenError


def port_flags(options: Options) -> tuple[tuple[str, int], ...]:
    """Every port with its flag."""
    return (
        ("--grpc-port", options.grpc_port),
        ("--grpc-health-port", options.grpc_health_port),
        ("--metrics-port", options.metrics_port),
    )


def flag_to_blame(options: Options, error: ListenError) -> str:
    """The flag that an operator must change."""
    if error.address_at_fault:
        return "--bind-address"
    chosen = [flag for flag, port in port_flags(options) if port == error.port]
    return ", ".join(chosen)
