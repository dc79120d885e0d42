import asyncio

from structlog.testing import capture_logs

from epp.kube.cache import ObjectCache
from epp.kube.cache_barrier import CacheBarrier
from epp_api.core_v1 import Pod
from epp_api.v1alpha2.inferencemodel_types import InferenceModel


async def test_the_barrier_opens_when_every_cache_has_synced() -> None:
    pods: ObjectCache[Pod] = ObjectCache("Pod")
    models: ObjectCache[InferenceModel] = ObjectCache("InferenceModel")
    barrier = CacheBarrier([pods, models])
    starting = asyncio.create_task(barrier.start(), name="starting")

    models.mark_synced()
    for _ in range(5):
        await asyncio.sleep(0)
    open_early = starting.done()
    pods.mark_synced()
    await starting
    await barrier.stop()

    assert not open_early


async def test_an_operator_is_told_which_lists_are_missing() -> None:
    synced: ObjectCache[Pod] = ObjectCache("Pod")
    synced.mark_synced()
    late: ObjectCache[InferenceModel] = ObjectCache("InferenceModel")
    barrier = CacheBarrier([synced, late], remind_seconds=0.001)

    with capture_logs() as logs:
        starting = asyncio.create_task(barrier.start(), name="starting")
        while not logs:
            await asyncio.sleep(0.001)
        late.mark_synced()
        await starting

    assert logs[0]["event"] == "still waiting for the first list"
    assert logs[0]["kinds"] == ["InferenceModel"]
