"""What a client sees through a real Envoy: both data paths, and gateways of the field."""

import asyncio
import json
import uuid

import openai
import pytest

from epp.standalone import local_http
from epp.testing.stack import eventually

pytestmark = [pytest.mark.envoy, pytest.mark.asyncio(loop_scope="session")]

MARK_HEADER = "x-test-mark"
MESSAGES = [{"role": "user", "content": "Who picks the pod?"}]


async def send(stack, path, body, *, method="POST", **headers):
    """One raw request; returns the reply and the mark by which a pod's record of it is found.

    The mark is no x-request-id, because gateways at the edge replace a client's own.
    """
    mark = str(uuid.uuid4())
    data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    names = {k.replace("_", "-"): v for k, v in headers.items()}
    names = {"content-type": "application/json", MARK_HEADER: mark, **names}
    reply = await local_http.request(
        "127.0.0.1", stack.port, method, path, headers=names, body=data, deadline_seconds=60
    )
    return reply, mark


async def decision(stack, seen):
    """Why a request went where a pod saw it."""
    return await stack.decision(seen["headers"]["x-request-id"][0])


async def test_chat_is_served_by_the_pod_that_was_picked(stack):
    reply, mark = await send(
        stack, "/v1/chat/completions", {"model": "tiny", "messages": MESSAGES, "max_tokens": 4}
    )

    assert reply.status == 200
    assert reply.headers["x-went-into-resp-headers"] == "true"
    served = await sims_request(stack, mark)
    explained = await decision(stack, served)
    assert explained["targets"] == [f"{served['address']}:{served['port']}"]


async def sims_request(stack, mark):
    """What reached a pod of a request, with the pod's address."""
    for endpoint in (await stack.pool())["endpoints"]:
        host, port = endpoint["address"].rsplit(":", 1)
        state = await local_http.get_json(host, int(port), "/admin/state")
        for request in state["requests"]:
            if mark in request["headers"].get(MARK_HEADER, ()):
                return {**request, "address": host, "port": port}
    raise AssertionError(f"no pod saw {mark}")


async def test_multi_part_content_completions_and_embeddings_are_served(client):
    parts = [{"type": "text", "text": "Hello"}, {"type": "text", "text": "again"}]
    chat = await client.chat.completions.create(
        model="tiny", messages=[{"role": "user", "content": parts}], max_tokens=3
    )
    completion = await client.completions.create(model="tiny", prompt="Once", max_tokens=5)
    embeddings = await client.embeddings.create(model="tiny", input="text", encoding_format="float")
    response = await client.responses.create(model="tiny", input="Hi", max_output_tokens=4)

    assert chat.usage.completion_tokens == 3
    assert completion.usage.completion_tokens == 5
    assert embeddings.data[0].embedding
    assert response.usage.output_tokens == 4


