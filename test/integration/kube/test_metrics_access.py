"""The metrics port asks the real API server, with the ClusterRoles that we ship."""

import time
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import yaml
from prometheus_client import CollectorRegistry

from epp.kube.client import KubeClient
from epp.kube.config import load_settings
from epp.server.metrics_auth import REFUSED_SECONDS, MetricsAuth
from epp.server.metrics_server import MetricsServer
from epp.standalone import local_http
from epp.testing.api_admin import identity, service_account_subject
from epp.testing.fake_clock import FakeClock

RBAC = Path(__file__).parents[3] / "config" / "rbac"
UNKNOWN = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJub2JvZHkifQ.c2lnbmF0dXJl"


def shipped_rules(name):
    return yaml.safe_load((RBAC / f"{name}.yaml").read_text("utf-8"))["rules"]


@pytest.fixture
async def token_of(admin, namespace):
    """Make a ServiceAccount with a shipped ClusterRole, or with none; its token."""

    async def make(name, role=None):
        await admin.apply([identity("v1", "ServiceAccount", name, namespace=namespace)])
        if role is not None:
            subject = service_account_subject(name, namespace=namespace)
            await admin.grant(f"{namespace}-{name}", subject, shipped_rules(role))
        return await admin.service_account_token(name, namespace=namespace)

    return make


@asynccontextmanager
async def metrics_port(control_plane, token, clock):
    """A metrics server that asks the API server in the name of a token; a way to get a path."""
    client = KubeClient(load_settings(control_plane.kubeconfig(token), "", {}))
    server = MetricsServer(
        CollectorRegistry(),
        port=0,
        host="127.0.0.1",
        not_ready_reasons=list,
        guard=MetricsAuth(client, clock=clock),
    )
    server.add_json_route("/debug/pool", lambda _path, _query: {"pool": "p"})
    port = await server.start()

    async def get(path, token=None):
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        reply = await local_http.request("127.0.0.1", port, "GET", path, headers=headers)
        return reply.status

    try:
        yield get
    finally:
        await server.stop()
        await client.close()


async def settled(get, path, token, want, clock):
    """The status once the API server's own view of RBAC, which lags a little, gives the wanted."""
    deadline = time.monotonic() + 10
    while (status := await get(path, token)) != want and time.monotonic() < deadline:
        clock.advance(REFUSED_SECONDS)
    return status


async def test_readers_are_who_the_cluster_says_they_are(control_plane, token_of):
    ours = await token_of("epp", "auth_role")
    reader = await token_of("reader", "metrics_reader_role")
    stranger, clock = await token_of("stranger"), FakeClock()

    async with metrics_port(control_plane, ours, clock) as get:
        assert await settled(get, "/metrics", reader, 200, clock) == 200
        assert await get("/debug/pool", reader) == 403
        assert await get("/metrics", stranger) == 403
        assert await get("/metrics", UNKNOWN) == 401
        assert await get("/metrics") == 401
        assert await get("/healthz") == 200
        assert await get("/metrics", control_plane.token()) == 200


async def test_a_permission_that_is_given_counts_soon(control_plane, admin, namespace, token_of):
    ours, late, clock = await token_of("epp", "auth_role"), await token_of("late"), FakeClock()

    async with metrics_port(control_plane, ours, clock) as get:
        before = await settled(get, "/metrics", late, 403, clock)
        subject = service_account_subject("late", namespace=namespace)
        await admin.grant(f"{namespace}-late", subject, shipped_rules("metrics_reader_role"))
        after = await settled(get, "/metrics", late, 200, clock)

    assert (before, after) == (403, 200)


@pytest.mark.parametrize("missing", ["tokenreviews", "subjectaccessreviews"])
async def test_without_the_right_to_ask_nobody_gets_a_page(
    control_plane, admin, namespace, token_of, missing
):
    rules = [rule for rule in shipped_rules("auth_role") if missing not in rule["resources"]]
    ours, reader = await token_of("epp"), await token_of("reader", "metrics_reader_role")
    subject = service_account_subject("epp", namespace=namespace)
    await admin.grant(f"{namespace}-epp", subject, rules)

    async with metrics_port(control_plane, ours, FakeClock()) as get:
        assert await get("/metrics", reader) == 503
        assert await get("/healthz") == 200
