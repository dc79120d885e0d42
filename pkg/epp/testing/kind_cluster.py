"""A cluster of kind, which ``hack/kind.py`` has made: containers, kubelet, kube-proxy are real.

Objects go through the same connection as on the local cluster, as a ServiceAccount that ``kubectl``
is asked to make. Clients reach the gateway by a NodePort that the node's container publishes, pods
by ``kubectl port-forward``; a process is killed from the node, as nothing in its pod could.
"""

import asyncio
import base64
import contextlib
import os
import subprocess
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from epp.errors import TransportError
from epp.standalone import local_http
from epp.testing.api_admin import ApiAdmin, identity, service_account_subject
from epp.testing.cluster import Address, ClusterError, Pod
from epp.testing.stack import eventually

HOST = "127.0.0.1"
NODE_PORT = 30080
"""Of the gateway, on the node; ``hack/kind.py`` publishes it on a port of this machine."""

PATIENCE = 3.0
COMMAND_SECONDS = 60.0
_ACCOUNT, _ACCOUNT_NAMESPACE = "e2e-admin", "kube-system"
_LOG_LINES = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class KindSettings:
    """What ``hack/kind.py`` hands to the tests.

    Attributes:
        kubeconfig: Of the cluster.
        node: Name of the node's container.
        gateway_port: Port of this machine that leads to ``NODE_PORT``.
    """

    kubeconfig: Path
    node: str
    gateway_port: int

    def environment(self) -> dict[str, str]:
        """Variables for the process that runs the tests."""
        return {
            "EPP_E2E_CLUSTER": "kind",
            "EPP_E2E_KUBECONFIG": str(self.kubeconfig),
            "EPP_E2E_NODE": self.node,
            "EPP_E2E_GATEWAY_PORT": str(self.gateway_port),
        }

    @classmethod
    def read(cls, env: Mapping[str, str]) -> Self:
        """Read them. Raises ClusterError naming a variable that is missing."""
        names = ("EPP_E2E_KUBECONFIG", "EPP_E2E_NODE", "EPP_E2E_GATEWAY_PORT")
        missing = [name for name in names if not env.get(name)]
        if missing:
            raise ClusterError(f"{missing[0]} is not set: run `make test-e2e-kind`")
        kubeconfig, node, port = (env[name] for name in names)
        return cls(kubeconfig=Path(kubeconfig), node=node, gateway_port=int(port))