async def test_a_streamed_reply_comes_token_by_token_with_usage(client):
    stream = await client.chat.completions.create(
        model="tiny",
        messages=MESSAGES,
        max_tokens=12,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = [chunk async for chunk in stream]

    texts = [c.choices[0].delta.content for c in chunks if c.choices and c.choices[0].delta.content]
    assert len(texts) == 12
    assert chunks[-1].usage.completion_tokens == 12


async def test_a_request_without_a_body_is_served(client):
    models = await client.models.list()

    assert "tiny" in [model.id for model in models.data]


async def test_a_split_rewrites_the_model_and_leaves_every_other_byte(stack):
    body = (
        b'{"seed": 12345678901234567890, "model" : "support","prompt":"caf\xc3\xa9","max_tokens":2}'
    )

    reply, mark = await send(stack, "/v1/completions", body)

    seen = await sims_request(stack, mark)
    assert reply.status == 200
    assert seen["model"] in {"sup-a", "sup-b"}
    assert seen["body_bytes"] == len(body) - len("support") + len(seen["model"])
    assert reply.json()["model"] == seen["model"], "the response keeps the server's name"


async def test_the_split_is_drawn_by_weight(stack):
    body = {"model": "support", "prompt": "x", "max_tokens": 1}
    replies = await asyncio.gather(*(send(stack, "/v1/completions", body) for _ in range(120)))

    names = [reply.json()["model"] for reply, _ in replies]
    assert {reply.status for reply, _ in replies} == {200}
    assert 90 <= names.count("sup-a") <= 119, names.count("sup-a")


async def test_an_undeclared_model_is_refused_with_the_clients_own_error(client):
    with pytest.raises(openai.NotFoundError, match="The model `nobody` does not exist") as info:
        await client.completions.create(model="nobody", prompt="x")

    assert info.value.param == "model"
    assert info.value.status_code == 404


@pytest.mark.parametrize(
    ("body", "text"),
    [
        pytest.param(b'{"model": "tiny", "prompt": ', "JSON", id="truncated"),
        pytest.param(b"[1, 2]", "object", id="no-object"),
        pytest.param(b'{"prompt": "x"}', "model", id="no-model"),
        pytest.param(b'{"model": "tiny"}', "prompt", id="no-prompt"),
    ],
)
async def test_a_bad_body_is_a_400_that_says_why(stack, body, text):
    reply, _ = await send(stack, "/v1/completions", body)

    assert reply.status == 400
    assert text in reply.json()["error"]["message"]
    assert reply.json()["error"]["code"] == 400


@pytest.mark.parametrize("megabytes", [1, 6])
async def test_a_long_prompt_is_served_by_a_pick(stack, megabytes):
    prompt = "word " * (megabytes * 200_000)

    reply, mark = await send(
        stack, "/v1/completions", {"prompt": prompt, "max_tokens": 1, "model": "support"}
    )

    assert reply.status == 200, reply.body[:300]
    explained = await decision(stack, await sims_request(stack, mark))
    assert explained["target_model"] == reply.json()["model"]


async def test_a_body_beyond_the_limit_is_refused_with_413_that_the_client_can_read(client):
    with pytest.raises(openai.APIStatusError, match="longer than 16777216 bytes") as info:
        await client.completions.create(model="tiny", prompt="x" * (20 << 20), max_tokens=1)

    assert info.value.status_code == 413


async def test_forged_routing_headers_neither_route_nor_reach_the_pod(stack):
    forged = {
        "x_gateway_destination_endpoint": "127.0.0.1:1",
        "x_prefiller_host_port": "127.0.0.1:1",
        "x_data_parallel_host_port": "127.0.0.1:1",
    }

    reply, mark = await send(
        stack, "/v1/completions", {"model": "tiny", "prompt": "x", "max_tokens": 1}, **forged
    )

    seen = (await sims_request(stack, mark))["headers"]
    assert reply.status == 200
    assert "127.0.0.1:1" not in json.dumps(seen)
    assert "x-prefiller-host-port" not in seen


async def test_many_small_chunks_make_one_body(stack):
    pieces = [b'{"model":', b'"tiny",', b'"prompt":"', *[b"word "] * 500, b'","max_tokens":1}']
    head = b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", stack.port)

    writer.write(head)
    for piece in pieces:
        writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        await writer.drain()
    writer.write(b"0\r\n\r\n")
    answer = await asyncio.wait_for(reader.read(), 20)
    writer.close()

    assert answer.startswith(b"HTTP/1.1 200")


async def test_token_counts_are_observed_for_json_and_for_streams(stack):
    name = "inference_model_output_tokens_sum"
    usage = {"stream": True, "stream_options": {"include_usage": True}}
    body = {"model": "counted", "prompt": "x", "max_tokens": 7}

    await send(stack, "/v1/completions", body)
    await send(stack, "/v1/completions", {**body, **usage})

    async def counted():
        return await stack.metric(name, model_name="counted") == 14

    await eventually(counted, what="7 + 7 output tokens")


async def test_a_model_servers_failure_passes_through_and_is_counted(stack, sims):
    labels = {"model_name": "tiny", "error_code": "ModelServerError"}
    before = await stack.metric("inference_model_request_error_total", **labels)
    for address in sims.addresses:
        await sims.fault(address, "500")

    try:
        reply, _ = await send(stack, "/v1/completions", {"model": "tiny", "prompt": "x"})
    finally:
        for address in sims.addresses:
            await sims.fault(address, None)

    async def counted():
        return await stack.metric("inference_model_request_error_total", **labels) == before + 1

    assert reply.status == 500
    await eventually(counted, what="the error counter")
