"""Run the end-to-end suite on a cluster of kind: image, cluster, tests, and away with it.

Needs Docker and kubectl. kind is the machine's, else the cache's, else built with Go (ten
seconds). Arguments go to pytest. The cluster is deleted afterwards unless ``--keep`` comes first;
when tests failed, its logs are left in ``--logs DIRECTORY`` (default: not kept).
"""

import argparse
import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from epp.testing.kind_cluster import NODE_PORT, KindSettings
from epp.version import __version__
from toolcache import (
    ToolError,
    cache_directory,
    cached,
    find_go,
    go_environment,
    platform_name,
    run,
    say,
)

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = "kind"
VERSION = "0.30.0"
"""Its default node image is Kubernetes 1.34, as the API server of the local suite is."""

GO_MINIMUM = (1, 22)
NAME = "epp-e2e"
HOST = "127.0.0.1"
OUR_IMAGE = f"endpoint-picker:{__version__}"
READY = "180s"
DOCKER_SECONDS = 30.0


Tests = Callable[[Sequence[str], Mapping[str, str]], int]
"""Runs the tests with arguments and environment; their exit status."""


def run_pytest(arguments: Sequence[str], env: Mapping[str, str]) -> int:
    """Run the suite."""
    command = [sys.executable, "-m", "pytest", str(ROOT / "test" / "e2e"), *arguments]
    return subprocess.run(command, env=dict(env), cwd=ROOT, check=False).returncode


def main(argv: Sequence[str], env: Mapping[str, str], tests: Tests = run_pytest) -> int:
    """Do it all; the tests' exit status, or 1 when there is no cluster to be had."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--keep", action="store_true", help="leave the cluster running")
    parser.add_argument(
        "--logs", type=Path, help="directory for the cluster's logs after a failure"
    )
    options, arguments = parser.parse_known_args(argv)
    try:
        check_docker(env)
        require("kubectl", env)
        kind = provide(env)
        with tempfile.TemporaryDirectory(prefix="epp-kind-") as directory:
            settings = KindSettings(
                kubeconfig=Path(directory) / "kubeconfig",
                node=f"{NAME}-control-plane",
                gateway_port=_free_port(),
            )
            with cluster(kind, settings, keep=options.keep):
                status = tests(arguments, {**env, **settings.environment()})
                if status != 0 and options.logs is not None:
                    export_logs(kind, options.logs)
            return status
    except ToolError as exc:
        say(f"error: {exc}")
        return 1


def provide(env: Mapping[str, str]) -> Path:
    """Return the path of kind. Raises ToolError."""
    found = shutil.which(PROGRAM, path=env.get("PATH"))
    if found is not None:
        return Path(found)
    entry = cache_directory(env) / PROGRAM / f"{VERSION}-{platform_name()}"
    return cached(entry, [PROGRAM], lambda draft: _build(draft, env)) / PROGRAM


def check_docker(env: Mapping[str, str]) -> None:
    """Raise ToolError unless a Docker daemon answers."""
    docker = require("docker", env)
    command = [docker, "version", "--format", "{{.Server.Version}}"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=DOCKER_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise ToolError(f"the Docker daemon does not answer within {DOCKER_SECONDS:g} s") from None
    if done.returncode != 0:
        raise ToolError(
            f"kind runs nodes as Docker containers, and no Docker daemon answers:"
            f" {done.stderr.strip()} (`make test-e2e` runs the same tests without Docker)"
        )
    say(f"Docker {done.stdout.strip()}")


def require(program: str, env: Mapping[str, str]) -> str:
    """Path of a program of this machine. Raises ToolError."""
    found = shutil.which(program, path=env.get("PATH"))
    if found is None:
        raise ToolError(
            f"{program} is needed to run the tests on kind, and is not on the PATH"
            " (`make test-e2e` runs the same tests without it)"
        )
    return found


@contextlib.contextmanager
def cluster(kind: Path, settings: KindSettings, *, keep: bool) -> Iterator[None]:
    """Make image and cluster; delete the cluster afterwards, unless it is to be kept."""
    config = settings.kubeconfig.with_name("kind.yaml")
    config.write_text(cluster_config(settings.gateway_port), "utf-8")
    run(f"Building the image {OUR_IMAGE}", ["docker", "build", "--tag", OUR_IMAGE, str(ROOT)])
    access = ["--name", NAME, "--kubeconfig", str(settings.kubeconfig)]
    create = [str(kind), "create", "cluster", *access, "--config", str(config), "--wait", READY]
    try:
        run(f"Creating the cluster {NAME}", create)
        load = [str(kind), "load", "docker-image", OUR_IMAGE, "--name", NAME]
        run(f"Loading {OUR_IMAGE} into the node", load)
        yield
    finally:
        if keep and settings.kubeconfig.exists():
            kept = Path(tempfile.gettempdir()) / f"{NAME}.kubeconfig"
            shutil.copyfile(settings.kubeconfig, kept)
            say(f"The cluster {NAME} stays; its kubeconfig is {kept}")
        else:
            run(f"Deleting the cluster {NAME}", [str(kind), "delete", "cluster", *access])


def export_logs(kind: Path, directory: Path) -> None:
    """Keep the logs of nodes and pods; a failure of this is not the tests'."""
    try:
        run("Exporting logs", [str(kind), "export", "logs", str(directory), "--name", NAME])
    except ToolError as exc:
        say(f"no logs: {exc}")


def cluster_config(gateway_port: int) -> str:
    """One node, whose NodePort of the gateway is a port of this machine."""
    return f"""\
kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
nodes:
- role: control-plane
  extraPortMappings:
  - containerPort: {NODE_PORT}
    hostPort: {gateway_port}
    listenAddress: {HOST}
"""


def _build(directory: Path, env: Mapping[str, str]) -> None:
    go = find_go(GO_MINIMUM, env)
    module = f"sigs.k8s.io/kind@v{VERSION}"
    argv = [str(go), "install", "-v", "-trimpath", "-buildvcs=false", module]
    run(f"Building kind {VERSION}", argv, env={**go_environment(env), "GOBIN": str(directory)})


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
