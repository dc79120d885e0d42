"""A directory of manifests, the controllers, and what the datastore makes of it."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from epp.backend.endpoint_rows import EndpointRows
from epp.controller.setup import build_controllers
from epp.datastore.datastore import Datastore
from epp.kube.controller import Controller
from epp.sources.files import FileSource
from epp_api.meta import NamespacedName

POOL = NamespacedName("default", "chat-pool")
NEW, OLD = "llm-d.ai/v1alpha2", "inference.networking.x-k8s.io/v1alpha2"

POOL_V1 = """apiVersion: inference.networking.k8s.io/v1
kind: InferencePool
metadata: {name: chat-pool}
spec: {selector: {matchLabels: {app: x}}, targetPorts: [{number: 8000}]}
"""
POOL_V1ALPHA2 = """apiVersion: inference.networking.x-k8s.io/v1alpha2
kind: InferencePool
metadata: {name: chat-pool}
spec: {selector: {app: x}, targetPortNumber: 8000, extensionRef: {name: epp}}
"""


def objective(name: str, priority: int, api_version: str = NEW, group: str = "") -> str:
    ref = f"{{name: chat-pool, group: {group}}}" if group else "{name: chat-pool}"
    return (
        f"apiVersion: {api_version}\nkind: InferenceObjective\nmetadata: {{name: {name}}}\n"
        f"spec: {{priority: {priority}, poolRef: {ref}}}\n"
    )


def rewrite(name: str, rules: str, api_version: str = NEW, created: int = 1) -> str:
    return (
        f"apiVersion: {api_version}\nkind: InferenceModelRewrite\n"
        f'metadata: {{name: {name}, creationTimestamp: "2026-01-01T00:00:0{created}Z"}}\n'
        f"spec: {{poolRef: {{name: chat-pool}}, rules: [{rules}]}}\n"
    )


class Files:
    """A directory that is read by hand, and what hangs on it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.source = FileSource(directory)
        self.datastore = Datastore(EndpointRows())
        self.controllers: Sequence[Controller] = build_controllers(
            self.source.caches, self.datastore, POOL
        )

    async def apply(self, **files: str | None) -> None:
        """Write files (None deletes one), look at the directory, and let the controllers run."""
        for name, text in files.items():
            path = self.directory / f"{name}.yaml"
            if text is None:
                path.unlink()
            else:
                temporary = path.with_name(f".{path.name}")
                temporary.write_text(text)
                temporary.rename(path)
        self.source.scan()
        while not all(controller.queue.idle for controller in self.controllers):
            await asyncio.sleep(0)

    def priorities(self) -> Mapping[str, int]:
        return {o.metadata.name: o.priority for o in self.datastore.objective_list()}

    def targets(self, model_name: str) -> list[str]:
        rule = self.datastore.rewrite_get(model_name)
        return [] if rule is None else [target.model_rewrite for target in rule.targets]


@pytest.fixture
async def files(tmp_path: Path) -> AsyncIterator[Files]:
    one = Files(tmp_path)
    for controller in one.controllers:
        await controller.start()
    yield one
    for controller in one.controllers:
        await controller.stop()


async def test_objects_take_effect_and_cease_to(files: Files) -> None:
    await files.apply(
        pool=POOL_V1,
        batch=objective("batch", -5),
        canary=rewrite("canary", "{matches: [{model: {value: bot}}], split: [{modelRewrite: r7}]}"),
    )
    before = (files.priorities(), files.targets("bot"), files.targets("other"))

    await files.apply(batch=objective("batch", 3), canary=None)

    assert before == ({"batch": -5}, ["r7"], [])
    assert (files.priorities(), files.targets("bot")) == ({"batch": 3}, [])


async def test_a_refused_version_leaves_the_last_good_one_in_effect(files: Files) -> None:
    await files.apply(pool=POOL_V1, batch=objective("batch", -5))

    with capture_logs() as logs:
        await files.apply(batch=objective("batch", -5).replace("-5", "low"))

    assert files.priorities() == {"batch": -5}
    (line,) = [line for line in logs if line["event"] == "manifest refused"]
    assert "spec.priority: must be of type integer (got 'low')" in line["problem"]


async def test_the_first_object_of_the_newer_group_rules_the_older_group_out(files: Files) -> None:
    old = rewrite("old", "{targets: [{modelRewrite: o}]}", OLD, created=1)
    await files.apply(pool=POOL_V1, old=old)
    seen = [files.targets("any")]

    with capture_logs() as logs:
        await files.apply(new=rewrite("new", "{targets: [{modelRewrite: n}]}", NEW, created=2))
        seen.append(files.targets("any"))
        await files.apply(new=None)
        seen.append(files.targets("any"))

    assert seen == [["o"], ["n"], ["o"]]
    told = [line for line in logs if line["log_level"] == "warning"]
    assert [(line["event"], line["kind"]) for line in told] == [
        ("objects of the older API group are ignored", "InferenceModelRewrite")
    ]


async def test_the_kinds_choose_their_groups_apart(files: Files) -> None:
    await files.apply(
        pool=POOL_V1,
        objective=objective("batch", -5, OLD),
        rewrite=rewrite("canary", "{targets: [{modelRewrite: n}]}", NEW),
    )

    assert files.priorities() == {"batch": -5}
    assert files.targets("any") == ["n"]


async def test_a8_another_pool_version_brings_its_own_objectives(files: Files) -> None:
    await files.apply(
        pool=POOL_V1,
        new=objective("new", 1),
        old=objective("old", 2, group="inference.networking.x-k8s.io"),
    )
    seen = [files.priorities()]

    await files.apply(pool=POOL_V1ALPHA2)
    seen.append(files.priorities())
    await files.apply(pool=None)
    seen.append(files.priorities())
    await files.apply(pool=POOL_V1)
    seen.append(files.priorities())

    assert seen == [{"new": 1}, {"old": 2}, {}, {"new": 1}]


async def test_a9_rules_by_precedence(files: Files) -> None:
    generic = "{targets: [{modelRewrite: base}]}"
    exact = "{matches: [{model: {value: bot}}], targets: [{modelRewrite: %s}]}"
    await files.apply(
        pool=POOL_V1,
        generic=rewrite("generic", generic, created=1),
        young=rewrite("young", exact % "y", created=3),
        old=rewrite("old", exact % "o", created=2),
    )

    assert files.targets("bot") == ["o"]
    assert files.targets("anything") == ["base"]
