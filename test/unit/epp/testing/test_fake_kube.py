"""The fake API server answers as a real one does."""

import asyncio
import time
from typing import Any

import aiohttp
import orjson
import pytest

from epp.kube.client import KubeClient
from epp.kube.errors import (
    ApiError,
    ConflictError,
    GoneError,
    InvalidError,
    NotFoundError,
    UnauthorizedError,
)
from epp.kube.resource import LEASES, PODS, TOKEN_REVIEWS, Resource
from epp.testing.fake_kube import FakeKube
from epp.testing.fake_kube_faults import Delay, Hang, Refuse
from epp.testing.fake_kube_selectors import Json, SelectorError, matcher

WIDGETS = Resource(group="example.com", version="v1", plural="widgets", kind="Widget")
PATH = WIDGETS.path(namespace="demo")
ONE = WIDGETS.path(namespace="demo", name="a")
MERGE = "application/merge-patch+json"
APPLY = "application/apply-patch+yaml"


@pytest.fixture
async def kube():
    async with FakeKube([PODS, LEASES, WIDGETS, TOKEN_REVIEWS]) as kube:
        yield kube


@pytest.fixture
async def client(kube):
    client = KubeClient(kube.settings())
    yield client
    await client.close()


def widget(name: str = "a", **fields) -> Json:
    return {"metadata": {"name": name, "namespace": "demo"}, **fields}


async def call(client: KubeClient, method: str, path: str = ONE, body=None, **options) -> Any:
    return orjson.loads(await client.request(method, path, body=body, **options))


@pytest.mark.parametrize(
    ("labels", "fields", "want"),
    [
        pytest.param("", "", "abc", id="everything"),
        pytest.param("app=x", "", "ab", id="equals"),
        pytest.param("app==x,tier=gold", "", "a", id="both"),
        pytest.param("app!=x", "", "c", id="differs"),
        pytest.param("tier in (gold, iron)", "", "ab", id="in"),
        pytest.param("tier notin (gold)", "", "bc", id="notin-includes-absent"),
        pytest.param("tier", "", "ab", id="exists"),
        pytest.param("!tier", "", "c", id="absent"),
        pytest.param("", "metadata.name=b", "b", id="field"),
        pytest.param("app=x", "metadata.name!=b", "a", id="label-and-field"),
        pytest.param("", "spec.node=", "abc", id="missing-field-is-empty"),
    ],
)
def test_selectors(labels: str, fields: str, want: str) -> None:
    objects: list[Json] = [
        {"metadata": {"name": "a", "labels": {"app": "x", "tier": "gold"}}},
        {"metadata": {"name": "b", "labels": {"app": "x", "tier": "iron"}}},
        {"metadata": {"name": "c"}},
    ]

    matches = matcher(labels, fields)

    assert "".join(obj["metadata"]["name"] for obj in objects if matches(obj)) == want


@pytest.mark.parametrize(("labels", "fields"), [("a=b=c", ""), ("(x)", ""), ("", "name")])
def test_selectors_that_are_refused(labels: str, fields: str) -> None:
    with pytest.raises(SelectorError):
        matcher(labels, fields)


async def test_a_refused_selector_is_400(client) -> None:
    with pytest.raises(InvalidError, match="unable to parse"):
        await call(client, "GET", PATH, query={"labelSelector": "(x)"})


async def test_life_of_an_object(kube, client) -> None:
    created = await call(client, "POST", PATH, widget(spec={"n": 1}, status={"ready": True}))
    assert "status" not in created
    assert created["metadata"]["uid"]

    created["spec"]["n"] = 2
    updated = await call(client, "PUT", ONE, created)
    assert updated["metadata"]["generation"] == 2
    with pytest.raises(ConflictError, match="has been modified"):
        await call(client, "PUT", ONE, created)

    status = {"status": {"ready": True}, "spec": {"n": 99}}
    patched = await call(client, "PATCH", f"{ONE}/status", status, content_type=MERGE)
    assert (patched["spec"], patched["status"]) == ({"n": 2}, {"ready": True})
    spec = {"spec": {"n": None, "m": 1}, "status": {"ready": False}}
    patched = await call(client, "PATCH", ONE, spec, content_type=MERGE)
    assert (patched["spec"], patched["status"]) == ({"m": 1}, {"ready": True})

    await call(client, "DELETE")
    with pytest.raises(NotFoundError, match='widgets.example.com "a" not found'):
        await call(client, "GET")
    assert kube.list(WIDGETS) == []


async def test_a_write_that_changes_nothing_is_none(kube, client) -> None:
    kube.create(WIDGETS, widget(spec={"n": 1}))
    version = kube.version

    await call(client, "PATCH", ONE, {"spec": {"n": 1}}, content_type=MERGE)

    assert kube.version == version


async def test_a_patch_with_an_old_version_conflicts(kube, client) -> None:
    kube.create(WIDGETS, widget())

    with pytest.raises(ConflictError):
        stale = {"metadata": {"resourceVersion": "1"}, "spec": {}}
        await call(client, "PATCH", ONE, stale, content_type=MERGE)


