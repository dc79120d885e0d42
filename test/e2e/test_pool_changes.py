"""The pool and its models change while requests flow: what was served before is served after."""

import copy

import pytest

from epp.testing.installation import MODEL_API, NAME_LABEL, POOL_API
from epp.testing.traffic import Traffic

pytestmark = pytest.mark.asyncio(loop_scope="session")


def names(pods):
    return {pod["metadata"]["name"] for pod in pods}


async def test_scaling_up_and_down_loses_nothing_and_new_pods_serve(standalone, gateway):
    before = names(await standalone.pods("modelsim"))

    async with Traffic(gateway, "chat") as load:
        await standalone.scale("modelsim", 5)
        more = names(await standalone.pods("modelsim"))
        await standalone.wait(lambda: more <= load.pods().keys(), what="requests to every new pod")
        await standalone.scale("modelsim", 2)
        fewer = names(await standalone.pods("modelsim"))
        moment = await load.more(60)
    await standalone.scale("modelsim", 3)

    assert load.lost == []
    assert len(before) == 3
    assert before < more
    assert load.pods(moment).keys() == fewer


async def test_a_rolled_selector_moves_all_requests_and_loses_none(standalone, gateway):
    green = renamed_servers(standalone.manifest("Deployment", "modelsim"), "modelsim-green")
    await standalone.apply(green)
    await standalone.rolled_out("modelsim-green")
    old, new = (
        names(await standalone.pods("modelsim")),
        names(await standalone.pods("modelsim-green")),
    )

    async with Traffic(gateway, "chat") as load:
        await load.more(40)
        await select(standalone, "modelsim-green")
        await moved(standalone, load, new)
        await select(standalone, "modelsim")
        await moved(standalone, load, old)
    await standalone.delete(green)

    assert load.lost == []
    assert load.pods().keys() == old | new


def renamed_servers(deployment, name):
    """The same model servers under another name, as a blue-green update has them."""
    made = copy.deepcopy(dict(deployment))
    made["metadata"]["name"] = name
    for labels in (
        made["metadata"]["labels"],
        made["spec"]["selector"]["matchLabels"],
        made["spec"]["template"]["metadata"]["labels"],
    ):
        labels[NAME_LABEL] = name
    made["spec"]["replicas"] = 2
    return made


async def select(standalone, name):
    change = {"spec": {"selector": {"matchLabels": {NAME_LABEL: name}}}}
    await standalone.patch(POOL_API, "InferencePool", "sim-pool", change)


async def moved(standalone, load, pods):
    """Only these pods serve."""

    async def only_these():
        moment = await load.more(30)
        return load.pods(moment).keys() <= pods

    await standalone.wait(only_these, what="requests to the selected pods only")


async def test_a_second_claim_of_a_name_waits_until_the_first_is_gone(standalone, gateway):
    first = standalone.manifest("InferenceModel", "chat")
    second = copy.deepcopy(dict(first))
    second["metadata"]["name"] = "another-chat"  # sorts first: ages are in seconds, and may tie
    second["spec"]["targetModels"] = [{"name": "chat-r2", "weight": 1}]

    await standalone.apply(second)
    refused = await accepted(standalone, "another-chat", "False")
    shared = await gateway.ask_many("chat", 40)
    await standalone.delete(first)
    await accepted(standalone, "another-chat", "True")
    taken = await gateway.ask_many("chat", 40)
    await standalone.apply(first)
    await accepted(standalone, "chat", "False")
    await standalone.delete(second)
    await accepted(standalone, "chat", "True")

    assert refused["reason"] == "ModelNameInUse"
    assert f"{standalone.namespace}/chat" in refused["message"]
    assert {a.status for a in (*shared, *taken)} == {200}
    assert {a.model for a in shared} > {"chat-r2"}
    assert {a.model for a in taken} == {"chat-r2"}


async def accepted(standalone, name, status):
    """Wait for the condition Accepted of an InferenceModel; return it."""

    async def found():
        model = await standalone.get(MODEL_API, "InferenceModel", name)
        conditions = (model.get("status") or {}).get("conditions") or ()
        return [c for c in conditions if c["type"] == "Accepted" and c["status"] == status]

    [condition] = await standalone.wait(found, what=f"{name}: Accepted={status}")
    return condition


async def test_a_pool_that_is_deleted_and_made_again_is_served_again(standalone, gateway):
    pool = standalone.manifest("InferencePool", "sim-pool")
    before = names(await standalone.pods("epp"))

    await standalone.delete(pool)
    gone = await until_status(standalone, gateway, 503)
    await standalone.apply(pool)
    back = await until_status(standalone, gateway, 200)

    assert gone.pod == ""
    assert back.by_epp
    pods = await standalone.pods("epp")
    assert names(pods) == before, "an EPP without a pool is alive"
    assert [c["restartCount"] for p in pods for c in p["status"]["containerStatuses"]] == [0] * 4
    for pod in pods:
        log = await standalone.cluster.logs(pod, "epp")
        assert '"event":"pool removed"' in log


async def until_status(standalone, gateway, status):
    """Every replica answers with it; one of the answers."""

    async def answers():
        found = await gateway.ask_many("chat", 20, at_once=4)
        return found[0] if {a.status for a in found} == {status} else None

    return await standalone.wait(answers, what=f"answers {status} only")
