"""What is asked of kubectl and Docker on a cluster of kind; stand-ins write it down."""

import base64

import pytest
import yaml

from epp.errors import TransportError
from epp.testing.cluster import ClusterError
from epp.testing.kind_cluster import KindCluster, KindSettings

POD = {"metadata": {"name": "epp-1-a", "namespace": "demo", "uid": "u-1"}}
KUBECTL = """\
case "$*" in
  *"create token"*) echo secret-token ;;
  *port-forward*) echo "Forwarding from 127.0.0.1:40001 -> 9090"; exec sleep 60 ;;
  *logs*) echo "a line" ;;
  *get*pods*) echo "demo   epp-1-a" ;;
esac
"""
DOCKER = """\
case "$*" in
  *"crictl ps"*) echo c-1 ;;
  *"crictl inspect"*) echo 4711 ;;
esac
"""


class Calls:
    """Programs of a test that write down what they were called with."""

    def __init__(self, directory):
        self._log = directory / "calls"
        self._directory = directory / "bin"
        self._directory.mkdir()

    def __call__(self):
        return self._log.read_text().splitlines()

    def install(self, **scripts):
        for name, script in scripts.items():
            program = self._directory / name
            program.write_text(f'#!/bin/sh\necho "{name} $*" >> {self._log}\n{script}')
            program.chmod(0o755)


@pytest.fixture
def calls(tmp_path, monkeypatch):
    made = Calls(tmp_path)
    made.install(kubectl=KUBECTL, docker=DOCKER)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    return made


@pytest.fixture
def settings(tmp_path):
    cluster = {
        "server": "http://127.0.0.1:6443",
        "certificate-authority-data": base64.b64encode(b"").decode(),
    }
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump({"clusters": [{"cluster": cluster}]}))
    return KindSettings(kubeconfig=path, node="epp-e2e-control-plane", gateway_port=31234)


@pytest.fixture
def kind(settings, tmp_path):
    return KindCluster(settings, tmp_path)


def test_settings_reach_the_tests_through_the_environment(settings):
    assert KindSettings.read(settings.environment()) == settings


def test_settings_that_are_missing_are_named(settings):
    env = {**settings.environment(), "EPP_E2E_NODE": ""}

    with pytest.raises(ClusterError, match=r"EPP_E2E_NODE is not set: run `make test-e2e-kind`"):
        KindSettings.read(env)


async def test_a_process_is_killed_from_the_node(kind, calls):
    await kind.kill(POD, "epp")

    node = "docker exec epp-e2e-control-plane"
    labels = "--label io.kubernetes.pod.uid=u-1 --label io.kubernetes.container.name=epp"
    assert calls() == [
        f"{node} crictl ps --quiet {labels}",
        f"{node} crictl inspect --output go-template --template {{{{.info.pid}}}} c-1",
        f'{node} sh -c kill -KILL "$1" kill 4711',
    ]


async def test_a_container_that_does_not_run_cannot_be_killed(kind, calls):
    calls.install(docker="")

    with pytest.raises(ClusterError, match="epp-1-a: 0 containers epp run"):
        await kind.kill(POD, "epp")


async def test_a_pod_is_reached_where_kubectl_says(kind, calls, settings):
    async with kind.reach(POD, 9090) as address:
        assert address == ("127.0.0.1", 40001)

    words = "port-forward --namespace demo pod/epp-1-a :9090 --address 127.0.0.1"
    assert calls() == [f"kubectl --kubeconfig {settings.kubeconfig} {words}"]


async def test_a_pod_that_cannot_be_reached_is_no_address(kind, calls):
    calls.install(kubectl="exit 1")

    with pytest.raises(TransportError, match="it ended"):
        async with kind.reach(POD, 9090):
            pass


async def test_logs_are_those_of_the_container(kind, calls):
    assert await kind.logs(POD, "epp") == "a line\n"
    assert calls()[0].endswith("logs --namespace demo epp-1-a --container epp")


async def test_what_kubectl_complains_about_is_told(kind, calls):
    calls.install(kubectl="echo no such pod >&2; exit 1")

    with pytest.raises(ClusterError, match="no such pod"):
        await kind.logs(POD, "epp")


def test_a_failed_test_is_shown_pods_events_and_logs(kind, calls):
    text = kind.describe()

    assert "a line" in text
    assert [call for call in calls() if "logs --namespace demo epp-1-a" in call]


async def test_only_one_service_can_be_reached(kind):
    kind._published = ("demo", "gateway")

    with pytest.raises(ClusterError, match="gateway has the one port"):
        await kind.service("demo", "other", "http")
