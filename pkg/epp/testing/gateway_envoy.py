"""Envoy, configured as a gateway of the field configures it for an InferencePool.

The configurations are templates of ours in ``test/testdata/gateways``; ``docs/gateways.md`` says
where each setting comes from. Envoy knows the pods on its own, as it does in a cluster; only on
kgateway's lean path, which ends in our own Envoy, the EPP's file of endpoints tells it.
"""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import Any

from epp.backend.endpoint import Endpoint
from epp.standalone import eds, local_http
from epp.standalone.envoy_bootstrap import BootstrapSettings, render_bootstrap
from epp.standalone.plan import find_envoy
from epp.testing.epp_view import LOOPBACK
from epp.testing.stack import free_port

TEMPLATES = Path(__file__).parents[3] / "test" / "testdata" / "gateways"
STOCK_FLAVOURS = ("kgateway", "istio")
LEAN_FLAVOURS = ("kgateway-lean", "istio-lean")
FLAVOURS = STOCK_FLAVOURS + LEAN_FLAVOURS
"""What each gateway generates by itself, and with the lean-path component of ``config/``."""

_OWN_ENVOY = "kgateway-lean"
"""kgateway cannot be patched: its route leads to the Envoy beside the EPP."""
_DESTINATION = "x-gateway-destination-endpoint"
_STOP_SECONDS = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayPorts:
    """Free ports for one gateway, the Envoy behind it if there is one, and the EPP."""

    listen: int = field(default_factory=free_port)
    admin: int = field(default_factory=free_port)
    own_listen: int = field(default_factory=free_port)
    own_admin: int = field(default_factory=free_port)
    epp: int = field(default_factory=free_port)
    epp_health: int = field(default_factory=free_port)
    metrics: int = field(default_factory=free_port)


class EnvoyProcess:
    """One Envoy.

    Args:
        name: Of its files.
        state_dir: Where they lie.
        config: Its bootstrap.
        admin_port: The one that the bootstrap names.
    """

    def __init__(self, name: str, state_dir: Path, *, config: str, admin_port: int) -> None:
        self.log = state_dir / f"{name}.log"
        self._config_path = state_dir / f"{name}.yaml"
        self._config = config
        self._admin_port = admin_port
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Write the configuration and start; ``is_up`` tells when it serves."""
        self._config_path.write_text(self._config)
        argv = [find_envoy(None), "-c", str(self._config_path), "--disable-hot-restart"]
        argv += ["--log-level", "warning", "--concurrency", "2"]
        self._process = await spawn(argv, self.log)

    async def is_up(self) -> bool:
        """It serves, and every host it knows is healthy: an unhealthy EPP would not be asked."""
        if self._process is None or self._process.returncode is not None:
            raise ProcessLookupError("envoy ended")
        if not await local_http.answers(LOOPBACK, self._admin_port, "/ready"):
            return False
        reply = await local_http.request(LOOPBACK, self._admin_port, "GET", "/clusters")
        flags = [line for line in reply.body.decode().splitlines() if "::health_flags::" in line]
        return bool(flags) and all(line.endswith("::healthy") for line in flags)

    async def stop(self) -> None:
        """End the process."""
        await end(self._process)


def envoys_of(
    flavour: str, state_dir: Path, *, ports: GatewayPorts, endpoints: Sequence[str]
) -> list[EnvoyProcess]:
    """Make the Envoys of a flavour, in the order in which they start.

    Args:
        flavour: One of ``FLAVOURS``.
        state_dir: Exists; a file of endpoints is left there for the Envoy that reads one.
        ports: Where everybody listens, on loopback.
        endpoints: ``ip:port`` of every pod.
    """
    envoys = []
    if flavour == _OWN_ENVOY:
        eds_file(state_dir).write_text(eds.render(map(_endpoint, endpoints)))
        config = own_bootstrap(state_dir, ports=ports)
        envoys = [EnvoyProcess("own-envoy", state_dir, config=config, admin_port=ports.own_admin)]
    config = render(flavour, ports=ports, endpoints=endpoints)
    return [*envoys, EnvoyProcess("envoy", state_dir, config=config, admin_port=ports.admin)]


def epp_arguments(flavour: str, state_dir: Path) -> list[str]:
    """What ``epp serve`` is started with besides its ports: as in ``config/``."""
    if flavour == _OWN_ENVOY:
        return ["--secure-serving=false", f"--eds-file={eds_file(state_dir)}"]
    return []


def speaks_tls(flavour: str) -> bool:
    """The EPP is asked over TLS; between two containers of a pod it is not."""
    return flavour != _OWN_ENVOY


def eds_file(state_dir: Path) -> Path:
    """The file of endpoints, which only our own Envoy reads."""
    return state_dir / "endpoints.yaml"


def own_bootstrap(state_dir: Path, *, ports: GatewayPorts) -> str:
    """Return the bootstrap of the Envoy beside the EPP (``config/components/standalone-envoy``)."""
    settings = BootstrapSettings(
        path="lean",
        listen_port=ports.own_listen,
        admin_port=ports.own_admin,
        epp_port=ports.epp,
        epp_health_port=ports.epp_health,
        eds_file=str(eds_file(state_dir)),
    )
    return render_bootstrap(settings)


def render(flavour: str, *, ports: GatewayPorts, endpoints: Sequence[str]) -> str:
    """Fill a flavour's template.

    Args:
        flavour: One of ``FLAVOURS``.
        ports: Where everybody listens, on loopback.
        endpoints: ``ip:port`` of every pod.
    """
    template = Template((TEMPLATES / f"{flavour}.yaml.tmpl").read_text())
    return template.substitute(
        listen_port=ports.listen,
        admin_port=ports.admin,
        own_port=ports.own_listen,
        epp_port=ports.epp,
        epp_health_port=ports.epp_health,
        endpoints=json.dumps(list(endpoints)),
        lb_endpoints=json.dumps([_lb_endpoint(endpoint) for endpoint in endpoints]),
    )


async def spawn(argv: Sequence[str], log: Path) -> asyncio.subprocess.Process:
    """Start a program whose output goes to the end of a file."""
    with log.open("ab") as sink:
        return await asyncio.create_subprocess_exec(
            *argv, stdin=asyncio.subprocess.DEVNULL, stdout=sink, stderr=sink
        )


async def end(process: asyncio.subprocess.Process | None) -> None:
    """Terminate a program, by force if it takes too long; nothing for one that has ended."""
    if process is None or process.returncode is not None:
        return
    process.terminate()
    try:
        await asyncio.wait_for(process.wait(), _STOP_SECONDS)
    except TimeoutError:
        process.kill()
        await process.wait()


def _endpoint(endpoint: str) -> Endpoint:
    address, _, port = endpoint.rpartition(":")
    return Endpoint(namespace="test", pod_name=address, address=address, port=int(port))


def _lb_endpoint(endpoint: str) -> dict[str, Any]:
    """An endpoint of Envoy; its own address is its load-balancing metadata (kgateway's subsets)."""
    address, _, port = endpoint.rpartition(":")
    return {
        "endpoint": {"address": {"socket_address": {"address": address, "port_value": int(port)}}},
        "load_balancing_weight": 1,
        "metadata": {"filter_metadata": {"envoy.lb": {_DESTINATION: endpoint}}},
    }
