"""A whole gateway on this machine for tests: simulated pods, and ``epp standalone`` in front.

Everything runs as a user would run it, in processes of its own on loopback addresses; tests see
it through HTTP, through the manifests they write, and through signals to the processes.
"""

import asyncio
import contextlib
import functools
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from epp.errors import TransportError
from epp.standalone import local_http
from epp.testing.epp_view import EppView

READY_SECONDS = 30.0


async def eventually(
    condition: Callable[[], Any], *, seconds: float = 10.0, what: str = "condition"
) -> Any:
    """Poll another process until a condition holds; return its value.

    The condition may be a coroutine function. TransportError counts as "not yet".

    Raises:
        TimeoutError: It never held; the text says what was waited for and what was last seen.
    """
    deadline = time.monotonic() + seconds
    last: object = None
    while time.monotonic() < deadline:
        try:
            last = condition()
            if asyncio.iscoroutine(last):
                last = await last
        except TransportError as exc:
            last = exc
        else:
            if last:
                return last
        await asyncio.sleep(0.02)
    raise TimeoutError(f"{what}: not within {seconds:g} s (last seen: {last!r})")


def free_port(host: str = "127.0.0.1") -> int:
    """A port that is free right now."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


class Sims:
    """Simulated pods: one process, consecutive loopback addresses, one port.

    Args:
        count: How many.
        first: First address; the others follow.
        port: Their port; 0 takes a free one.
        arguments: More arguments of ``epp modelsim``.
    """

    def __init__(
        self, count: int, *, first: str, port: int = 0, arguments: Sequence[str] = ()
    ) -> None:
        base, last = first.rsplit(".", 1)
        self.addresses = [f"{base}.{int(last) + i}" for i in range(count)]
        self.port = port or free_port(first)
        self._argv = [
            *(sys.executable, "-m", "epp", "modelsim", "--host", first, "--port", str(self.port)),
            *("--count", str(count), "--name", "sim", *arguments),
        ]
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        """Start and wait until every pod answers."""
        self._process = await asyncio.create_subprocess_exec(
            *self._argv, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL
        )
        for address in self.addresses:
            answers = functools.partial(local_http.answers, address, self.port, "/health")
            await eventually(answers, seconds=READY_SECONDS, what=f"simulated pod {address}")
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop the process."""
        if self._process is not None:
            await _end(self._process)

    async def fault(self, address: str, fault: str | None) -> None:
        """Switch a fault of one pod on, or all of its faults off."""
        body = None if fault is None else json.dumps({"fault": fault}).encode()
        method = "DELETE" if fault is None else "POST"
        headers = {"content-type": "application/json"}
        reply = await local_http.request(
            address, self.port, method, "/admin/fault", headers=headers, body=body
        )
        if reply.status >= 300:
            raise TransportError(f"{method} /admin/fault: {reply.status} {reply.body!r}")

    async def state(self, address: str) -> dict[str, Any]:
        """What one pod has seen: counters and the latest requests."""
        return dict(await local_http.get_json(address, self.port, "/admin/state"))

    async def requests(self) -> list[dict[str, Any]]:
        """The latest requests of every pod, each with its ``address``."""
        seen = []
        for address in self.addresses:
            requests = (await self.state(address))["requests"]
            seen += [{**request, "address": address} for request in requests]
        return seen


