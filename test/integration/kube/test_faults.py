"""What an API server does to its clients on a bad day, and what is served meanwhile.

Every row breaks something between the real API server and the informers, lets pods and models
change behind their back, and mends it. Whatever happens, a pod that lives is never let go, and
afterwards the view is right.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from epp.kube.connection_settings import TokenFile
from epp.kube.errors import UnauthorizedError
from epp.testing.kube_manifests import model, objective, pod, pool
from epp.testing.kube_world import HASTY, PAGED, KubeWorld
from epp.testing.seen_request import is_list, is_watch
from epp.testing.stack import eventually

PATIENCE = replace(HASTY, idle_seconds=0.5, list_seconds=0.5)
IMPATIENT_PAGES = replace(PAGED, idle_seconds=0.5, list_seconds=0.5)
KINDS = 8
LONGEST_BACKOFF = 2 * HASTY.backoff.max_seconds


async def cut_often(faults):
    await faults.cut_watches_every(0.1)


async def cut_often_and_cleanly(faults):
    await faults.cut_watches_every(0.1, clean=True)


async def storm_of_gone(faults):
    faults.answer(410, times=None, match=is_watch)
    faults.answer(410, times=20, match=is_list)
    faults.cut_watches()


async def expired_streams(faults):
    faults.expire_watches(times=None)
    faults.cut_watches()


async def too_many_requests(faults):
    faults.answer(429, times=None, retry_after_seconds=1)
    faults.cut_watches()


async def failing(faults):
    faults.answer(500, times=None)
    faults.cut_watches()


async def unavailable(faults):
    faults.answer(503, times=None)
    faults.cut_watches()


async def gateway_timeout(faults):
    faults.answer(504, times=None)
    faults.cut_watches()


async def slow(faults):
    faults.delay(0.3, match=lambda seen: is_list(seen) or is_watch(seen))
    faults.answer(410, times=KINDS, match=is_watch)
    faults.cut_watches()


async def hanging(faults):
    faults.hang()


async def away(faults):
    await faults.refuse_connections()


async def truncated(faults):
    faults.truncate_watches(times=6)


async def without_bookmarks(faults):
    faults.drop_bookmarks = True
    faults.cut_watches()


@dataclass(frozen=True, kw_only=True)
class Row:
    """What breaks, and what informers must have noticed before it is mended."""

    breaks: object
    settings: object = PATIENCE
    notices: tuple[str, ...] = ()


ROWS = {
    "watches-are-cut": Row(breaks=cut_often),
    "watches-end": Row(breaks=cut_often_and_cleanly),
    "watches-are-cut-lists-are-paged": Row(breaks=cut_often, settings=IMPATIENT_PAGES),
    "a-storm-of-410": Row(breaks=storm_of_gone, notices=("Pod Gone",)),
    "a-storm-of-410-lists-are-paged": Row(
        breaks=storm_of_gone, settings=IMPATIENT_PAGES, notices=("Pod Gone",)
    ),
    "watches-expire-in-their-streams": Row(breaks=expired_streams, notices=("Pod Gone",)),
    "too-many-requests": Row(breaks=too_many_requests, notices=("Pod TooManyRequests",)),
    "internal-errors": Row(breaks=failing, notices=("Pod Server",)),
    "unavailable": Row(breaks=unavailable, notices=("Pod Server",)),
    "gateway-timeouts": Row(breaks=gateway_timeout, notices=("Pod Server",)),
    "slow-lists": Row(breaks=slow, notices=("Pod Gone",)),
    "slow-lists-of-pages": Row(breaks=slow, settings=IMPATIENT_PAGES, notices=("Pod Gone",)),
    "nothing-is-answered": Row(breaks=hanging, notices=("Pod Unreachable",)),
    "connections-are-refused": Row(breaks=away, notices=("Pod Unreachable",)),
    "lines-are-truncated": Row(breaks=truncated, notices=("Pod Unreachable",)),
    "no-bookmarks": Row(breaks=without_bookmarks),
}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
async def test_a_living_pod_is_never_let_go_and_the_view_is_right_afterwards(
    make_world, people, faults, row
):
    await people.put(pool(), pod("kept"), pod("gone", "10.0.0.2"), model("m1"))
    async with make_world(faults.url, settings=row.settings) as world:
        await world.serves("kept", "gone")

        await row.breaks(faults)
        await people.delete(pod("gone"), model("m1"))
        await people.put(pod("new", "10.0.0.3"), model("m2"), objective("late", 3))
        await people.put(pod("kept", "10.0.0.1", labels={"app": "x", "seen": "yes"}))
        for notice in row.notices:
            await world.counts.until(notice, 1)
        assert "kept" in world.pods
        await faults.clear()

        await world.serves("kept", "new")
        await world.until(lambda: (world.models, world.objectives) == ({"food": "m2"}, {"late": 3}))
        await world.until(lambda: faults.open_watches == KINDS, what="a watch of each kind")
    assert "kept" not in world.journal.removed


async def test_watches_go_on_where_they_were_cut(make_world, people, faults):
    await people.put(pool(), pod("a"))
    async with make_world(faults.url) as world:
        await world.serves("a")
        lists = world.counts.seen["Pod relisted"]
        served = ["a"]
        for number in range(1, 6):
            await eventually(lambda: faults.open_watches == KINDS, what="every watch")
            faults.cut_watches(clean=number % 2 == 0)
            served.append(f"b{number}")
            await people.put(pod(served[-1], f"10.0.1.{number}"))
            await world.serves(*served)

    assert world.counts.seen["Pod relisted"] == lists
    assert world.journal.removed == set()


async def test_nobody_is_asked_before_the_time_that_it_named(make_world, people, faults):
    await people.put(pool(), pod("a"))
    async with make_world(faults.url) as world:
        await world.serves("a")
        faults.answer(429, times=None, retry_after_seconds=30)
        faults.cut_watches()
        await eventually(lambda: len(refused(faults)) == KINDS, what="every kind to be refused")

        await people.put(pod("b", "10.0.0.2"))
        with pytest.raises(TimeoutError):
            await eventually(lambda: len(refused(faults)) > KINDS, seconds=LONGEST_BACKOFF)

    assert world.pods == {"a"}


def refused(faults):
    return faults.seen(lambda seen: seen.status == 429)


async def test_a_storm_is_asked_ever_more_slowly(make_world, people, faults):
    await people.put(pool(), pod("a"))
    async with make_world(faults.url) as world:
        await world.serves("a")
        before = len(faults.requests)
        faults.expire_watches(times=None)
        faults.cut_watches()
        await world.counts.until("Pod Gone", 6)
        asked = len([one for one in faults.requests[before:] if one.resource == "pods"])

    # Once cut, at once again, then after each back-off: no more requests than failures and one.
    assert asked <= world.counts.seen["Pod Gone"] + 2


@pytest.fixture
def token_world(account, people, faults, tmp_path):
    """A world whose token lies in a file, as the kubelet mounts it."""
    path = tmp_path / "token"
    path.write_text(account.token)
    connection = replace(account.connection(faults.url), identity=TokenFile(path=Path(path)))
    return KubeWorld(connection, people.pool_key, settings=PATIENCE), path


def unauthorized(logs):
    """Failures that a token was the reason of."""
    return [line for line in logs if isinstance(line.get("error"), UnauthorizedError)]


async def test_an_expired_token_is_read_again(token_world, account, people, faults):
    world, path = token_world
    await people.put(pool(), pod("a"))
    async with world:
        await world.serves("a")
        fresh = await account.token_of(account.name)
        path.write_text(fresh)
        with capture_logs() as logs:
            faults.expire_token(account.token)
            faults.cut_watches()
            await people.put(pod("b", "10.0.0.2"))
            await world.serves("a", "b")
            await world.until(lambda: faults.open_watches == KINDS, what="a watch of each kind")

    assert fresh != account.token
    assert unauthorized(logs) == []
    opened = [one for one in faults.seen(is_watch) if one.status == 200]
    assert {one.token for one in opened[-KINDS:]} == {fresh}
    assert world.journal.removed == set()


async def test_a_token_that_is_renewed_late_is_waited_for(token_world, account, people, faults):
    world, path = token_world
    await people.put(pool(), pod("a"))
    async with world:
        await world.serves("a")
        with capture_logs() as logs:
            faults.expire_token(account.token)
            faults.cut_watches()
            await world.counts.until("Pod Unauthorized", 3)
            await people.put(pod("b", "10.0.0.2"))
            assert world.pods == {"a"}

            path.write_text(await account.token_of(account.name))
            await world.serves("a", "b")

    assert [line["kind"] for line in unauthorized(logs)].count("Pod") == 1
    assert [line["kind"] for line in logs if line["event"] == "works again"].count("Pod") >= 1
    assert account.token not in str(logs)


async def test_an_api_server_that_is_away_at_the_start_is_waited_for(make_world, people, faults):
    await people.put(pool(), pod("a"))
    await faults.refuse_connections()
    async with make_world(faults.url, settings=PATIENCE, wait=False) as world:
        await world.counts.until("InferencePool Unreachable", 3)
        assert not world.has_synced

        await faults.accept_connections()
        await world.serves("a")
