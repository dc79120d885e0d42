"""What a user sees who has applied ``config/overlays/standalone``: picks, splits, metrics."""

from collections import Counter

import pytest

from epp.standalone import local_http
from epp.testing.api_admin import identity, service_account_subject

pytestmark = pytest.mark.asyncio(loop_scope="session")

SPLIT = {"base": 50, "chat-r1": 25, "chat-r2": 25}
REQUESTS = 3_000
POINTS = 3
NEVER = 4


async def test_requests_are_served_by_every_pod_as_an_epp_chose(standalone, gateway):
    answers = await gateway.ask_many("chat", 60)

    pods = await standalone.pods("modelsim")
    assert {answer.status for answer in answers} == {200}
    assert all(answer.by_epp for answer in answers)
    assert {answer.pod for answer in answers} == {pod["metadata"]["name"] for pod in pods}


async def test_a_model_that_nobody_declares_is_refused_by_the_epp(gateway):
    answer = await gateway.ask("no-such-model")

    assert answer.status == 404
    assert "no-such-model" in answer.text


async def test_a_streamed_reply_arrives_whole(gateway):
    answer = await gateway.ask("chat", tokens=20, stream=True)

    assert answer.status == 200
    assert answer.text.rstrip().endswith("data: [DONE]")


async def test_a_split_is_met_within_three_points(gateway):
    """The draws of a running EPP have no seed: a fair split is farther off once in 800 samples.

    No chance makes it ``NEVER`` points (once in 80,000 samples), so such a miss is final. For one
    in between as many requests again are asked, and all of them count together: the first sample
    is not thrown away, and a split that is really off fails the more surely.
    """
    counted = await models_of(gateway)
    farthest = points_off(counted)
    if POINTS < farthest < NEVER:
        counted += await models_of(gateway)
        farthest = points_off(counted)

    assert counted.keys() == SPLIT.keys()
    assert farthest <= POINTS, counted


async def models_of(gateway):
    """Which models a sample of requests went to."""
    answers = await gateway.ask_many("chat", REQUESTS)
    assert Counter(answer.status for answer in answers) == {200: REQUESTS}
    return Counter(answer.model for answer in answers)


def points_off(counted):
    """How far the model that is farthest from its share is from it, in points."""
    total = counted.total()
    return max(abs(100 * counted[model] / total - share) for model, share in SPLIT.items())


async def test_metrics_are_for_readers_only(standalone, gateway):
    await gateway.ask_many("chat", 20)
    cluster, namespace = standalone.cluster, standalone.namespace
    accounts = [identity("v1", "ServiceAccount", name) for name in ("reader", "stranger")]
    await standalone.apply(*accounts, binding("reader", namespace))
    tokens = [
        await cluster.admin.service_account_token(account["metadata"]["name"], namespace=namespace)
        for account in accounts
    ]
    [pod, *_] = await standalone.pods("epp")

    async with cluster.reach(pod, 9090) as (host, port):
        reader, stranger, nobody = [await scrape(host, port, token) for token in (*tokens, "")]

    assert (reader.status, stranger.status, nobody.status) == (200, 403, 401)
    page = reader.body.decode()
    assert 'inference_pool_ready_pods{name="sim-pool"} 3.0' in page
    assert "inference_model_request_total{" in page


def binding(account, namespace):
    """What an administrator writes for Prometheus: our ClusterRole for its ServiceAccount."""
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole"}
    return {
        **identity("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", "e2e-metrics-reader"),
        "roleRef": {**reference, "name": "epp-metrics-reader"},
        "subjects": [service_account_subject(account, namespace)],
    }


async def scrape(host, port, token):
    headers = {"authorization": f"Bearer {token}"} if token else {}
    return await local_http.request(host, port, "GET", "/metrics", headers=headers)