async def test_apply_creates_or_merges_and_wants_a_manager(client) -> None:
    with pytest.raises(InvalidError, match="fieldManager"):
        await call(client, "PATCH", ONE, widget(), content_type=APPLY)
    for spec in ({"n": 1}, {"m": 2}):
        applied = await call(
            client, "PATCH", ONE, widget(spec=spec), content_type=APPLY, query={"fieldManager": "t"}
        )

    assert applied["spec"] == {"n": 1, "m": 2}


async def test_other_patches_are_not_supported(kube, client) -> None:
    kube.create(WIDGETS, widget())

    with pytest.raises(ApiError, match="is not supported"):
        await call(client, "PATCH", ONE, {}, content_type="application/strange+json")


@pytest.mark.parametrize(
    ("body", "want"),
    [
        pytest.param(widget(), "already exists", id="twice"),
        pytest.param({"metadata": {}}, "metadata.name: Required", id="no-name"),
        pytest.param([], "the body is not an object", id="not-an-object"),
    ],
)
async def test_creations_that_are_refused(kube, client, body: object, want: str) -> None:
    kube.create(WIDGETS, widget())

    with pytest.raises(ApiError, match=want):
        await call(client, "POST", PATH, body)


async def test_names_can_be_generated(client) -> None:
    created = await call(client, "POST", PATH, {"metadata": {"generateName": "w-"}})

    assert created["metadata"]["name"].startswith("w-")


async def test_reviews_are_answered_and_not_stored(kube, client) -> None:
    kube.answers[TOKEN_REVIEWS] = lambda body: {**body, "status": {"authenticated": True}}

    answer = await call(client, "POST", TOKEN_REVIEWS.path(), {"spec": {"token": "x"}})

    assert answer == {"spec": {"token": "x"}, "status": {"authenticated": True}}
    assert kube.list(TOKEN_REVIEWS) == []


async def test_only_known_tokens_are_accepted(kube, client) -> None:
    kube.tokens = {"good"}
    good = KubeClient(kube.settings("good"))

    await call(good, "GET", PATH)
    with pytest.raises(UnauthorizedError):
        await call(client, "GET", PATH)

    await good.close()


async def test_page_tokens_expire_with_the_history(kube, client) -> None:
    for name in "abc":
        kube.create(WIDGETS, widget(name))
    page = await call(client, "GET", PATH, query={"limit": "2"})
    kube.delete(WIDGETS, "demo", "c")

    rest = {"limit": "2", "continue": page["metadata"]["continue"]}
    assert [
        one["metadata"]["name"] for one in (await call(client, "GET", PATH, query=rest))["items"]
    ] == ["c"]
    kube.compact()
    with pytest.raises(GoneError):
        await call(client, "GET", PATH, query=rest)


async def test_old_versions_cannot_be_watched(kube, client) -> None:
    kube.create(WIDGETS, widget())
    kube.compact()

    with pytest.raises(GoneError, match="too old resource version"):
        query = {"watch": "1", "resourceVersion": str(kube.version - 1)}
        async with client.lines(PATH, query=query, idle_seconds=5):
            pass


async def test_a_watch_ends_when_it_was_asked_to(client) -> None:
    started = time.monotonic()

    async with client.lines(
        PATH, query={"watch": "1", "timeoutSeconds": "1"}, idle_seconds=9
    ) as lines:
        assert [line async for line in lines] == []

    assert time.monotonic() - started >= 0.9


async def test_bookmarks_come_only_if_allowed(kube, client) -> None:
    async with client.lines(PATH, query={"watch": "1"}, idle_seconds=5) as lines:
        await kube.until(lambda: kube.watching(WIDGETS) == 1)
        kube.bookmark()
        kube.create(WIDGETS, widget())

        assert orjson.loads(await anext(lines))["type"] == "ADDED"


async def test_a_hanging_request_is_answered_when_the_fault_is_over(kube, client) -> None:
    fault = kube.faults.add(Hang(), times=1)
    asking = asyncio.create_task(call(client, "GET", PATH))
    await kube.until(lambda: kube.count("list", WIDGETS) == 1)

    assert not asking.done()
    kube.faults.remove(fault)
    assert (await asking)["items"] == []


async def test_a_stop_breaks_what_hangs_and_a_start_serves_again(kube, client) -> None:
    kube.create(WIDGETS, widget())
    kube.faults.add(Hang(), times=1)
    asking = asyncio.create_task(call(client, "GET", PATH))
    await kube.until(lambda: kube.count("list", WIDGETS) == 1)

    await kube.stop()
    await asyncio.wait((asking,))
    await kube.start(kube.port)

    assert len((await call(client, "GET", PATH))["items"]) == 1


async def test_faults_hit_their_verb_and_kind_so_many_times(kube, client) -> None:
    kube.faults.add(Refuse(status=403), verb="create", resource="widgets", times=1)
    kube.faults.add(Delay(seconds=0.0), verb="get")

    await call(client, "GET", PATH)
    with pytest.raises(ApiError):
        await call(client, "POST", PATH, widget())
    await call(client, "POST", PATH, widget())
    await call(client, "GET")


async def test_every_answer_is_json_with_a_kind(kube) -> None:
    async with aiohttp.ClientSession() as session, session.get(f"{kube.url}/nonsense") as answer:
        assert answer.status == 404
        assert (await answer.json())["kind"] == "Status"
