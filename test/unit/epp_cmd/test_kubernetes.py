"""What is built for the Kubernetes source: who we say we are, and what the start tells."""

import socket
from pathlib import Path

import orjson
import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from epp.kube.resource import LEASES
from epp.metrics.metrics import Metrics
from epp.server.options import parse
from epp.testing.fake_kube import FakeKube
from epp.testing.kubeconfigs import document, write
from epp.testing.stack import eventually
from epp_cmd.kubernetes import Kubernetes, build_kubernetes

LEASE = LEASES.path(namespace="default", name="epp-default-p.llm-d.ai")


def build(folder: Path, server: str, *argv: str, **env: str) -> Kubernetes:
    kubeconfig = write(folder, document(cluster={"server": server}))
    options = parse([f"--kubeconfig={kubeconfig}", "--metrics-endpoint-auth=false", *argv], env)
    return build_kubernetes(options, Metrics(CollectorRegistry(), name_sets=options.metric_names))


@pytest.mark.parametrize(
    ("env", "name"),
    [
        pytest.param({"POD_NAME": "epp-a"}, "epp-a", id="pod"),
        pytest.param({}, socket.gethostname(), id="outside-of-a-pod"),
    ],
)
async def test_the_lease_names_our_pod(tmp_path: Path, env: dict[str, str], name: str) -> None:
    async with FakeKube() as kube:
        parts = build(tmp_path, kube.url, "--pool-name=p", "--ha-enable-leader-election", **env)
        assert parts.elector is not None
        await parts.elector.start()
        try:
            await eventually(parts.is_leader, what="leadership")
            lease = orjson.loads(await parts.client.request("GET", LEASE))
        finally:
            await parts.elector.stop()
            await parts.client.close()

    pod, _, rest = lease["spec"]["holderIdentity"].rpartition("_")
    assert pod == name
    assert len(rest) == 36


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        pytest.param(
            ["--endpoint-selector=app in (a, b)", "--endpoint-target-ports=8000,8001"],
            [("app in (a,b)", [8000, 8001])],
            id="selector",
        ),
        pytest.param(["--pool-name=p"], [], id="pool"),
    ],
)
async def test_the_start_tells_the_selector(
    tmp_path: Path, argv: list[str], told: list[tuple[str, list[int]]]
) -> None:
    with capture_logs() as logs:
        parts = build(tmp_path, "http://127.0.0.1:1", *argv, POD_NAME="my-epp-6b7f9c5d4-x2x9z")
    await parts.client.close()

    lines = [line for line in logs if line["logger_name"] == "epp_cmd.kubernetes"]
    assert [(line["selector"], line["target_ports"]) for line in lines] == told
