import pytest

from epp.datastore.endpoint_pool import EndpointPool
from epp.datastore.pod_endpoints import active_ports, active_ports_problem, endpoints_of
from epp.testing.builders import make_pod

NEW = "llm-d.ai/active-ports"
LEGACY = "inference.networking.k8s.io/active-ports"


def pool_of(*ports: int) -> EndpointPool:
    return EndpointPool(namespace="default", name="pool", target_ports=ports)


def test_each_target_port_is_an_endpoint_of_its_own() -> None:
    pod = make_pod("vllm", ip="10.0.0.7", labels={"app": "x"})

    first, second = endpoints_of(pod, pool_of(8000, 8001))

    assert (first.key, first.target) == ("default/vllm-rank-0", "10.0.0.7:8000")
    assert (second.key, second.target) == ("default/vllm-rank-1", "10.0.0.7:8001")
    assert first.labels == {"app": "x"}


def test_an_ipv6_address_gets_brackets() -> None:
    (endpoint,) = endpoints_of(make_pod(ip="fd00::7"), pool_of(8000))

    assert endpoint.target == "[fd00::7]:8000"
    assert endpoint.address == "fd00::7"


def test_a_pod_without_an_address_is_no_endpoint() -> None:
    assert endpoints_of(make_pod(ip=""), pool_of(8000)) == []


def test_an_inactive_port_keeps_the_rank_of_the_others() -> None:
    pod = make_pod("vllm", annotations={NEW: "8001, 9999"})

    assert [e.key for e in endpoints_of(pod, pool_of(8000, 8001))] == ["default/vllm-rank-1"]


@pytest.mark.parametrize(
    ("annotations", "want"),
    [
        pytest.param({}, {8000, 8001}, id="absent-means-all"),
        pytest.param({"other": "1"}, {8000, 8001}, id="other-annotation"),
        pytest.param({NEW: "8000"}, {8000}, id="one"),
        pytest.param({NEW: " 8001 ,8000 "}, {8000, 8001}, id="spaces"),
        pytest.param({NEW: "8001,x,80.5,-1,,9999"}, {8001}, id="unusable-entries-ignored"),
        pytest.param({NEW: ""}, set(), id="empty-means-none"),
        pytest.param({NEW: "none"}, set(), id="no-number-means-none"),
        pytest.param({NEW: "٨٠٠٠"}, set(), id="other-digits-are-no-port"),
        pytest.param({NEW: "8" * 10_000}, set(), id="absurd-length"),
        pytest.param({LEGACY: "8001"}, {8001}, id="legacy-key"),
        pytest.param({NEW: "8000", LEGACY: "8001"}, {8000}, id="new-key-wins"),
        pytest.param({NEW: "", LEGACY: "8001"}, set(), id="empty-new-key-wins"),
    ],
)
def test_active_ports_annotation(annotations: dict[str, str], want: set[int]) -> None:
    assert active_ports(annotations, (8000, 8001)) == want


@pytest.mark.parametrize(
    ("annotations", "problem"),
    [
        pytest.param({}, None, id="absent"),
        pytest.param({NEW: "8000"}, None, id="one"),
        pytest.param({NEW: ""}, None, id="none-on-purpose"),
        pytest.param({NEW: " , "}, None, id="nothing-between-commas"),
        pytest.param({NEW: "8000, 9999"}, None, id="another-pools-port-too"),
        pytest.param(
            {NEW: "9999"}, (NEW, "none of them is a target port of the pool"), id="foreign"
        ),
        pytest.param({NEW: "8000;8001"}, (NEW, "'8000;8001' is not a port"), id="separator"),
        pytest.param({LEGACY: "8000, all"}, (LEGACY, "'all' is not a port"), id="word"),
        pytest.param({NEW: "8000", LEGACY: "all"}, None, id="the-one-not-used"),
        pytest.param({NEW: "x" * 99}, (NEW, f"{'x' * 40!r} is not a port"), id="shortened"),
    ],
)
def test_an_annotation_that_was_meant_otherwise_is_found(
    annotations: dict[str, str], problem: tuple[str, str] | None
) -> None:
    assert active_ports_problem(annotations, (8000, 8001)) == problem
