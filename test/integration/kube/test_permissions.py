"""Each rule that we ship, taken away and given back.

Without it a log line names verb and resource, the rest goes on, and what the rule is for works
again when it is back. That the rules are enough is shown by every other test of this folder which
connects as this account; that none is idle is shown by ``test_every_permission_has_a_row``.
"""

from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from epp.kube.client import KubeClient
from epp.kube.events import EventRecorder, EventType, ObjectRef
from epp.kube.leaderelection import LeaderElector
from epp.kube.lease import LeaseSettings
from epp.server.metrics_auth import MetricsAuth
from epp.server.metrics_server import MetricsServer
from epp.standalone import local_http
from epp.testing.api_admin import identity
from epp.testing.kube_account import Permission
from epp.testing.kube_manifests import (
    CURRENT,
    LEGACY,
    model,
    objective,
    old_pool,
    pod,
    pool,
    rewrite,
    rule,
)
from epp.testing.kube_world import CONTROLLER_NAME, HASTY, HASTY_EVENTS, PAGED
from epp.testing.seen_request import is_watch
from epp.testing.stack import eventually

V1_GROUP = "inference.networking.k8s.io"
X_GROUP = "inference.networking.x-k8s.io"
LLM_D_GROUP = "llm-d.ai"

KINDS: dict[tuple[str, str], Callable[[str], Any]] = {
    ("pods", ""): lambda name: pod(name, f"10.0.0.{len(name)}"),
    ("inferencepools", V1_GROUP): pool,
    ("inferencepools", X_GROUP): old_pool,
    ("inferencemodels", X_GROUP): lambda name: model(name, f"model-{name}"),
    ("inferenceobjectives", X_GROUP): lambda name: objective(name, 1, api_version=LEGACY),
    ("inferencemodelrewrites", X_GROUP): lambda name: rewrite(name, rule("t"), api_version=LEGACY),
    ("inferenceobjectives", LLM_D_GROUP): lambda name: objective(name, 1, api_version=CURRENT),
    ("inferencemodelrewrites", LLM_D_GROUP): lambda name: rewrite(
        name, rule("t"), api_version=CURRENT
    ),
}
READING = [
    Permission(verb, resource, group) for resource, group in KINDS for verb in ("list", "watch")
]
WRITING = [
    Permission("patch", "inferencemodels/status", X_GROUP),
    Permission("create", "events", "events.k8s.io"),
    Permission("patch", "events", "events.k8s.io"),
    Permission("get", "leases", "coordination.k8s.io"),
    Permission("create", "leases", "coordination.k8s.io"),
    Permission("update", "leases", "coordination.k8s.io"),
    Permission("create", "tokenreviews", "authentication.k8s.io"),
    Permission("create", "subjectaccessreviews", "authorization.k8s.io"),
]
OPTIONAL = [permission for permission in READING if permission.resource != "pods"]
WITHOUT_PODS = [permission for permission in READING if permission.resource == "pods"]


def by_name(permissions):
    return pytest.mark.parametrize("permission", permissions, ids=lambda one: one.qualified)


def test_every_permission_has_a_row(account):
    assert sorted(account.permissions) == sorted([*READING, *WRITING])


def refusals(logs, permission):
    """Errors in the log that name verb and resource."""
    return [
        line
        for line in logs
        if line["log_level"] in {"warning", "error"}
        and str(line.get("error", "")).startswith(permission.qualified)
        and "forbidden" in str(line["error"])
    ]


def events(logs):
    return [line["event"] for line in logs]


async def refused(logs, permission):
    await eventually(lambda: refusals(logs, permission), what=f"{permission.qualified} refused")


def settings_for(permission):
    """Lists need their verb only where they are not streamed by a watch."""
    return PAGED if permission.verb == "list" else HASTY


def name_of(permission, name):
    """Pools have the one name that is followed."""
    return "pool" if permission.resource == "inferencepools" else name


async def everything(people):
    await people.put(
        *(made("pool" if "pool" in kind else "a") for (kind, _), made in KINDS.items())
    )


def known(world, permission):
    """Keys in the cache that the permission fills, with their versions."""
    manifest = manifest_of(permission, "a")
    cache = world.source.caches.by_type[manifest["apiVersion"], manifest["kind"]]
    return {obj.metadata.name: obj.metadata.resource_version for obj in cache.list()}


