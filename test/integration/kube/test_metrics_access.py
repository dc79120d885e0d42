"""Who may read the metrics port of a real ``epp serve``: tokens of real ServiceAccounts.

The port asks the API server, as the ServiceAccount that we ship: whose token is it, and may they
get this path. The readers are bound by what we ship, too.
"""

import pytest

from epp.standalone import local_http
from epp.testing.api_admin import identity, service_account_subject
from epp.testing.kube_manifests import pod, pool
from epp.testing.serve import Serve
from epp.testing.stack import eventually


@pytest.fixture
async def epp(tmp_path, control_plane, account, people, faults):
    """The process, behind the proxy with faults."""
    await people.put(pool(), pod("a", "127.0.86.1"))
    kubeconfig = control_plane.kubeconfig(account.token, server=faults.url)
    async with Serve(
        tmp_path,
        *("--pool-name", "pool", "--pool-namespace", people.name),
        *("--kubeconfig", str(kubeconfig), "--secure-serving=false", "--drain-timeout=0"),
    ) as running:
        yield running


@pytest.fixture
async def stranger(admin, account, namespace):
    """Token of a ServiceAccount that nothing was granted to."""
    await admin.apply([identity("v1", "ServiceAccount", "stranger")], namespace=namespace)
    return await account.token_of("stranger")


async def get(epp, path, token=None):
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    return await local_http.request("127.0.0.1", epp.metrics_port, "GET", path, headers=headers)


def reader_of(account, namespace):
    return account.token_of(f"{namespace}-epp-metrics-reader")


async def test_who_gets_a_page(epp, control_plane, account, namespace, stranger, admin):
    reader = await reader_of(account, namespace)

    page = await get(epp, "/metrics", reader)
    assert page.status == 200
    assert b"inference_pool_ready_pods" in page.body

    refusal = await get(epp, "/metrics", stranger)
    assert refusal.status == 403
    assert f"system:serviceaccount:{namespace}:stranger may not get /metrics".encode() in (
        refusal.body
    )
    assert (await get(epp, "/debug/pool", reader)).status == 403

    nobody = await get(epp, "/metrics")
    assert (nobody.status, nobody.headers["www-authenticate"]) == (401, 'Bearer realm="epp"')
    unknown = await get(epp, "/metrics", "not-a-token-of-this-cluster")
    assert unknown.status == 401
    assert 'error="invalid_token"' in unknown.headers["www-authenticate"]

    assert (await get(epp, "/healthz")).status == 200
    assert (await get(epp, "/readyz")).status == 200

    person = await debugger(control_plane, admin, account, namespace)
    view = await get(epp, "/debug/pool", person)
    assert view.status == 200
    assert b'"pod":"a"' in view.body
    assert not any(token in epp.log_text() for token in (reader, stranger, person))


async def debugger(control_plane, admin, account, namespace):
    """Token of somebody who may see decisions, as the shipped ClusterRole's comment says."""
    name = f"{namespace}-debugger"
    await admin.apply([identity("v1", "ServiceAccount", "debugger")], namespace=namespace)
    rules = [{"nonResourceURLs": ["/metrics", "/debug/*"], "verbs": ["get"]}]
    await admin.grant(name, service_account_subject("debugger", namespace), rules)
    token = await account.token_of("debugger")
    async with control_plane.admin(token) as connected:

        async def may():
            review = await connected.create(
                {
                    "apiVersion": "authorization.k8s.io/v1",
                    "kind": "SelfSubjectAccessReview",
                    "metadata": {},
                    "spec": {"nonResourceAttributes": {"path": "/debug/pool", "verb": "get"}},
                }
            )
            return review["status"]["allowed"]

        await eventually(may, what="the grant to be seen")
    return token


async def test_while_the_api_server_is_away_only_known_answers_hold(
    epp, account, namespace, stranger, faults
):
    reader = await reader_of(account, namespace)
    assert (await get(epp, "/metrics", reader)).status == 200
    assert (await get(epp, "/metrics", stranger)).status == 403
    asked = reviews(faults)

    await faults.refuse_connections()
    known = await get(epp, "/metrics", reader)
    refused = await get(epp, "/metrics", stranger)
    late = await account.token_of(f"{namespace}-epp-metrics-reader")
    unknown = await get(epp, "/metrics", late)
    again = await get(epp, "/metrics", late)

    assert (known.status, refused.status) == (200, 403)
    assert (unknown.status, again.status) == (503, 503)
    assert b"cannot be asked" in unknown.body
    assert reviews(faults) == asked == 4
    assert epp.log_text().count("metrics readers cannot be checked") == 1
    assert await epp.health() == "SERVING"

    await faults.accept_connections()
    assert (await get(epp, "/metrics", late)).status == 200
    assert "metrics readers can be checked again" in epp.log_text()


def reviews(faults):
    return len(faults.seen(lambda seen: seen.resource.endswith("reviews")))
