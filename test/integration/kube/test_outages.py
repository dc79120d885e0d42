"""The real ``epp serve`` under traffic while the API server dies, stalls, refuses and forgets.

The process runs as the ServiceAccount that we ship. Requests come all the time; what counts is
that none fails, that what happened meanwhile is known afterwards, and that a pod that is gone gets
no more of them.
"""

import time

import pytest

from epp.standalone import local_http
from epp.testing.kube_manifests import model, pod, pool
from epp.testing.pick_stream import PickStream
from epp.testing.seen_request import is_list, is_watch
from epp.testing.serve import Serve
from epp.testing.stack import eventually

PORT = 8123
"""Nothing listens there: only where requests are sent is looked at."""


def target(ip):
    return f"{ip}:{PORT}"


@pytest.fixture
def serve(tmp_path, control_plane, account, faults, people):
    """``epp serve`` behind the proxy with faults."""

    def made(*arguments, token=None, **more):
        kubeconfig = control_plane.kubeconfig(token or account.token, server=faults.url)
        return Serve(
            tmp_path,
            *("--pool-name", "pool", "--pool-namespace", people.name),
            *("--kubeconfig", str(kubeconfig), "--secure-serving=false"),
            *("--metrics-endpoint-auth=false", "--drain-timeout=0", *arguments),
            **more,
        )

    return made


async def pods_of(epp):
    view = await local_http.get_json("127.0.0.1", epp.metrics_port, "/debug/pool")
    return {endpoint["pod"] for endpoint in view["endpoints"]}


async def sees(epp, *pods):
    async def does():
        return await pods_of(epp) == set(pods)

    await eventually(does, seconds=20, what=f"the pods {pods}")


async def test_no_request_fails_while_the_api_server_is_killed_and_restarted(
    serve, control_plane, people, faults
):
    await people.put(pool(ports=(PORT,)), model("m", "tiny"))
    await people.put(pod("kept", "127.0.80.1"), pod("gone", "127.0.80.2"))
    async with serve() as epp, PickStream(epp.grpc_port) as picks:
        await picks.reaches({target("127.0.80.1"), target("127.0.80.2")})

        await control_plane.kill_apiserver()
        await picks.reaches({target("127.0.80.1"), target("127.0.80.2")})
        health = await epp.health()
        await faults.refuse_connections()
        await control_plane.restart_apiserver()
        await people.delete(pod("gone"))
        await people.put(pod("new", "127.0.80.3"))
        unseen = await pods_of(epp)
        await faults.accept_connections()

        await sees(epp, "kept", "new")
        known_at = time.monotonic()
        await picks.reaches({target("127.0.80.1"), target("127.0.80.3")})
        assert await epp.health() == health == "SERVING"

    assert unseen == {"kept", "gone"}
    assert picks.failures == []
    assert picks.late({target("127.0.80.2"): known_at}, seconds=0.2) == []
    assert "Traceback" not in epp.log_text()


async def cut_every_second(faults):
    await faults.cut_watches_every(1.0)


async def storm_of_gone(faults):
    faults.answer(410, times=30, match=lambda seen: is_list(seen) or is_watch(seen))
    faults.cut_watches()


async def too_many_requests(faults):
    faults.answer(429, times=20, retry_after_seconds=1)
    faults.cut_watches()


async def slow_lists(faults):
    faults.delay(0.5, match=lambda seen: is_list(seen) or is_watch(seen))
    faults.expire_watches(times=4)
    faults.cut_watches()


async def truncated_lines(faults):
    faults.truncate_watches(times=3)


async def stalled(faults):
    faults.hang()


BAD_DAY = (
    cut_every_second,
    storm_of_gone,
    too_many_requests,
    slow_lists,
    truncated_lines,
    stalled,
)


async def test_no_request_fails_on_a_bad_day(serve, people, faults):
    await people.put(pool(ports=(PORT,)), pod("kept", "127.0.81.1"), pod("pod-0", "127.0.81.2"))
    gone = {}
    async with serve() as epp, PickStream(epp.grpc_port) as picks:
        await picks.reaches({target("127.0.81.1"), target("127.0.81.2")})
        for number, breaks in enumerate(BAD_DAY, 1):
            await breaks(faults)
            await people.delete(pod(f"pod-{number - 1}"))
            await people.put(pod(f"pod-{number}", f"127.0.81.{number + 2}"))
            await picks.more(50)
            await faults.clear()
            await sees(epp, "kept", f"pod-{number}")
            gone[target(f"127.0.81.{number + 1}")] = time.monotonic()
            await picks.reaches({target("127.0.81.1"), target(f"127.0.81.{number + 2}")})

    assert picks.failures == []
    assert picks.late(gone, seconds=0.2) == []
    assert "Traceback" not in epp.log_text()


async def test_a_rotated_token_is_followed(serve, people, account, faults, control_plane, tmp_path):
    token = tmp_path / "token"
    token.write_text(account.token)
    await people.put(pool(ports=(PORT,)), pod("a", "127.0.82.1"))
    async with serve() as epp:
        await sees(epp, "a")


async def test_the_pool_decides_whether_it_serves(serve, people):
    await people.put(pod("a", "127.0.83.1"))
    async with serve(wait_serving=False) as epp:
        assert await epp.health() == "NOT_SERVING"
        assert await epp.health("liveness") == "SERVING"

        await people.put(pool(ports=(PORT,)))
        await eventually(lambda: healthy(epp, "SERVING"), what="the pool")
        await sees(epp, "a")
        await people.delete(pool())
        await eventually(lambda: healthy(epp, "NOT_SERVING"), what="no pool")
        await sees(epp)


async def healthy(epp, status):
    return await epp.health() == status