def manifest_of(permission, name):
    made = KINDS[permission.resource, permission.group](name_of(permission, name))
    return made.manifest if hasattr(made, "manifest") else made


async def change(people, permission):
    """Something to see for whoever may look: another object, or another version of the pool."""
    if permission.resource == "inferencepools":
        manifest = manifest_of(permission, "pool")
        return await people.patch(manifest, {"metadata": {"annotations": {"seen": "yes"}}})
    return (await people.put(KINDS[permission.resource, permission.group]("bb")))[0]


def concerns(permission):
    return lambda seen: (
        is_watch(seen)
        and (f"/{permission.group}/" in seen.path if permission.group else seen.resource == "pods")
        and seen.resource == permission.resource
    )


@by_name(READING)
async def test_a_kind_may_be_forbidden_while_running(
    make_world, account, people, faults, permission
):
    await everything(people)
    async with make_world(faults.url, settings=settings_for(permission)) as world:
        await world.until(lambda: world.pods == {"a"} and known(world, permission))
        with capture_logs() as logs:
            await account.revoke(permission)
            before = known(world, permission)
            if permission.verb == "list":
                faults.answer(410, match=concerns(permission))
            faults.cut_watches()
            await refused(logs, permission)
            stored = await change(people, permission)
            await a_pod_comes_and_goes(world, people, permission)
            assert known(world, permission) == before

            await account.grant(permission)
            await world.caught_up(stored)
            await eventually(lambda: "works again" in events(logs), what="a word about it")

        assert "a" in world.pods
        assert "a" not in world.journal.removed


async def a_pod_comes_and_goes(world, people, permission):
    """The rest goes on."""
    if permission.resource == "pods":
        return
    other = pod("another", "10.0.0.200")
    await people.put(other)
    await world.serves("a", "another")
    await people.delete(other)
    await world.serves("a")


@by_name(OPTIONAL)
async def test_a_kind_may_be_forbidden_from_the_start(make_world, account, people, permission):
    await everything(people)
    await account.revoke(permission)

    with capture_logs() as logs:
        async with make_world(settings=settings_for(permission)) as world:
            await world.serves("a")
            assert refusals(logs, permission)
            assert known(world, permission) == {}

            await account.grant(permission)
            await world.until(lambda: known(world, permission), what="the kind to be known")
            assert world.pods == {"a"}

    off = [line for line in logs if line["event"] == "kind is forbidden, going on without it"]
    assert len(off) == 1


@by_name(WITHOUT_PODS)
async def test_nothing_is_served_before_pods_may_be_read(make_world, account, people, permission):
    await everything(people)
    await account.revoke(permission)

    with capture_logs() as logs:
        async with make_world(settings=settings_for(permission), wait=False) as world:
            await refused(logs, permission)
            await world.until(lambda: world.source.caches.models.has_synced)
            assert not world.has_synced

            await account.grant(permission)
            await world.serves("a")


async def test_lists_need_no_permission_where_a_watch_streams_them(make_world, account, people):
    await everything(people)
    for permission in READING:
        if permission.verb == "list":
            await account.revoke(permission)

    async with make_world() as world:
        await world.serves("a")
        assert all(known(world, permission) for permission in READING)


async def test_a_status_that_may_not_be_written(world, account, people):
    permission = Permission("patch", "inferencemodels/status", X_GROUP)
    await people.put(pool(), pod(), model("a"))
    await world.serves("pod-0")
    await eventually(lambda: accepted(people, "a"), what="a status")

    with capture_logs() as logs:
        await account.revoke(permission)
        await people.put(model("b", "other"))
        await refused(logs, permission)
        await people.put(pod("more", "10.0.0.2"), model("c", "third"))
        await world.until(lambda: len(world.pods) == 2 and len(world.models) == 3)
        assert not await accepted(people, "b")

        await account.grant(permission)
        await eventually(lambda: accepted(people, "b"), what="the status that was owed")
        await eventually(lambda: accepted(people, "c"), what="the status that was owed")

    told = [line["event"] for line in logs if "model status" in line["event"]]
    assert told == ["model status not written, trying again", "model status is written again"]


async def accepted(people, name):
    stored = await people.admin.get(model(name), namespace=people.name)
    conditions = stored.get("status", {}).get("conditions", ())
    return any(c["type"] == "Accepted" for c in conditions)


