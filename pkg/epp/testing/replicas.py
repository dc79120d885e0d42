"""Replicas of an ``epp serve`` that elect a leader, with a Lease short enough for tests."""

import os
from pathlib import Path

from epp.testing.serve import Serve

LEASE_SECONDS = 3
RETRY_SECONDS = 0.5


def replica(
    directory: Path, kubeconfig: Path, namespace: str, name: str, *, drain_seconds: int = 0
) -> Serve:
    """One replica for the pool ``pool``; enter the block once it is alive, whoever leads.

    Args:
        directory: For its log.
        kubeconfig: How it reaches the API server.
        namespace: Of the pool.
        name: Of its pod.
        drain_seconds: How long running requests may keep it from ending.
    """
    return Serve(
        directory,
        *("--pool-name", "pool", "--pool-namespace", namespace, "--kubeconfig", str(kubeconfig)),
        *("--secure-serving=false", "--metrics-endpoint-auth=false"),
        *(f"--drain-timeout={drain_seconds}s", "--ha-enable-leader-election"),
        *(f"--leader-elect-lease-duration={LEASE_SECONDS}s", "--leader-elect-renew-deadline=2s"),
        f"--leader-elect-retry-period={RETRY_SECONDS}s",
        env={**os.environ, "POD_NAME": name},
        wait_serving=False,
    )
