"""The real ``epp serve`` under traffic while the API server dies, stalls, refuses and forgets.

The process runs as the ServiceAccount that we ship. Requests come all the time; what counts is
that none fails, that what happened meanwhile is known afterwards, and that a pod that is gone gets
no more of them.
"""

import asyncio
import os
import re
import signal
import time

import pytest
import yaml

from epp.standalone import local_http
from epp.testing.kube_manifests import model, pod, pool
from epp.testing.pick_stream import PickStream
from epp.testing.seen_request import is_list, is_watch
from epp.testing.serve import Serve
from epp.testing.stack import eventually

PORT = 8123
"""Nothing listens there: only where requests are sent is looked at."""


GPU = {"tier": "gpu"}
BOTH = {"app": "x", **GPU}


def target(ip):
    return f"{ip}:{PORT}"


@pytest.fixture
def serve(tmp_path, control_plane, account, faults, people):
    """``epp serve`` behind the proxy with faults."""

    def made(*arguments, token_file=None, **more):
        kubeconfig = control_plane.kubeconfig(account.token, server=faults.url)
        if token_file is not None:
            written = yaml.safe_load(kubeconfig.read_text())
            written["users"][0]["user"] = {"tokenFile": str(token_file)}
            kubeconfig.write_text(yaml.safe_dump(written))
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
            await picks.more(60 if breaks is cut_every_second else 25)
            await faults.clear()
            await sees(epp, "kept", f"pod-{number}")
            gone[target(f"127.0.81.{number + 1}")] = time.monotonic()
            await picks.reaches({target("127.0.81.1"), target(f"127.0.81.{number + 2}")})

    assert picks.failures == []
    assert picks.late(gone, seconds=0.2) == []
    assert "Traceback" not in epp.log_text()


AWAY_SECONDS = 20.0
LOOK_SECONDS = 5.0
CAUGHT_UP_SECONDS = LOOK_SECONDS + 3.0
"""Until the next look at the API server, and 1 s more each time it asks for that."""

LOOKED = re.compile(r"list and watch failed .*UnreachableError.* retry_seconds=([\d.]+)")


def once_each():
    """Match the first watch of each kind."""
    known = set()

    def is_first(seen):
        if not is_watch(seen) or seen.path in known:
            return False
        known.add(seen.path)
        return True

    return is_first


async def test_a_restart_of_the_api_server_is_caught_up_with_in_seconds(serve, people, faults):
    """It is away, then initialises, then has forgotten the versions that we know."""
    await people.put(pool(ports=(PORT,)), pod("kept", "127.0.86.1", labels=BOTH))
    await people.put(pod("gone", "127.0.86.2", labels=BOTH))
    async with serve("-v=4") as epp, PickStream(epp.grpc_port) as picks:
        await sees(epp, "kept", "gone")

        await faults.refuse_connections()
        back_at = time.monotonic() + AWAY_SECONDS
        faults.answer(429, times=None, retry_after_seconds=1, match=once_each())
        faults.expire_watches(times=None, match=once_each())
        await people.put(pool(ports=(PORT,), selector=GPU))
        await people.delete(pod("gone"))
        await people.put(pod("new", "127.0.86.3", labels=GPU), pod("old", "127.0.86.4"))
        await asyncio.sleep(back_at - time.monotonic())  # that long it is away: nothing to wait for
        assert await pods_of(epp) == {"kept", "gone"}
        faults.requests.clear()
        began = time.monotonic()
        await faults.accept_connections()

        await sees(epp, "kept", "new")
        waited = time.monotonic() - began
        await picks.reaches({target("127.0.86.1"), target("127.0.86.3")})

    looks = [float(seconds) for seconds in LOOKED.findall(epp.log_text())]
    assert 2.0 < max(looks) <= LOOK_SECONDS
    assert waited < CAUGHT_UP_SECONDS
    assert picks.failures == []
    for path in ("/api/v1/", f"/apis/{pool()['apiVersion']}/"):
        statuses = [one.status for one in faults.seen(is_watch) if one.path.startswith(path)]
        assert statuses[0] == 429
        assert len(statuses) >= 3, "refused, expired, and then a good one"


