"""What following pods costs: start to synced, CPU per event, memory, and how long the loop is held.

Run ``python test/perf/bench_informer.py [--quick]``. The API server is a fake one in another
process, so only our own CPU time is counted; every row is a process of its own, so that memory is
its own too. Pods are about 6 kB of JSON each, managed fields included. Machines differ: compare
the rows of one run, not the numbers of two.
"""

import argparse
import asyncio
import gc
import multiprocessing
import resource
import sys
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import msgspec
import orjson
import uvloop

from epp import logs
from epp.kube.cache import ObjectCache
from epp.kube.client import KubeClient
from epp.kube.connection_settings import ConnectionSettings
from epp.kube.informer import Candidate, Informer
from epp.kube.reflector_settings import ReflectorSettings
from epp.kube.resource import PODS
from epp.testing.fake_kube import FakeKube
from epp_api.core_v1 import Pod

NAMESPACE = "demo"
POD_BYTES = 6_000
TICK_SECONDS = 0.001


@dataclass(frozen=True, slots=True)
class Case:
    """What is measured: pods in the namespace, pods in the pool, and how they are listed."""

    in_namespace: int
    in_pool: int
    streams: bool
    events: int


@dataclass(frozen=True, slots=True)
class Measured:
    """What a case costs."""

    synced_seconds: float
    synced_cpu_seconds: float
    held_seconds: float
    kept_bytes: int
    peak_bytes: int
    event_cpu_seconds: float
    events_per_second: float
    grown_bytes: int


def make_pod(number: int, app: str) -> dict[str, Any]:
    """A pod with the parts that real ones have, most of which nobody here reads."""
    condition = {"status": "True", "lastProbeTime": None, "lastTransitionTime": f"T{number}"}
    kinds = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")
    pod: dict[str, Any] = {
        "metadata": {
            "name": f"vllm-llama3-8b-instruct-{number:010x}",
            "namespace": NAMESPACE,
            "labels": {
                "app": app,
                "pod-template-hash": "6f7c9d8b54",
                "app.kubernetes.io/managed-by": "helm",
                "topology.kubernetes.io/zone": f"zone-{number % 3}",
            },
            "annotations": {"checksum/config": f"{number:064x}"},
            "managedFields": [],
        },
        "spec": {
            "nodeName": f"node-{number % 200}",
            "containers": [
                {
                    "name": "vllm",
                    "image": "vllm/vllm-openai:v0.9.1",
                    "args": ["--model", "meta-llama/Llama-3.1-8B-Instruct", "--port", "8000"],
                    "resources": {"limits": {"nvidia.com/gpu": "1", "memory": "80Gi"}},
                    "env": [{"name": f"VARIABLE_{n}", "value": f"value {n}"} for n in range(20)],
                }
            ],
        },
        "status": {
            "phase": "Running",
            "podIP": f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}",
            "conditions": [{"type": kind, **condition} for kind in kinds],
        },
    }
    missing = max(POD_BYTES - len(orjson.dumps(pod)), 0) // 26
    fields: dict[str, Any] = {f"f:field-{n:04d}": {"f:x": {}} for n in range(missing)}
    pod["metadata"]["managedFields"] = [{"manager": "kubelet", "fieldsV1": fields}]
    return pod


def serve(case: Case, control: "Connection[Any, Any]") -> None:
    """Process: the API server; says its address, then changes pods on demand."""

    async def run() -> None:
        kube = FakeKube()
        pods = [
            make_pod(n, "vllm" if n < case.in_pool else "other") for n in range(case.in_namespace)
        ]
        for pod in pods:
            kube.create(PODS, pod)
        await kube.start()
        control.send((kube.url, len(orjson.dumps(pods[0]))))
        loop = asyncio.get_running_loop()
        while (events := await loop.run_in_executor(None, control.recv)) > 0:
            for number in range(events):
                pod = pods[number % case.in_pool]
                pod["status"]["phase"] = f"Running {number}"
                pod["status"]["podIP"] = f"10.99.{number >> 8 & 255}.{number & 255}"
                kube.update(PODS, pod)
                if number % 20 == 0:
                    await asyncio.sleep(0)
        await kube.stop()

    uvloop.run(run())


def measure(case: Case, url: str, control: "Connection[Any, Any]") -> None:
    """Process: our side; sends what it measured."""
    logs.configure()
    uvloop.run(_measure(case, url, control))


