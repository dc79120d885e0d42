"""The life of one pod on the node of the harness: volumes, init containers, containers, the end.

Owner of the pod's containers and of its status at the API server. Reference: the kubelet's order
of things (kubernetes 1.34 pkg/kubelet, ``SyncPod`` and ``SyncTerminatingPod``).
"""

import asyncio
import contextlib
import os
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any

from epp.logs import get_logger
from epp.testing.api_admin import ApiAdmin, StatusError
from epp.testing.envtest import LocalControlPlane
from epp.testing.pod_container import Container, ContainerSpec, now
from epp.testing.pod_images import UnknownImageError, local_command
from epp.testing.pod_paths import PodSpecError, environment, expand, pre_stop_of
from epp.testing.pod_probes import probe_of
from epp.testing.pod_status import PodFacts, pod_status
from epp.testing.pod_volumes import PodVolumes

log = get_logger(__name__)

RETRY_SECONDS = 1.0
DEFAULT_GRACE_SECONDS = 30
_PROBES = ("startupProbe", "readinessProbe", "livenessProbe")
_PASSED_ON = ("LANG", "LD_LIBRARY_PATH", "PATH", "TMPDIR")
_IMAGE_ENV = {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"}
"""Of our Dockerfile."""


class PodRunner:
    """Runs a pod.

    Args:
        control_plane: Whose pod it is.
        admin: Connection for everything that the node does.
        pod: As stored.
        directory: For its files and logs; made here.
        address: Its own, on loopback.
        backoff_seconds: Before the second restart of a container.
    """

    def __init__(
        self,
        control_plane: LocalControlPlane,
        admin: ApiAdmin,
        pod: Mapping[str, Any],
        *,
        directory: Path,
        address: str,
        backoff_seconds: float,
    ) -> None:
        self.address = address
        self.directory = directory
        self.containers: list[Container] = []
        self._admin = admin
        self._pod = {"apiVersion": "v1", "kind": "Pod", **pod}
        self._backoff = backoff_seconds
        self._volumes = PodVolumes(control_plane, admin, pod, directory=directory, address=address)
        self._init_containers: list[Container] = []
        self._initialized = False
        self._problem = ""
        self._began = now()
        self._written: dict[str, Any] = {}
        self._dirty = asyncio.Event()
        self._end_asked = asyncio.Event()
        self._grace = float(DEFAULT_GRACE_SECONDS)

    @property
    def key(self) -> str:
        """Namespace and name."""
        return f"{self._pod['metadata']['namespace']}/{self._pod['metadata']['name']}"

    async def run(self) -> None:
        """From its creation to its deletion at the API server."""
        reporting = asyncio.create_task(self._report(), name=f"status of {self.key}")
        living = asyncio.create_task(self._live(), name=f"life of {self.key}")
        try:
            ended = asyncio.create_task(self._end_asked.wait(), name=f"end of {self.key}")
            await asyncio.wait((living, ended), return_when=asyncio.FIRST_COMPLETED)
            ended.cancel()
            if living.done():
                living.result()  # it only returns when told to
            await self._terminate(living)
        finally:
            for container in self._everything():
                container.abandon()
            for task in (living, reporting):
                task.cancel()
            await asyncio.gather(living, reporting, return_exceptions=True)

    def update(self, pod: Mapping[str, Any]) -> None:
        """Take a changed pod: its deletion is what matters."""
        if pod["metadata"].get("deletionTimestamp"):
            self._grace = float(pod["metadata"].get("deletionGracePeriodSeconds") or 0)
            self._end_asked.set()

    def container(self, name: str) -> Container:
        """One of its containers. Raises LookupError."""
        for container in self.containers:
            if container.spec.name == name:
                return container
        raise LookupError(f"{self.key} has no container {name}")

    async def _live(self) -> None:
        given = await self._prepared()
        spec = self._pod["spec"]
        for manifest in spec.get("initContainers") or ():
            container = await self._made(manifest, given)
            self._init_containers.append(container)
            await container.run(until_success=True)
        containers = [await self._made(manifest, given) for manifest in spec["containers"]]
        self.containers, self._initialized = containers, True
        self._dirty.set()
        async with asyncio.TaskGroup() as group:
            for container in containers:
                group.create_task(container.run(), name=f"{self.key} {container.spec.name}")

    async def _prepared(self) -> dict[str, str]:
        """Environment that every container is given; a service account may still be on its way."""
        passed = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        while True:
            try:
                prepared = await self._volumes.prepare()
                return {**passed, **_IMAGE_ENV, "HOME": str(self.directory), **prepared}
            except StatusError as exc:
                await self._wait_with(exc)

    async def _made(self, manifest: Mapping[str, Any], given: Mapping[str, str]) -> Container:
        """A container that can be started, as soon as everything that it needs is there."""
        while True:
            try:
                spec = await self._spec(manifest, given)
                self._problem = ""
                return Container(spec, changed=self._dirty.set, backoff_seconds=self._backoff)
            except (StatusError, PodSpecError, UnknownImageError) as exc:
                await self._wait_with(exc)

    async def _spec(self, manifest: Mapping[str, Any], given: Mapping[str, str]) -> ContainerSpec:
        rewrite = await self._volumes.mount(manifest)
        env = environment(self._pod, manifest, given=given, address=self.address)

        def local(words: Sequence[str]) -> list[str]:
            """The first word names a program of the image, the others are rewritten."""
            rest = [rewrite(expand(word, env)) for word in words[1:]]
            return local_command(manifest["image"], [*words[:1], *rest], address=self.address)

        own = {variable["name"] for variable in manifest.get("env") or ()}
        probes = {kind: probe_of(manifest, kind, address=self.address) for kind in _PROBES}
        hook = pre_stop_of(manifest)
        return ContainerSpec(
            name=manifest["name"],
            image=manifest["image"],
            argv=local([*(manifest.get("command") or ()), *(manifest.get("args") or ())]),
            env={name: rewrite(text) if name in own else text for name, text in env.items()},
            directory=self.directory,
            log=self.directory / f"{manifest['name']}.log",
            address=self.address,
            ports=[port["containerPort"] for port in manifest.get("ports") or ()],
            pre_stop_seconds=hook.seconds,
            pre_stop_argv=local(hook.command) if hook.command else (),
            probes={kind: probe for kind, probe in probes.items() if probe is not None},
        )

    async def _wait_with(self, problem: Exception) -> None:
        if str(problem) != self._problem:
            log.warning("pod cannot start yet", pod=self.key, error=problem)
        self._problem = str(problem)
        self._dirty.set()
        await asyncio.sleep(RETRY_SECONDS)

    async def _terminate(self, living: asyncio.Task[None]) -> None:
        """Stop what runs, write the last status, and let the API server forget the pod."""
        if not self.containers:
            living.cancel()
        await asyncio.gather(*(c.stop(self._grace) for c in self._everything()))
        await asyncio.gather(living, return_exceptions=True)
        await self._write_status()
        with contextlib.suppress(StatusError):
            await self._admin.delete(self._pod, grace_seconds=0)

    def _everything(self) -> list[Container]:
        return [*self._init_containers, *self.containers]

    async def _report(self) -> None:
        """Write the status whenever something has changed."""
        self._dirty.set()
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            try:
                await self._write_status()
            except (StatusError, OSError, TimeoutError) as exc:
                log.warning("status not written", pod=self.key, error=exc)
                await asyncio.sleep(RETRY_SECONDS)
                self._dirty.set()

    async def _write_status(self) -> None:
        facts = PodFacts(
            address=self.address,
            began=self._began,
            initialized=self._initialized,
            containers=self.containers,
            init_containers=self._init_containers,
            problem=self._problem,
        )
        status = pod_status(facts, self._written, now=now())
        if status == self._written:
            return
        try:
            await self._admin.patch_status(self._pod, status)
        except StatusError as exc:
            if exc.status != HTTPStatus.NOT_FOUND:  # deleted by force
                raise
        self._written = status