async def test_a_rotated_token_is_followed(serve, people, account, faults, token_file):
    await people.put(pool(ports=(PORT,)), pod("a", "127.0.82.1"))
    async with serve(token_file=token_file) as epp, PickStream(epp.grpc_port) as picks:
        await picks.reaches({target("127.0.82.1")})
        fresh = await account.token_of(account.name)

        faults.expire_token(account.token)
        faults.cut_watches()
        await eventually(lambda: "Unauthorized" in epp.log_text(), what="a refused token")
        token_file.write_text(fresh)
        await people.put(pod("b", "127.0.82.2"))

        await sees(epp, "a", "b")
        await picks.reaches({target("127.0.82.1"), target("127.0.82.2")})
    opened = [seen for seen in faults.seen(is_watch) if seen.status == 200]
    assert opened[-1].token == fresh != account.token
    assert picks.failures == []
    assert fresh not in epp.log_text()


@pytest.fixture
def token_file(tmp_path, account):
    """The account's token in a file, as a kubelet mounts it."""
    path = tmp_path / "token"
    path.write_text(account.token)
    return path


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


async def test_a_start_without_an_api_server_waits_alive_and_unready(serve, people, faults):
    await people.put(pool(ports=(PORT,)), pod("a", "127.0.85.1"))
    await faults.refuse_connections()
    async with serve(wait_serving=False) as epp:
        await eventually(lambda: "list and watch failed" in told(epp), what="a first try")
        assert await epp.health() == "NOT_SERVING"
        assert await epp.health("liveness") == "SERVING"

        await faults.accept_connections()
        await eventually(lambda: healthy(epp, "SERVING"), seconds=20, what="the first lists")
        await sees(epp, "a")


def told(epp):
    """The log, with both ways to say that the API server could not be asked."""
    return epp.log_text().replace("cannot ask whether the kind is served", "list and watch failed")


@pytest.mark.parametrize("when", ["serving", "starting"])
async def test_an_api_server_that_hangs_does_not_keep_it_from_stopping(serve, people, faults, when):
    await people.put(pool(ports=(PORT,)), pod("a", "127.0.85.1"))
    if when == "starting":
        faults.hang()
    election = [
        *("--ha-enable-leader-election", "--leader-elect-renew-deadline=2s"),
        *("--leader-elect-lease-duration=3s", "--leader-elect-retry-period=1s"),
    ]
    async with serve(*election, wait_serving=when == "serving") as epp:
        faults.hang()
        epp.signal(signal.SIGTERM)
        assert await epp.exit_status(seconds=6) == 0
    assert "Traceback" not in epp.log_text()
    assert "did not stop in time" not in epp.log_text()


async def test_pods_are_served_by_their_labels_without_a_pool(
    tmp_path, control_plane, account, people, faults
):
    await people.put(
        pod("a", "127.0.87.1"),
        pod("b", "127.0.87.2", labels={"app": "y", "tier": "gold"}),
        pod("c", "127.0.87.3", labels={"app": "z"}),
    )
    kubeconfig = control_plane.kubeconfig(account.token, server=faults.url)
    selector = "app in (x,y),tier notin (tin)"
    async with Serve(
        tmp_path,
        *("--endpoint-selector", selector, "--endpoint-target-ports", f"{PORT},9000"),
        *("--kubeconfig", str(kubeconfig), "--pool-namespace", people.name),
        *("--secure-serving=false", "--metrics-endpoint-auth=false", "--drain-timeout=0"),
        env={**os.environ, "POD_NAME": "picker-6b7f9c5d4-x2x9z"},
    ) as epp:
        await sees(epp, "a", "b")
        await people.put(pod("b", labels={"app": "y", "tier": "tin"}), pod("d", "127.0.87.4"))
        await sees(epp, "a", "d")
        view = await local_http.get_json("127.0.0.1", epp.metrics_port, "/debug/pool")

    assert (view["pool"]["name"], view["pool"]["target_ports"]) == ("picker", [PORT, 9000])
    assert {seen.resource for seen in faults.requests if seen.resource} == {"pods"}
