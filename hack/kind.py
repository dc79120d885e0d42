"""Run the end-to-end suite on a cluster of kind: image, cluster, tests, and away with it.

Needs Docker and kubectl. kind is the machine's, else the cache's, else built with Go (ten
seconds). Arguments go to pytest. The cluster is deleted afterwards unless ``--keep`` comes first;
when tests failed, its logs are left in ``--logs DIRECTORY`` (default: not kept).
"""

import argparse
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

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

from epp.testing.kind_cluster import NODE_PORT, KindSettings
from epp.version import __version__

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = "kind"
VERSION = "0.30.0"
"""Its default node image is Kubernetes 1.34, as the API server of the local suite is."""

GO_MINIMUM = (1, 22)
NAME = "epp-e2e"
HOST = "127.0.0.1"
OUR_IMAGE = f"endpoint-picker:{__version__}"
ENVOY_IMAGE = "envoyproxy/envoy:distroless-v1.40.0"
READY = "180s"
DOCKER_SECONDS = 30.0


def main(argv: Sequence[str], env: Mapping[str, str]) -> int:
    """Do it all; pytest's exit status, or 1 when there is no cluster to be had."""
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
            return test(kind, Path(directory), options, arguments, env)
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


def test(
    kind: Path,
    directory: Path,
    options: argparse.Namespace,
    arguments: Sequence[str],
    env: Mapping[str, str],
) -> int:
    """Make image and cluster, run the tests."""
    settings = KindSettings(
        kubeconfig=directory / "kubeconfig", node=f"{NAME}-control-plane", gateway_port=_free_port()
    )
    config = directory / "kind.yaml"
    config.write_text(cluster_config(settings.gateway_port), "utf-8")
    run(f"Building the image {OUR_IMAGE}", ["docker", "build", "--tag", OUR_IMAGE, str(ROOT)])
    run(f"Pulling {ENVOY_IMAGE}", ["docker", "pull", ENVOY_IMAGE])
    access = ["--name", NAME, "--kubeconfig", str(settings.kubeconfig)]
    create = [str(kind), "create", "cluster", *access, "--config", str(config), "--wait", READY]
    try:
        run(f"Creating the cluster {NAME}", create)
        for image in (OUR_IMAGE, ENVOY_IMAGE):
            load = [str(kind), "load", "docker-image", image, "--name", NAME]
            run(f"Loading {image} into the node", load)
        status = _pytest(arguments, {**env, **settings.environment()})
        if status != 0 and options.logs is not None:
            run("Exporting logs", [str(kind), "export", "logs", str(options.logs), "--name", NAME])
        return status
    finally:
        if options.keep:
            kept = Path(tempfile.gettempdir()) / f"{NAME}.kubeconfig"
            if settings.kubeconfig.exists():
                shutil.copyfile(settings.kubeconfig, kept)
            say(f"The cluster {NAME} stays; its kubeconfig is {kept}")
        else:
            run(f"Deleting the cluster {NAME}", [str(kind), "delete", "cluster", *access])


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


def _pytest(arguments: Sequence[str], env: Mapping[str, str]) -> int:
    command = [sys.executable, "-m", "pytest", str(ROOT / "test" / "e2e"), *arguments]
    return subprocess.run(command, env=dict(env), cwd=ROOT, check=False).returncode


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
