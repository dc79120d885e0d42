"""Pods come and go while requests flow: does the served set keep up, and does memory stay flat?

A real ``epp serve`` follows a real API server (200 events a second, which is what one takes on this
machine class) and a fake one that replays a watch (1,000 a second). Goals: no request fails, the
served set is right within a second of the last event, no request is sent to a pod that has been
gone for a second, memory is flat: after a warm-up, in which the log of decisions fills (a thousand,
each with the table that it was made from), it grows by less than 5 MB, whatever the number of events.
The exit status is 1 when a goal is missed.
"""

import argparse
import asyncio
import contextlib
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from rich.console import Console
from rich.table import Table

from epp.sources.kinds import KINDS, POOLS
from epp.standalone import local_http
from epp.testing.api_admin import identity
from epp.testing.envtest import LocalControlPlane, find_assets
from epp.testing.fake_kube import DEFAULT_RESOURCES, FakeKube
from epp.testing.kube_manifests import pod, pool
from epp.testing.pick_stream import PickStream
from epp.testing.pod_churn import ApiPods, FakePods, PodChurn, PodWriter
from epp.testing.process_usage import cpu_seconds, resident_mb
from epp.testing.serve import Serve
from epp.testing.stack import eventually
from epp_api.crd_files import crd_files

ROOT = Path(__file__).parents[2]
NAMESPACE = "churn"
PORT = 8125
KEPT = [pod(f"kept-{number}", f"127.89.1.{number}") for number in range(1, 4)]
RIGHT_SECONDS = 1.0
REQUESTS_PER_SECOND = 50
WARM_UP_SECONDS = 20
WARM_UP_REQUESTS_PER_SECOND = 200
GROWTH_MB = 5.0


@dataclass(frozen=True, kw_only=True)
class Run:
    """What was measured."""

    source: str
    events: int
    seconds: float
    requests: int
    failures: int
    late: int
    worst_late_seconds: float
    right_seconds: float
    cpu_seconds: float
    memory_mb: tuple[float, float, float]

    @property
    def missed(self) -> Sequence[str]:
        """The goals that were not met."""
        warm, _, end = self.memory_mb
        goals = {
            "failed": self.failures == 0,
            "late": self.late == 0,
            "right": self.right_seconds < RIGHT_SECONDS,
            "memory": end - warm < GROWTH_MB,
        }
        return [goal for goal, is_met in goals.items() if not is_met]


def serve(directory: Path, kubeconfig: Path) -> Serve:
    """The endpoint picker."""
    return Serve(
        directory,
        *("--pool-name", "pool", "--pool-namespace", NAMESPACE, "--kubeconfig", str(kubeconfig)),
        *("--secure-serving=false", "--metrics-endpoint-auth=false", "--drain-timeout=0"),
    )


async def right_after(epp: Serve, churn: PodChurn) -> float:
    """Seconds from the last event until exactly the right pods are served."""
    right = churn.ready | {state.name for state in KEPT}

    async def is_right() -> bool:
        view = await local_http.get_json("127.0.0.1", epp.metrics_port, "/debug/pool")
        return {endpoint["pod"] for endpoint in view["endpoints"]} == right

    await eventually(is_right, what="the right pods", seconds=60)
    return time.monotonic() - churn.quiet_since