class KindCluster:
    """The cluster.

    Args:
        settings: Where it is.
        directory: For a file or two.

    Attributes:
        admin: Connection as an administrator.
        patience: Images start more slowly than processes, and kube-proxy takes its time.
    """

    admin: ApiAdmin
    patience = PATIENCE

    def __init__(self, settings: KindSettings, directory: Path) -> None:
        self._settings = settings
        self._directory = directory
        self._stack = contextlib.AsyncExitStack()
        self._published = ("", "")

    async def __aenter__(self) -> Self:
        """Connect. Raises ClusterError."""
        config = yaml.safe_load(self._settings.kubeconfig.read_text("utf-8"))
        cluster = config["clusters"][0]["cluster"]
        ca_file = self._directory / "ca.crt"
        ca_file.write_bytes(base64.b64decode(cluster["certificate-authority-data"]))
        admin = ApiAdmin(cluster["server"], await self._token(), str(ca_file))
        self.admin = await self._stack.enter_async_context(admin)
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _exc: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        """Disconnect; the cluster stays."""
        await self._stack.aclose()

    async def service(self, namespace: str, name: str, port: str) -> Callable[[], Address]:
        """See ``Cluster``. One Service can be reached, by a second Service of type NodePort."""
        if self._published not in (("", ""), (namespace, name)):
            raise ClusterError(f"{self._published[1]} has the one port that kind publishes")
        found = await self.admin.get(identity("v1", "Service", name, namespace=namespace))
        [target] = [p["targetPort"] for p in found["spec"]["ports"] if p["name"] == port]
        published = {
            **identity("v1", "Service", "e2e-gateway", namespace=namespace),
            "spec": {
                "type": "NodePort",
                "selector": found["spec"]["selector"],
                "ports": [{"name": port, "port": 80, "targetPort": target, "nodePort": NODE_PORT}],
            },
        }
        if not self._published[0]:
            await self.admin.apply([published])
            self._published = (namespace, name)
        address = (HOST, self._settings.gateway_port)
        await eventually(lambda: _speaks_http(address), seconds=30 * PATIENCE, what="NodePort")
        return lambda: address

    @contextlib.asynccontextmanager
    async def reach(self, pod: Pod, port: int) -> AsyncIterator[Address]:
        """See ``Cluster``."""
        metadata = pod["metadata"]
        forwarding = await asyncio.create_subprocess_exec(
            *self._kubectl("port-forward", "--namespace", metadata["namespace"]),
            *(f"pod/{metadata['name']}", f":{port}", "--address", HOST),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            yield await _forwarded(forwarding)
        finally:
            if forwarding.returncode is None:
                forwarding.terminate()
            await forwarding.communicate()

    async def kill(self, pod: Pod, container: str) -> None:
        """See ``Cluster``: by the process id that the container runtime of the node knows."""
        labels = {
            "io.kubernetes.pod.uid": pod["metadata"]["uid"],
            "io.kubernetes.container.name": container,
        }
        chosen = [word for item in labels.items() for word in ("--label", "=".join(item))]
        ids = (await self._on_node("crictl", "ps", "--quiet", *chosen)).split()
        if len(ids) != 1:
            raise ClusterError(f"{pod['metadata']['name']}: {len(ids)} containers {container} run")
        template = ("--output", "go-template", "--template", "{{.info.pid}}")
        pid = (await self._on_node("crictl", "inspect", *template, ids[0])).strip()
        await self._on_node("sh", "-c", 'kill -KILL "$1"', "kill", pid)

    async def logs(self, pod: Pod, container: str) -> str:
        """See ``Cluster``: of the process that runs now."""
        metadata = pod["metadata"]
        place = ("--namespace", metadata["namespace"], metadata["name"])
        return await _output(self._kubectl("logs", *place, "--container", container))

    def describe(self) -> str:
        """See ``Cluster``."""
        namespaces = ("--all-namespaces", "--output", "wide")
        parts = [_said(self._kubectl("get", "pods,deployments,services", *namespaces))]
        events = ("--all-namespaces", "--sort-by", ".lastTimestamp")
        parts.append("\n".join(_said(self._kubectl("get", "events", *events)).splitlines()[-60:]))
        listed = self._kubectl(
            "get", "pods", "--all-namespaces", "--no-headers",
            "--output", "custom-columns=N:.metadata.namespace,P:.metadata.name",
            "--selector", "app.kubernetes.io/name",
        )  # fmt: skip
        for line in _said(listed).splitlines():
            namespace, _, name = line.partition(" ")
            flags = ("--all-containers", "--prefix", f"--tail={_LOG_LINES}")
            parts.append(
                _said(self._kubectl("logs", "--namespace", namespace, name.strip(), *flags))
            )
        return "\n".join(parts)

    async def _token(self) -> str:
        place = ("--namespace", _ACCOUNT_NAMESPACE)
        binding = {
            **identity("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", _ACCOUNT),
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "ClusterRole",
                "name": "cluster-admin",
            },
            "subjects": [service_account_subject(_ACCOUNT, _ACCOUNT_NAMESPACE)],
        }
        account = identity("v1", "ServiceAccount", _ACCOUNT, namespace=_ACCOUNT_NAMESPACE)
        manifests = self._directory / "admin.yaml"
        manifests.write_text(yaml.safe_dump_all([account, binding]), "utf-8")
        await _output(self._kubectl("apply", "--filename", str(manifests)))
        command = self._kubectl("create", "token", _ACCOUNT, *place, "--duration=3h")
        return (await _output(command)).strip()

    def _kubectl(self, *words: str) -> list[str]:
        return ["kubectl", "--kubeconfig", str(self._settings.kubeconfig), *words]

    async def _on_node(self, *words: str) -> str:
        return await _output(["docker", "exec", self._settings.node, *words])


async def _speaks_http(address: Address) -> bool:
    """Anything that is HTTP will do; TransportError is for the caller."""
    return (await local_http.request(*address, "GET", "/v1/models")).status > 0


async def _forwarded(process: asyncio.subprocess.Process) -> Address:
    """The address that ``kubectl port-forward`` prints first."""
    if process.stdout is None:
        raise ClusterError("kubectl port-forward: no output")
    line = (await asyncio.wait_for(process.stdout.readline(), COMMAND_SECONDS)).decode()
    port = line.removeprefix(f"Forwarding from {HOST}:").partition(" ")[0]
    if not port.isdigit():
        raise TransportError(f"kubectl port-forward: {line.strip() or 'it ended'}")
    return HOST, int(port)


async def _output(argv: list[str]) -> str:
    """What a program prints. Raises ClusterError when it fails or takes too long."""
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), COMMAND_SECONDS)
    except TimeoutError as exc:
        process.kill()
        await process.wait()
        raise ClusterError(f"{' '.join(argv)}: not done in {COMMAND_SECONDS:g} s") from exc
    if process.returncode != 0:
        raise ClusterError(f"{' '.join(argv)}: {err.decode(errors='replace').strip()}")
    return out.decode(errors="replace")


def _said(argv: list[str]) -> str:
    """What a program prints, whether it fails or not."""
    done: subprocess.CompletedProcess[Any] = subprocess.run(  # noqa: S603 (kubectl)
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=dict(os.environ),
        check=False,
        timeout=COMMAND_SECONDS,
    )
    return str(done.stdout.decode(errors="replace"))
