import pytest

from epp.backend.endpoint import join_host_port
from epp.testing.builders import make_endpoint


@pytest.mark.parametrize(
    ("host", "want"),
    [
        pytest.param("10.0.0.1", "10.0.0.1:8000", id="ipv4"),
        pytest.param("fd00::1", "[fd00::1]:8000", id="ipv6"),
        pytest.param("::ffff:10.0.0.1", "[::ffff:10.0.0.1]:8000", id="mapped"),
        pytest.param("localhost", "localhost:8000", id="name"),
    ],
)
def test_host_and_port_are_joined_as_the_gateway_wants_them(host: str, want: str) -> None:
    assert join_host_port(host, 8000) == want


def test_identity_is_namespace_pod_and_rank_not_address() -> None:
    first = make_endpoint("vllm", rank=1, address="10.0.0.1", port=8001)
    moved = make_endpoint("vllm", rank=1, address="10.0.0.9", port=8001)

    assert first.key == moved.key == "default/vllm-rank-1"
    assert first.name == "vllm-rank-1"
    assert first.target == "10.0.0.1:8001"
    assert first != moved
