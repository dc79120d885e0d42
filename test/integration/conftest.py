"""Fixtures: simulated pods, and standalone stacks with a real Envoy on both data paths."""

from pathlib import Path

import pytest_asyncio
from openai import AsyncOpenAI

from epp.testing.stack import Manifests, Sims, Stack

SIM_ARGUMENTS = [
    *("--model", "tiny", "--lora", "sup-a,sup-b", "--max-loras", "2", "--speed", "10"),
    *("--num-gpu-blocks", "200000", "--prefill-tokens-per-second", "10000000"),
]


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


async def _stack(path: str, sims: Sims, directory: Path):
    manifests = Manifests(directory / "manifests")
    manifests.pool(sims.port)
    declare_models(manifests)
    manifests.pods(sims.addresses)
    arguments = ["--manifests", str(manifests.directory), "--path", path, "-v=3"]
    return Stack(directory / "state", *arguments, wait_endpoints=3)


@pytest_asyncio.fixture(scope="session", loop_scope="session", params=["lean", "gateway"])
async def stack(request, sims, tmp_path_factory):
    """A stack per data path, for tests that leave it as they found it."""
    directory = tmp_path_factory.mktemp(request.param)
    async with await _stack(request.param, sims, directory) as running:
        running.path = request.param
        yield running


@pytest_asyncio.fixture(loop_scope="session")
async def client(stack):
    """The official client, without retries of its own."""
    async with AsyncOpenAI(base_url=stack.url, api_key="none", max_retries=0, timeout=30) as made:
        yield made
