"""Any sequence of changes and faults ends with the cache equal to the server."""

import asyncio
import contextlib
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from epp.kube.cache import ObjectCache
from epp.kube.client import KubeClient
from epp.kube.informer import Candidate, Informer
from epp.kube.resource import PODS
from epp.testing.fake_kube import FakeKube
from epp.testing.fake_kube_faults import CutMidLine, EndAtOnce, ErrorEvent, Refuse, Reset
from epp.testing.fake_kube_objects import StatusError
from epp.testing.informer_world import HASTY, CacheProbe, decode_pod, pod_object
from epp_api.core_v1 import Pod

NAMES = st.sampled_from("abcdef")
ACTIONS = [
    Refuse(status=500),
    Refuse(status=403),
    Refuse(status=410),
    Refuse(status=429, retry_after=0),
    ErrorEvent(),
    EndAtOnce(),
    CutMidLine(),
    Reset(),
]

STEPS = st.one_of(
    st.tuples(st.just("create"), NAMES),
    st.tuples(st.just("touch"), NAMES),
    st.tuples(st.just("relabel"), NAMES),
    st.tuples(st.just("delete"), NAMES),
    st.tuples(st.just("replace"), NAMES),
    st.tuples(st.just("fault"), st.sampled_from(ACTIONS)),
    st.tuples(st.just("drop"), st.booleans()),
    st.tuples(st.just("compact"), st.none()),
    st.tuples(st.just("bookmark"), st.none()),
    st.tuples(st.just("reselect"), st.sampled_from(["app=x", "app in (x)", "app"])),
    st.tuples(st.just("settle"), st.none()),
)


def change(kube: FakeKube, step: str, name: str, number: int) -> None:
    match step:
        case "create":
            kube.create(PODS, pod_object(name))
        case "touch":
            kube.patch(PODS, "demo", name, {"status": {"podIP": f"10.0.0.{number}"}})
        case "relabel":
            kube.patch(PODS, "demo", name, {"metadata": {"labels": {"app": "xy"[number % 2]}}})
        case "delete" | "replace":
            kube.delete(PODS, "demo", name)
            if step == "replace":
                kube.create(PODS, pod_object(name))


async def scenario(steps: list[tuple[str, Any]], streams_lists: str) -> None:
    cache: ObjectCache[Pod] = ObjectCache("Pod")
    probe, selector = CacheProbe(cache), "app=x"
    async with FakeKube(streams_lists=streams_lists) as kube:
        client = KubeClient(kube.settings())
        informer = Informer(
            client,
            cache,
            [Candidate(resource=PODS, decode=decode_pod)],
            namespace="demo",
            label_selector=selector,
            settings=HASTY,
        )
        await informer.start()
        for number, (step, argument) in enumerate(steps):
            match step:
                case "fault":
                    kube.faults.add(argument, times=1 + number % 3)
                case "drop":
                    kube.drop_watches(abort=argument)
                case "compact":
                    kube.compact()
                case "bookmark":
                    kube.bookmark()
                case "reselect":
                    selector = argument
                    informer.reselect(selector)
                case "settle":
                    await kube.until(lambda: kube.watching(PODS) > 0)
                case _:
                    with contextlib.suppress(StatusError):  # it exists already, or not at all
                        change(kube, step, argument, number)
            await asyncio.sleep(0)
        kube.faults.clear()
        await cache.wait_synced()
        kube.create(PODS, pod_object("last"))
        await probe.until(lambda: probe.agrees_with(kube, PODS, selector))
        await informer.stop()
        await client.close()


@settings(max_examples=100)
@given(st.lists(STEPS, max_size=25), st.sampled_from(["yes", "refused"]))
def test_the_cache_ends_up_equal_to_the_server(
    steps: list[tuple[str, Any]], streams_lists: str
) -> None:
    asyncio.run(scenario(steps, streams_lists))
