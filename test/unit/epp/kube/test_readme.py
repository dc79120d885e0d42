"""The reconciler of the README is run as it is printed there."""

import re
from pathlib import Path
from typing import Any

import pytest

from epp.kube.client import KubeClient
from epp.kube.resource import PODS
from epp.testing.fake_kube import FakeKube
from epp.testing.informer_world import pod_object

README = Path(__file__).parents[4] / "pkg" / "epp" / "kube" / "README.md"


@pytest.fixture
def code() -> str:
    blocks: list[str] = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(blocks) == 1
    return blocks[0]


def greeted(kube: FakeKube) -> list[str]:
    pods = kube.list(PODS)
    return [
        pod["metadata"]["name"]
        for pod in pods
        if pod["metadata"].get("annotations", {}).get("greeting") == "hello"
    ]


async def test_it_greets(code: str) -> None:
    namespace: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), namespace)

    async with FakeKube() as kube:
        kube.create(PODS, pod_object("early", app="demo"))
        kube.create(PODS, pod_object("stranger"))
        client = KubeClient(kube.settings())
        manager = namespace["build"](client)
        await manager.start()
        await kube.until(lambda: greeted(kube) == ["early"])
        kube.create(PODS, pod_object("late", app="demo"))
        await kube.until(lambda: greeted(kube) == ["early", "late"])
        kube.patch(PODS, "demo", "late", {"metadata": {"annotations": None}})
        await kube.until(lambda: greeted(kube) == ["early", "late"])
        await manager.stop()
        await client.close()


def test_its_reconciler_is_about_thirty_lines(code: str) -> None:
    body = code[code.index("GREETING") :]

    assert len([line for line in body.splitlines() if line.strip()]) <= 32