class Manifests:
    """A directory of manifests, one file per object."""

    def __init__(self, directory: Path, *, namespace: str = "test") -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.namespace = namespace

    def write(self, name: str, *documents: Mapping[str, Any]) -> Path:
        """Write a file, atomically as editors do."""
        path = self.directory / f"{name}.yaml"
        draft = path.with_suffix(".tmp")
        draft.write_text(yaml.safe_dump_all([dict(d) for d in documents], sort_keys=False))
        draft.replace(path)
        return path

    def pool(self, port: int, *more_ports: int, failure_mode: str = "FailOpen") -> Path:
        """The pool ``p``, of pods labelled ``app: sim``."""
        spec = {
            "selector": {"matchLabels": {"app": "sim"}},
            "targetPorts": [{"number": number} for number in (port, *more_ports)],
            "endpointPickerRef": {
                "name": "epp",
                "port": {"number": 9002},
                "failureMode": failure_mode,
            },
        }
        return self.write(
            "pool", self._object("inference.networking.k8s.io/v1", "InferencePool", "p", spec)
        )

    def model(
        self,
        model: str,
        *,
        criticality: str | None = None,
        targets: Mapping[str, int] | None = None,
    ) -> Path:
        """An InferenceModel, named like its model."""
        spec: dict[str, Any] = {"modelName": model, "poolRef": {"name": "p"}}
        if criticality is not None:
            spec["criticality"] = criticality
        if targets:
            spec["targetModels"] = [{"name": n, "weight": w} for n, w in targets.items()]
        api = "inference.networking.x-k8s.io/v1alpha2"
        name = f"model-{model.replace('_', '-').lower()}"
        return self.write(name, self._object(api, "InferenceModel", name, spec))

    def pod(self, name: str, ip: str, *, ready: bool = True) -> Path:
        """A pod, ready or not."""
        pod = self._object("v1", "Pod", name, None)
        pod["metadata"]["labels"] = {"app": "sim"}
        condition = {"type": "Ready", "status": "True" if ready else "False"}
        pod["status"] = {"podIP": ip, "conditions": [condition]}
        return self.write(f"pod-{name}", pod)

    def pods(self, addresses: Sequence[str]) -> None:
        """Pods ``pod-1`` … on these addresses, ready."""
        for number, address in enumerate(addresses, 1):
            self.pod(f"pod-{number}", address)

    def delete(self, name: str) -> None:
        """Delete a file."""
        (self.directory / f"{name}.yaml").unlink()

    def _object(
        self, api: str, kind: str, name: str, spec: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        metadata: dict[str, Any] = {"name": name, "namespace": self.namespace}
        shown: dict[str, Any] = {"apiVersion": api, "kind": kind, "metadata": metadata}
        if spec is not None:
            shown["spec"] = dict(spec)
        return shown


class Stack(EppView):
    """``epp standalone`` as a child process.

    Args:
        state_dir: Its files and logs; unique per stack, it identifies the processes.
        arguments: Its arguments, without ports.
        wait_endpoints: Endpoints that must have been scraped before it counts as up.
    """

    def __init__(self, state_dir: Path, *arguments: str, wait_endpoints: int = 1) -> None:
        self.state_dir = state_dir
        self.port, self.admin_port = free_port(), free_port()
        self.grpc_port, self.health_port, self.metrics_port = free_port(), free_port(), free_port()
        self._wait_endpoints = wait_endpoints
        self._argv = [
            *(sys.executable, "-m", "epp", "standalone", "--state-dir", str(state_dir)),
            *("--port", str(self.port), "--admin-port", str(self.admin_port)),
            *("--grpc-port", str(self.grpc_port), "--grpc-health-port", str(self.health_port)),
            *("--metrics-port", str(self.metrics_port), "--drain-seconds", "5", *arguments),
        ]
        self._process: asyncio.subprocess.Process | None = None
        self._log = state_dir / "standalone.log"

    async def __aenter__(self) -> Self:
        """Start, and wait until Envoy and the EPP are up and endpoints have been scraped."""
        self.state_dir.mkdir(parents=True, exist_ok=True)
        with self._log.open("wb") as sink:
            self._process = await asyncio.create_subprocess_exec(
                *self._argv, stdin=asyncio.subprocess.DEVNULL, stdout=sink, stderr=sink
            )
        try:
            await eventually(self._is_up, seconds=READY_SECONDS, what="epp standalone")
        except BaseException as exc:
            await self._stop()
            exc.add_note(self._log.read_text(errors="replace"))
            raise
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        exc: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        """Stop everything; a failing test gets the log as a note."""
        await self._stop()
        if exc is not None:
            exc.add_note(self._log.read_text(errors="replace")[-4000:])

    @property
    def process_id(self) -> int:
        """Process id of the supervisor."""
        if self._process is None:
            raise ProcessLookupError("not started")
        return self._process.pid

    def pid_of(self, program: str) -> int | None:
        """Process id of the running ``epp serve`` (``serve``) or ``envoy`` of this stack."""
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
                if self._is_ours(program, words):
                    return int(entry.name)
        return None

    def signal(self, program: str, number: signal.Signals) -> int:
        """Send a signal to a child; return its process id."""
        pid = self.pid_of(program)
        if pid is None:
            raise ProcessLookupError(f"no {program} runs")
        os.kill(pid, number)
        return pid

    async def epp_is_back(self, old_pid: int) -> bool:
        """A new EPP runs and is ready."""
        pid = self.pid_of("serve")
        if pid is None or pid == old_pid:
            return False
        return await local_http.answers("127.0.0.1", self.metrics_port, "/readyz")

    def log_text(self) -> str:
        """What standalone printed so far."""
        return self._log.read_text(errors="replace")

    def _is_ours(self, program: str, words: Sequence[str]) -> bool:
        if program == "serve":
            return "serve" in words and str(self.state_dir / "endpoints.yaml") in words
        return Path(words[0]).name == program and str(self.state_dir / "envoy.yaml") in words

    async def _is_up(self) -> bool:
        if self._process is None or self._process.returncode is not None:
            raise ProcessLookupError("epp standalone ended")
        with_envoy = "--no-envoy" not in self._argv
        if with_envoy and not await local_http.answers("127.0.0.1", self.admin_port, "/ready"):
            return False
        view = await self.pool()
        known = sum(1 for endpoint in view["endpoints"] if endpoint["known"])
        return view["pool"] is not None and known >= self._wait_endpoints

    async def _stop(self) -> None:
        if self._process is not None:
            await _end(self._process)


async def _end(process: asyncio.subprocess.Process, seconds: float = 20.0) -> None:
    if process.returncode is not None:
        return
    process.terminate()
    try:
        await asyncio.wait_for(process.wait(), seconds)
    except TimeoutError:
        process.kill()
        await process.wait()