async def _measure(case: Case, url: str, control: "Connection[Any, Any]") -> None:
    client = KubeClient(ConnectionSettings(server=url))
    await client.request("GET", "/api/v1")  # imports, connection, allocator
    cache: ObjectCache[Pod] = ObjectCache("Pod")
    seen = asyncio.Semaphore(0)
    informer = Informer(
        client,
        cache,
        [Candidate(resource=PODS, decode=msgspec.json.Decoder(Pod).decode)],
        namespace=NAMESPACE,
        label_selector="app=vllm",
        settings=ReflectorSettings(streams_lists=case.streams),
    )
    gc.collect()
    before = resident_bytes()
    lateness = Lateness()
    started, cpu = time.perf_counter(), time.process_time()
    await informer.start()
    await cache.wait_synced()
    synced, synced_cpu = time.perf_counter() - started, time.process_time() - cpu
    held = lateness.stop()
    gc.collect()
    kept = resident_bytes() - before
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before

    cache.subscribe(lambda _event: seen.release())
    for _ in range(case.in_pool):
        await seen.acquire()
    before, started, cpu = resident_bytes(), time.perf_counter(), time.process_time()
    control.send(case.events)
    for _ in range(case.events):
        await seen.acquire()
    spent, wall = time.process_time() - cpu, time.perf_counter() - started
    gc.collect()
    grown = resident_bytes() - before
    await informer.stop()
    await client.close()
    control.send(
        Measured(
            synced, synced_cpu, held, kept, peak, spent / case.events, case.events / wall, grown
        )
    )


class Lateness:
    """Looks at the clock every millisecond; remembers the longest time that it was not let."""

    def __init__(self) -> None:
        self._worst = 0.0
        self._task = asyncio.create_task(self._look(), name="lateness")

    def stop(self) -> float:
        """Longest time that the event loop was held, in seconds."""
        self._task.cancel()
        return self._worst

    async def _look(self) -> None:
        while True:
            started = time.perf_counter()
            await asyncio.sleep(TICK_SECONDS)
            self._worst = max(self._worst, time.perf_counter() - started - TICK_SECONDS)


def resident_bytes() -> int:
    """Memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def run_case(case: Case) -> tuple[Measured, int]:
    """Measure one case, with a server and a process of its own."""
    context = multiprocessing.get_context("spawn")
    server_end, server_control = context.Pipe()
    client_end, client_control = context.Pipe()
    server = context.Process(target=serve, args=(case, server_control), daemon=True)
    server.start()
    url, pod_bytes = server_end.recv()
    client = context.Process(target=measure, args=(case, url, client_control), daemon=True)
    client.start()
    server_end.send(client_end.recv())
    measured = client_end.recv()
    server_end.send(0)
    client.join()
    server.join()
    return measured, pod_bytes


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer events")
    events = 2_000 if parser.parse_args().quick else 10_000
    out = sys.stdout
    out.write(
        f"{'namespace':>9} {'pool':>5} {'list':>6} {'synced':>8} {'CPU':>8} {'a pod':>7} "
        f"{'loop held':>9} {'kept/1000':>10} {'peak':>8} {'an event':>9} {'events/s':>9} {'growth':>8}\n"
    )
    for in_namespace, in_pool in ((1_000, 1_000), (5_000, 1_000), (5_000, 5_000)):
        for streams in (True, False):
            case = Case(in_namespace, in_pool, streams, events)
            got, pod_bytes = run_case(case)
            out.write(
                f"{in_namespace:>9} {in_pool:>5} {'stream' if streams else 'pages':>6} "
                f"{got.synced_seconds:>6.2f} s {got.synced_cpu_seconds:>6.2f} s "
                f"{got.synced_cpu_seconds / in_pool * 1e6:>4.0f} µs "
                f"{got.held_seconds * 1e3:>6.1f} ms "
                f"{got.kept_bytes / in_pool * 1000 / 2**20:>7.1f} MB {got.peak_bytes / 2**20:>5.1f} MB "
                f"{got.event_cpu_seconds * 1e6:>6.0f} µs {got.events_per_second:>9,.0f} "
                f"{got.grown_bytes / 2**20:>5.1f} MB\n"
            )
            out.flush()
    out.write(
        f"a pod is {pod_bytes:,} bytes of JSON; memory is beyond that of a connected client\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
