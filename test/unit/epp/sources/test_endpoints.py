import pytest

from epp.errors import ConfigError
from epp.sources.caches import SourceCaches
from epp.sources.endpoints import ACTIVE_PORTS, StaticSource
from epp_api.core_v1 import pod_is_ready
from epp_api.meta import labels_match

Endpoints = list[tuple[str, int]]


async def started(
    endpoints: Endpoints, pool_name: str = "", namespace: str = "default"
) -> SourceCaches:
    source = StaticSource(endpoints, pool_name=pool_name, namespace=namespace)
    await source.start()
    return source.caches


@pytest.mark.parametrize(
    ("endpoints", "ports", "active"),
    [
        pytest.param([("10.0.0.1", 8000)], [8000], {"10.0.0.1": "8000"}, id="one"),
        pytest.param(
            [("10.0.0.1", 8000), ("10.0.0.2", 8000)],
            [8000],
            {"10.0.0.1": "8000", "10.0.0.2": "8000"},
            id="one-port",
        ),
        pytest.param(
            [("10.0.0.1", 8001), ("10.0.0.1", 8000), ("10.0.0.2", 8002)],
            [8000, 8001, 8002],
            {"10.0.0.1": "8001,8000", "10.0.0.2": "8002"},
            id="each-pod-its-own-ports",
        ),
        pytest.param([("fd00::1", 8000)], [8000], {"fd00::1": "8000"}, id="ipv6"),
    ],
)
async def test_servers_become_a_pool_and_ready_pods(
    endpoints: Endpoints, ports: list[int], active: dict[str, str]
) -> None:
    caches = await started(endpoints)

    [pool] = caches.pools_v1.list()
    pods = caches.pods.list()
    assert [port.number for port in pool.spec.target_ports] == ports
    assert {pod.status.pod_ip: pod.metadata.annotations[ACTIVE_PORTS] for pod in pods} == active
    assert all(pod_is_ready(pod) for pod in pods)
    assert all(labels_match(pool.spec.selector.match_labels, pod.metadata.labels) for pod in pods)


async def test_names_are_as_told() -> None:
    caches = await started([("10.0.0.1", 1)], pool_name="mine", namespace="prod")

    assert [str(key) for key in caches.pool_keys()] == ["prod/mine"]
    assert caches.pods.list()[0].metadata.namespace == "prod"


async def test_a_started_source_has_synced_and_stops() -> None:
    source = StaticSource([("10.0.0.1", 1)])
    before = source.caches.pods.has_synced

    await source.start()
    await source.stop()

    assert not before
    assert all(cache.has_synced for cache in source.caches.by_type.values())


@pytest.mark.parametrize(
    ("endpoints", "message"),
    [
        pytest.param([("host", 1)], "--endpoint: must be an IP address and a port", id="name"),
        pytest.param([("", 1)], "must be an IP address", id="empty"),
        pytest.param([("10.0.0.1", 1)] * 2, "--endpoint: given twice", id="twice"),
        pytest.param(
            [("10.0.0.1", port) for port in range(1, 10)], "more than 8 different", id="9-ports"
        ),
    ],
)
def test_what_cannot_be_served_is_an_error_of_the_flag(endpoints: Endpoints, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        StaticSource(endpoints)


async def test_every_address_has_a_pod_of_its_own() -> None:
    caches = await started([("::1", 1), ("1::", 1)])

    assert len(caches.pods.list()) == 2


def test_one_address_written_in_two_ways_is_given_twice() -> None:
    with pytest.raises(ConfigError, match="given twice"):
        StaticSource([("::1", 1), ("0:0:0:0:0:0:0:1", 1)])
