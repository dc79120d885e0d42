"""Fixtures: simulated pods, and a gateway of every kind with a real Envoy in front of them."""

from pathlib import Path

import pytest
import pytest_asyncio
from openai import AsyncOpenAI

from epp.testing.gateway import Gateway
from epp.testing.gateway_envoy import FLAVOURS
from epp.testing.stack import Manifests, Sims, Stack

SIM_ARGUMENTS = [
    *("--model", "tiny", "--lora", "sup-a,sup-b", "--max-loras", "2", "--speed", "10"),
    *("--num-gpu-blocks", "200000", "--prefill-tokens-per-second", "10000000"),
]
STANDALONE_PATHS = ("lean", "gateway")
"""Of standalone, which speaks plaintext; the gateways' flavours speak TLS where they do by default."""

KINDS = {
    "native": (*STANDALONE_PATHS, *FLAVOURS),
    "grpcio": (*STANDALONE_PATHS, "kgateway", "istio-lean"),
}
"""Kinds of stack by transport: both data paths, each with and without TLS, on either."""


def declare_models(manifests: Manifests) -> None:
    """The base model, a split over two adapters, a sheddable name, a plain renaming."""
    manifests.model("tiny", criticality="Critical")
    manifests.model("support", criticality="Standard", targets={"sup-a": 90, "sup-b": 10})
    manifests.model("counted", targets={"tiny": 1})
    manifests.model("nightly", criticality="Sheddable", targets={"tiny": 1})


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def sims():
    """Three pods that a session's stacks share."""
    async with Sims(3, first="127.0.40.1", arguments=SIM_ARGUMENTS) as pods:
        yield pods


def _stack(kind: str, transport: str, sims: Sims, directory: Path) -> Stack | Gateway:
    manifests = Manifests(directory / "manifests")
    manifests.pool(sims.port)
    declare_models(manifests)
    manifests.pods(sims.addresses)
    arguments = ["--transport", transport]
    if kind in FLAVOURS:
        endpoints = [f"{address}:{sims.port}" for address in sims.addresses]
        return Gateway(
            kind,
            directory / "state",
            manifests=manifests,
            endpoints=endpoints,
            arguments=arguments,
        )
    arguments += ["--manifests", str(manifests.directory), "--path", kind, "-v=3"]
    return Stack(directory / "state", *arguments, wait_endpoints=3)


@pytest_asyncio.fixture(
    scope="session",
    loop_scope="session",
    params=[
        # One worker runs all tests of a kind, so each is started once.
        pytest.param(
            (kind, transport),
            marks=pytest.mark.xdist_group(f"stack-{kind}-{transport}"),
            id=f"{kind}-{transport}",
        )
        for transport, kinds in KINDS.items()
        for kind in kinds
    ],
)
async def stack(request, sims, tmp_path_factory):
    """A standalone stack per data path and a gateway of each flavour, for tests that leave it
    as they found it.
    """
    kind, transport = request.param
    directory = tmp_path_factory.mktemp(f"{kind}-{transport}")
    async with _stack(kind, transport, sims, directory) as running:
        log = (directory / "state" / "epp.log").read_text(errors="replace")
        assert f"transport={transport}" in log or f'"transport":"{transport}"' in log
        yield running


@pytest_asyncio.fixture(loop_scope="session")
async def client(stack):
    """The official client, without retries of its own."""
    async with AsyncOpenAI(base_url=stack.url, api_key="none", max_retries=0, timeout=30) as made:
        yield made
