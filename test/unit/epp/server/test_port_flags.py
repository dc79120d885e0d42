"""Which flag is to blame for a port."""

import pytest

from epp.server.option_values import Options
from epp.server.port_flags import flag_to_blame
from epp.transport.listening import ListenError

OPTIONS = Options(grpc_port=1, grpc_health_port=2, metrics_port=3)


@pytest.mark.parametrize(
    "port, address_at_fault, flag",
    [
        pytest.param(1, False, "--grpc-port", id="grpc"),
        pytest.param(2, False, "--grpc-health-port", id="health"),
        pytest.param(3, False, "--metrics-port", id="metrics"),
        pytest.param(3, True, "--bind-address", id="address"),
    ],
)
def test_the_flag_to_blame(port: int, address_at_fault: bool, flag: str) -> None:
    error = ListenError("10.0.0.1", port, "no", address_at_fault=address_at_fault)

    assert flag_to_blame(OPTIONS, error) == flag
