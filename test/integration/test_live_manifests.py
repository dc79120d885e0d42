"""Editing manifests while requests flow."""

import json

import pytest

from epp.standalone import local_http
from epp.testing.stack import Manifests, Sims, Stack, eventually

pytestmark = [pytest.mark.envoy]


async def complete(stack, model="tiny", **fields):
    body = json.dumps({"model": model, "prompt": "x", "max_tokens": 1, **fields}).encode()
    headers = {"content-type": "application/json"}
    return await local_http.request(
        "127.0.0.1",
        stack.port,
        "POST",
        "/v1/completions",
        headers=headers,
        body=body,
        deadline_seconds=30,
    )


async def endpoint_names(stack):
    return [endpoint["pod"] for endpoint in (await stack.pool())["endpoints"]]


async def test_files_take_effect_within_a_second_and_a_broken_one_changes_nothing(tmp_path):
    manifests = Manifests(tmp_path / "manifests")
    async with Sims(2, first="127.0.45.1", arguments=["--model", "tiny", "--speed", "50"]) as sims:
        manifests.pool(sims.port)
        manifests.pods(sims.addresses)
        arguments = ["--manifests", str(manifests.directory)]
        async with Stack(tmp_path / "state", *arguments, wait_endpoints=2) as stack:
            assert (await complete(stack, "anything-goes")).status == 404, "the pod's own answer"

            manifests.pod("pod-1", sims.addresses[0], ready=False)
            await eventually(
                lambda: _equals(endpoint_names(stack), ["pod-2"]), seconds=1, what="pod-1 out"
            )
            manifests.model("tiny", criticality="Critical")
            await eventually(lambda: _refused(stack, "nobody"), seconds=1, what="models in use")

            pod = manifests.directory / "pod-pod-2.yaml"
            pod.write_text("kind: Pod\nmetadata: {name: [broken\n")
            await eventually(lambda: "pod-pod-2.yaml" in stack.log_text(), seconds=1, what="report")
            assert await endpoint_names(stack) == ["pod-2"], "the last good state stays"
            assert (await complete(stack)).status == 200

            manifests.delete("pod-pod-2")
            await eventually(lambda: _equals(endpoint_names(stack), []), seconds=1, what="no pods")
            reply = await complete(stack)
            assert reply.status == 503
            assert "no endpoint is ready" in reply.json()["error"]["message"]

            manifests.pods(sims.addresses)
            await eventually(lambda: _serves(stack), seconds=3, what="pods back")


async def _equals(coroutine, want):
    return await coroutine == want


async def _refused(stack, model):
    reply = await complete(stack, model)
    return reply.status == 404 and b"does not exist" in reply.body


async def _serves(stack):
    return (await complete(stack)).status == 200


async def test_a_dead_pod_is_last_choice_within_a_second(tmp_path):
    manifests = Manifests(tmp_path / "manifests")
    arguments = ["--model", "tiny", "--speed", "50"]
    async with Sims(1, first="127.0.46.1", port=8107, arguments=arguments) as alive:
        async with Sims(1, first="127.0.46.2", port=8107, arguments=arguments) as dying:
            manifests.pool(8107)
            manifests.model("tiny")
            manifests.pods([*alive.addresses, *dying.addresses])
            command = ["--manifests", str(manifests.directory)]
            async with Stack(tmp_path / "state", *command, wait_endpoints=2) as stack:
                await dying.__aexit__()

                async def failing():
                    endpoints = (await stack.pool())["endpoints"]
                    return [e["pod"] for e in endpoints if e["failing"]] == ["pod-2"]

                await eventually(failing, seconds=1.5, what="failing scrapes")
                replies = [await complete(stack) for _ in range(20)]

                assert {reply.status for reply in replies} == {200}
                assert {reply.headers["x-sim-pod"] for reply in replies} == {"sim"}


async def test_a_saturated_pool_sheds_what_may_be_shed_and_nothing_else(tmp_path):
    import asyncio

    manifests = Manifests(tmp_path / "manifests")
    slow = ["--model", "tiny", "--max-num-seqs", "1", "--speed", "0.5"]
    async with Sims(1, first="127.0.47.1", arguments=slow) as sims:
        manifests.pool(sims.port)
        manifests.model("tiny", criticality="Critical")
        manifests.model("nightly", criticality="Sheddable", targets={"tiny": 1})
        manifests.model("daily", criticality="Standard", targets={"tiny": 1})
        manifests.pods(sims.addresses)
        async with Stack(tmp_path / "state", "--manifests", str(manifests.directory)) as stack:
            before = await complete(stack, "nightly")
            load = [asyncio.create_task(complete(stack, "tiny", max_tokens=40)) for _ in range(9)]

            async def saturated():
                return (await stack.pool())["endpoints"][0]["waiting"] > 5

            await eventually(saturated, what="a queue")
            shed = await complete(stack, "nightly")
            standard = asyncio.create_task(complete(stack, "daily"))
            served = await asyncio.gather(*load, standard)

            assert before.status == 200
            assert shed.status == 429
            assert shed.headers["x-llm-d-request-dropped-reason"] == "rejected-saturated"
            assert "saturated" in shed.json()["error"]["message"]
            assert {reply.status for reply in served} == {200}