async def measure(source: str, pods: PodWriter, per_second: int, seconds: int, epp: Serve) -> Run:
    """Let pods come and go in front of one endpoint picker."""
    churn = PodChurn(pods, port=PORT, per_second=per_second)
    pid = epp.process_id
    async with PickStream(epp.grpc_port, per_second=WARM_UP_REQUESTS_PER_SECOND):
        await churn.run(per_second * WARM_UP_SECONDS)
    async with PickStream(epp.grpc_port, per_second=REQUESTS_PER_SECOND) as picks:
        warm, began, cpu = resident_mb(pid), churn.events, cpu_seconds(pid)
        half = await churn.run(per_second * seconds // 2)
        middle = resident_mb(pid)
        other_half = await churn.run(per_second * seconds // 2)
        cpu = cpu_seconds(pid) - cpu
        right = await right_after(epp, churn)
        await picks.more(REQUESTS_PER_SECOND)
    never = float("inf")
    worst = max(pick.at - churn.gone.get(pick.target, never) for pick in picks.picks)
    return Run(
        source=source,
        events=churn.events - began,
        seconds=half + other_half,
        requests=len(picks.picks),
        failures=len(picks.failures),
        late=len(picks.late(churn.gone)),
        worst_late_seconds=max(worst, 0.0),
        right_seconds=right,
        cpu_seconds=cpu,
        memory_mb=(warm, middle, resident_mb(pid)),
    )


@contextlib.asynccontextmanager
async def real_api(directory: Path) -> AsyncIterator[tuple[PodWriter, Path]]:
    """A real API server with the pool in it, and a kubeconfig."""
    assets = find_assets(ROOT / "hack" / "envtest.py")
    async with LocalControlPlane(assets, directory / "control-plane") as plane:
        async with plane.admin() as admin:
            await admin.apply([yaml.safe_load(path.read_text()) for path in crd_files().values()])
            await admin.apply([identity("v1", "Namespace", NAMESPACE)])
            await admin.apply([pool(ports=(PORT,))], namespace=NAMESPACE)
            yield ApiPods(admin, NAMESPACE), plane.kubeconfig()


@contextlib.asynccontextmanager
async def replay(directory: Path) -> AsyncIterator[tuple[PodWriter, Path]]:
    """A fake API server with the pool in it, and a kubeconfig."""
    resources = list({*DEFAULT_RESOURCES, *(kind.resource for kind in KINDS)})
    async with FakeKube(resources) as kube:
        made = pool(ports=(PORT,))
        made["metadata"]["namespace"] = NAMESPACE
        kube.create(POOLS, made)
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "fake",
            "clusters": [{"name": "fake", "cluster": {"server": kube.url}}],
            "users": [{"name": "fake", "user": {}}],
            "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "fake"}}],
        }
        path = directory / "kubeconfig"
        path.write_text(yaml.safe_dump(config))
        yield FakePods(kube, NAMESPACE), path


SOURCES = {"real API server": (real_api, 200), "replayed watch": (replay, 1000)}


async def run_one(source: str, seconds: int) -> Run:
    """One source from its start to its end."""
    opened, per_second = SOURCES[source]
    with tempfile.TemporaryDirectory() as made:
        directory = Path(made)
        async with opened(directory) as (pods, kubeconfig):
            for state in KEPT:
                await pods.create(state)
                await pods.report(state)
            async with serve(directory, kubeconfig) as epp:
                return await measure(source, pods, per_second, seconds, epp)


def row(run: Run) -> list[str]:
    """One line of the table."""
    warm, middle, end = run.memory_mb
    return [
        run.source,
        str(run.events),
        f"{run.events / run.seconds:.0f}",
        str(run.requests),
        str(run.failures),
        str(run.late),
        f"{run.worst_late_seconds * 1000:.0f}",
        f"{run.right_seconds * 1000:.0f}",
        f"{run.cpu_seconds / run.events * 1e6:.0f}",
        f"{warm:.1f}",
        f"{middle:.1f}",
        f"{end:.1f}",
        f"NO: {', '.join(run.missed)}" if run.missed else "yes",
    ]


async def run(*, quick: bool) -> int:
    """Measure and print; 1 when a goal is missed."""
    table = Table(title="pods come and go under traffic")
    for name in (
        *("source", "events", "per s", "requests", "failed", "to gone > 1 s", "latest ms"),
        *("right after ms", "µs CPU / event", "MB warm", "MB half", "MB end", "goals"),
    ):
        table.add_column(name, justify="right")
    runs = [await run_one(source, 6 if quick else 30) for source in SOURCES]
    for done in runs:
        table.add_row(*row(done))
    Console(width=150).print(table)
    return 1 if any(done.missed for done in runs) else 0


def main(argv: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="6 seconds instead of 30")
    return asyncio.run(run(quick=parser.parse_args(argv).quick))


if __name__ == "__main__":
    sys.exit(main())