@pytest.fixture
async def client(account):
    """A client of the account alone."""
    made = KubeClient(account.connection())
    yield made
    await made.close()


@by_name([Permission(verb, "events", "events.k8s.io") for verb in ("create", "patch")])
async def test_events_that_may_not_be_written(client, account, admin, namespace, permission):
    regarding = ObjectRef(api_version="v1", kind="Pod", namespace=namespace, name="a")
    recorder = EventRecorder(
        client, controller=CONTROLLER_NAME, instance="test", settings=HASTY_EVENTS
    )

    def say(note):
        recorder.record(regarding, EventType.NORMAL, "Tried", "Try", note)

    async def stored():
        """Note and count of every Event."""
        listed = await admin.list("events.k8s.io/v1", "Event", namespace=namespace)
        return sorted((e["note"], (e.get("series") or {"count": 1})["count"]) for e in listed)

    async def written(note, *, more_than=0):
        say(note)
        return dict(await stored()).get(note, 0) > more_than

    await recorder.start()
    try:
        await eventually(lambda: written("first"), what="an event")
        with capture_logs() as logs:
            await account.revoke(permission)
            before = await stored()
            note = "first" if permission.verb == "patch" else "second"
            say(note)
            await refused(logs, permission)
            assert await stored() == before

            await account.grant(permission)
            known = dict(before).get(note, 0)
            await eventually(
                lambda: written(note, more_than=known), what="events to be written again"
            )
    finally:
        await recorder.stop()
    events = [line["event"] for line in logs if "events are" in line["event"]]
    assert events == ["events are dropped", "events are written again"]


@pytest.fixture
async def elector(client, namespace):
    made = LeaderElector(
        client,
        namespace=namespace,
        name="epp",
        identity="me",
        settings=LeaseSettings(lease_seconds=1, renew_deadline_seconds=0.6, retry_seconds=0.1),
    )
    yield made
    await made.stop()


LEASES = [permission for permission in WRITING if permission.resource == "leases"]


@by_name(LEASES)
async def test_nobody_leads_before_leases_may_be_used(
    elector, account, admin, namespace, permission
):
    if permission.verb == "update":
        await admin.create(free_lease(), namespace=namespace)
    with capture_logs() as logs:
        await account.revoke(permission)
        await elector.start()
        await refused(logs, permission)
        assert not elector.is_leader

        await account.grant(permission)
        await eventually(lambda: elector.is_leader, what="a leader")

    told = [line["event"] for line in logs]
    assert told.index("lease cannot be used, trying again") < told.index("lease can be used again")


def free_lease():
    return {
        **identity("coordination.k8s.io/v1", "Lease", "epp"),
        "spec": {"holderIdentity": "", "leaseDurationSeconds": 1},
    }


async def test_a_leader_that_may_not_renew_steps_down_in_time(elector, account):
    permission = Permission("update", "leases", "coordination.k8s.io")
    await elector.start()
    await eventually(lambda: elector.is_leader, what="a leader")

    with capture_logs() as logs:
        await account.revoke(permission)
        await eventually(lambda: not elector.is_leader, seconds=2, what="no leader")
        assert refusals(logs, permission)

        await account.grant(permission)
        await eventually(lambda: elector.is_leader, what="a leader again")


@by_name(
    [
        permission
        for permission in WRITING
        if permission.verb == "create" and "review" in permission.resource
    ]
)
async def test_nobody_reads_metrics_before_they_can_be_checked(
    client, account, shipped, namespace, permission
):
    reader = await account.token_of(f"{namespace}-epp-metrics-reader")
    server = MetricsServer(
        CollectorRegistry(),
        port=0,
        host="127.0.0.1",
        not_ready_reasons=list,
        guard=MetricsAuth(client),
    )
    port = await server.start()
    try:
        with capture_logs() as logs:
            await account.revoke(permission)
            assert await page_status(port, reader) == 503
            assert refusals(logs, permission)

            await account.grant(permission)
            assert await page_status(port, reader) == 200
    finally:
        await server.stop()


async def page_status(port, token):
    headers = {"authorization": f"Bearer {token}"}
    reply = await local_http.request("127.0.0.1", port, "GET", "/metrics", headers=headers)
    return reply.status
