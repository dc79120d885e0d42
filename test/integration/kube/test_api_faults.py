"""The proxy with faults, in front of a real API server."""

import asyncio
import contextlib
import json
import time

import pytest
import pytest_asyncio

from epp.testing.api_admin import ApiAdmin, identity
from epp.testing.api_connection import StatusError
from epp.testing.seen_request import is_list, is_watch
from epp.testing.stack import eventually


def config_map(name):
    return identity("v1", "ConfigMap", name)


@pytest.fixture
def path(namespace):
    return f"/api/v1/namespaces/{namespace}/configmaps"


@pytest_asyncio.fixture
async def client(control_plane, faults):
    """An administrator who comes through the proxy."""
    async with ApiAdmin(faults.url, control_plane.token(), str(control_plane.ca_file)) as connected:
        yield connected


def opened(faults):
    """Watches so far that the API server has accepted."""
    return sum(request.status == 200 for request in faults.seen(is_watch))


@contextlib.asynccontextmanager
async def open_watch(client, faults, path):
    """A watch from now on, and the task that waits for its first event."""
    listed = await client.request("GET", path)
    query = {"resourceVersion": listed["metadata"]["resourceVersion"]}
    async with contextlib.aclosing(client.watch(path, query=query)) as events:
        before = opened(faults)
        first = asyncio.create_task(anext(events))
        await eventually(lambda: opened(faults) > before, what="the watch to be open")
        yield events, first
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)


async def status_of(awaitable):
    try:
        await awaitable
    except StatusError as exc:
        return exc.status
    return 200


async def test_requests_pass_and_are_recorded(client, faults, namespace, path, control_plane):
    await client.create(config_map("a"), namespace=namespace)
    await client.request("GET", f"{path}/a", query={"pretty": "1"})

    seen = faults.seen(lambda request: request.resource == "configmaps")
    assert [(r.method, r.name, r.status) for r in seen] == [("POST", "", 201), ("GET", "a", 200)]
    assert seen[1].namespace == namespace
    assert seen[1].query == {"pretty": "1"}
    assert seen[1].path == f"{path}/a"
    assert seen[1].token == control_plane.token()


async def test_an_error_of_the_api_server_passes(client, namespace):
    with pytest.raises(StatusError) as caught:
        await client.get(config_map("none"), namespace=namespace)

    assert (caught.value.status, caught.value.reason) == (404, "NotFound")


async def test_a_selector_reaches_the_api_server_as_it_is(client, admin, namespace):
    labelled = config_map("a")
    labelled["metadata"]["labels"] = {"app": "a"}
    await admin.apply([labelled, config_map("b")], namespace=namespace)

    found = await client.list("v1", "ConfigMap", namespace=namespace, selector="app in (a,c),app")

    assert [item["metadata"]["name"] for item in found] == ["a"]


async def test_a_watch_is_passed_on_event_by_event(client, faults, admin, namespace, path):
    async with open_watch(client, faults, path) as (events, first):
        await admin.create(config_map("a"), namespace=namespace)
        assert (await first)["object"]["metadata"]["name"] == "a"
        await admin.delete(config_map("a"), namespace=namespace)
        assert (await anext(events))["type"] == "DELETED"
        assert faults.open_watches == 1

    await eventually(lambda: faults.open_watches == 0, what="the watch to be closed")


async def test_watches_are_cut_by_a_reset(client, faults, path):
    async with open_watch(client, faults, path) as (_, first):
        assert faults.cut_watches() == 1

        with pytest.raises(OSError):
            await first
    assert faults.open_watches == 0


async def test_watches_are_ended_as_by_a_server_timeout(client, faults, path):
    async with open_watch(client, faults, path) as (_, first):
        faults.cut_watches(clean=True)

        with pytest.raises(StopAsyncIteration):
            await first


async def test_watches_are_cut_again_and_again(client, faults, path):
    await faults.cut_watches_every(0.05)

    for _ in range(2):
        async with open_watch(client, faults, path) as (_, first):
            with pytest.raises(OSError):
                await first
    await faults.cut_watches_every(0)
    assert len(faults.seen(is_watch)) == 2


async def test_the_next_lists_are_gone(client, faults, path):
    faults.answer(410, times=2, match=is_list)

    statuses = [await status_of(client.request("GET", path)) for _ in range(3)]

    assert statuses == [410, 410, 200]
    assert [request.status for request in faults.seen(is_list)] == statuses


async def test_the_next_watch_is_refused_and_a_list_is_not(client, faults, path):
    faults.answer(410, match=is_watch)

    assert await status_of(client.request("GET", path)) == 200
    with pytest.raises(StatusError) as caught:
        await anext(client.watch(path))
    assert (caught.value.status, caught.value.reason) == (410, "Expired")


async def test_the_next_watch_expires_in_its_stream(client, faults, path):
    faults.expire_watches()

    seen = [event async for event in client.watch(path)]
    async with open_watch(client, faults, path) as (_, first):
        after = (faults.open_watches, first.done())

    assert [(event["type"], event["object"]["code"]) for event in seen] == [("ERROR", 410)]
    assert after == (1, False)


async def test_an_event_is_cut_in_the_middle(client, faults, admin, namespace, path):
    async with open_watch(client, faults, path) as (_, first):
        faults.truncate_watches()

        await admin.create(config_map("a"), namespace=namespace)

        with pytest.raises(json.JSONDecodeError):
            await first


async def test_too_many_requests_come_with_a_time_to_wait(client, faults, path):
    faults.answer(429, times=None, retry_after_seconds=7)

    async with client._opened().get(faults.url + path) as response:
        body = await response.json()
    assert (response.status, response.headers["Retry-After"]) == (429, "7")
    assert (body["code"], body["details"]) == (429, {"retryAfterSeconds": 7})
    await faults.clear()
    assert await status_of(client.request("GET", path)) == 200


async def test_a_list_is_delayed_and_other_requests_are_not(client, faults, path):
    faults.delay(0.2)

    started = time.monotonic()
    assert await status_of(client.request("GET", f"{path}/none")) == 404
    between = time.monotonic()
    await client.request("GET", path)

    assert time.monotonic() - between >= 0.2
    assert between - started < 0.2


async def test_a_token_expires(client, faults, admin, path, control_plane):
    faults.expire_token(control_plane.token())

    assert await status_of(client.request("GET", path)) == 401
    assert await status_of(admin.request("GET", path)) == 200


async def test_nothing_is_answered_while_it_hangs(client, faults, admin, namespace, path):
    async with open_watch(client, faults, path) as (_, first):
        faults.hang()
        await admin.create(config_map("a"), namespace=namespace)

        with pytest.raises(TimeoutError):
            await client.request("GET", path, timeout_seconds=0.2)
        assert not first.done()

        faults.resume()
        assert (await first)["object"]["metadata"]["name"] == "a"
    assert await status_of(client.request("GET", path)) == 200


async def test_connections_are_refused_and_accepted_again_on_the_same_port(client, faults, path):
    url = faults.url
    async with open_watch(client, faults, path) as (_, first):
        await faults.refuse_connections()

        with pytest.raises(OSError):
            await first
    with pytest.raises(ConnectionError):
        await client.request("GET", path)
    await faults.accept_connections()

    assert faults.url == url
    assert await status_of(client.request("GET", path)) == 200


async def test_bookmarks_can_be_dropped(client, faults, admin, namespace, path):
    await admin.create(config_map("a"), namespace=namespace)
    query = {
        "allowWatchBookmarks": "true",
        "sendInitialEvents": "true",
        "resourceVersionMatch": "NotOlderThan",
    }
    async with contextlib.aclosing(client.watch(path, query=query)) as kept:
        assert [(await anext(kept))["type"] for _ in range(2)] == ["ADDED", "BOOKMARK"]

    faults.drop_bookmarks = True
    async with contextlib.aclosing(client.watch(path, query=query)) as dropped:
        assert (await anext(dropped))["type"] == "ADDED"
        await admin.delete(config_map("a"), namespace=namespace)
        assert (await anext(dropped))["type"] == "DELETED"


async def test_a_killed_api_server_is_a_reset_connection(client, faults, path, control_plane):
    async with open_watch(client, faults, path) as (_, first):
        await control_plane.kill_apiserver()

        with pytest.raises(OSError):
            await first
    with pytest.raises(OSError):
        await client.request("GET", path)
    await control_plane.restart_apiserver()

    assert await status_of(client.request("GET", path)) == 200
