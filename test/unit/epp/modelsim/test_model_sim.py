"""A simulated pod over HTTP: OpenAI endpoints, faults, admin, several pods in a process."""

import asyncio
import base64
import hashlib
import struct
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from epp.errors import ConfigError
from epp.modelsim.faults import parse_fault
from epp.modelsim.model_sim import Fleet, ModelSim
from epp.modelsim.options import SimOptions
from epp.modelsim.step_model import EngineSettings

StartSim = Callable[..., Awaitable[ModelSim]]
Connect = Callable[[ModelSim], Awaitable[Any]]

SLOW = EngineSettings(decode_step_seconds=0.02, max_num_seqs=2)
"""Long enough to look at requests in work, short enough to wait for them."""
ENDLESS = 100_000
"""Output tokens of a request that only an abort ends."""


@pytest.fixture
async def sim(start: StartSim) -> ModelSim:
    return await start(
        served_model_names=("tiny", "small"),
        loras=("sql",),
        engine=EngineSettings(speed=1000.0, max_loras=1),
    )


@pytest.fixture
async def client(sim: ModelSim, connect: Connect) -> Any:
    return await connect(sim)


async def test_a_completion_has_the_length_and_the_model_that_were_asked_for(client: Any) -> None:
    body = {"model": "small", "prompt": "x" * 400, "max_tokens": 5}

    reply = await client.ask("POST", "/v1/completions", body)

    document = reply.json()
    choice = document["choices"][0]
    assert (reply.status, reply.headers["x-sim-pod"]) == (200, "pod-a")
    assert (document["object"], document["model"]) == ("text_completion", "small")
    assert (len(choice["text"].split()), choice["finish_reason"]) == (5, "length")
    assert document["usage"] == {
        "prompt_tokens": 100,
        "total_tokens": 105,
        "completion_tokens": 5,
        "prompt_tokens_details": {"cached_tokens": 0},
    }


async def test_a_chat_answers_as_the_assistant(client: Any) -> None:
    body = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}]}

    document = (await client.ask("POST", "/v1/chat/completions", body)).json()

    choice = document["choices"][0]
    assert (document["object"], choice["message"]["role"]) == ("chat.completion", "assistant")
    assert (len(choice["message"]["content"].split()), choice["finish_reason"]) == (16, "stop")


async def test_a_stream_has_a_first_empty_event_a_token_each_usage_and_done(client: Any) -> None:
    body = {
        "model": "tiny",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
        "max_completion_tokens": 3,
        "stream": True,
        "stream_options": {"include_usage": True},
    }

    reply = await client.ask("POST", "/v1/chat/completions", body)

    first, *tokens, usage, done = reply.events()
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert [event["choices"][0]["finish_reason"] for event in tokens] == [None, None, "length"]
    assert all(event["object"] == "chat.completion.chunk" for event in tokens)
    assert (usage["choices"], usage["usage"]["completion_tokens"]) == ([], 3)
    assert done == "[DONE]"


async def test_streamed_and_whole_text_are_the_same(client: Any) -> None:
    body = {"model": "tiny", "prompt": "the same", "max_tokens": 9}

    whole = (await client.ask("POST", "/v1/completions", body)).json()
    events = (await client.ask("POST", "/v1/completions", {**body, "stream": True})).events()

    streamed = "".join(event["choices"][0]["text"] for event in events[:-1])
    assert streamed == whole["choices"][0]["text"]
    assert all("usage" not in event for event in events[:-1])


async def test_head_of_a_stream_comes_before_the_first_token(
    start: StartSim, connect: Connect
) -> None:
    sim = await start(engine=EngineSettings(prefill_tokens_per_second=0.01))
    client = await connect(sim)

    client.send("POST", "/v1/completions", {"prompt": "x", "stream": True})
    head = await asyncio.wait_for(client.reader.readuntil(b"\r\n\r\n"), 5)

    assert b"transfer-encoding: chunked" in head
    assert sim.model.num_running == 1


async def test_every_prompt_gets_its_choices(client: Any) -> None:
    body = {"model": "tiny", "prompt": ["one", "two"], "n": 2, "max_tokens": 2}

    document = (await client.ask("POST", "/v1/completions", body)).json()
    events = (await client.ask("POST", "/v1/completions", {**body, "stream": True})).events()

    texts = [choice["text"] for choice in document["choices"]]
    assert texts[0] == texts[1] != texts[2] == texts[3]
    assert document["usage"]["completion_tokens"] == 8
    assert {event["choices"][0]["index"] for event in events[:-1]} == {0, 1, 2, 3}


async def test_a_repeated_prompt_is_reported_as_cached(client: Any) -> None:
    body = {"model": "tiny", "prompt": "p" * 6400, "max_tokens": 1}
    await client.ask("POST", "/v1/completions", body)

    document = (await client.ask("POST", "/v1/completions", body)).json()

    assert document["usage"]["prompt_tokens_details"]["cached_tokens"] == 1584


async def test_embeddings_are_numbers_or_packed(client: Any) -> None:
    body = {"model": "tiny", "input": ["a", "b"], "dimensions": 4}

    numbers = (await client.ask("POST", "/v1/embeddings", body)).json()
    packed = (
        await client.ask("POST", "/v1/embeddings", {**body, "encoding_format": "base64"})
    ).json()

    vector = numbers["data"][0]["embedding"]
    raw = base64.b64decode(packed["data"][0]["embedding"])
    assert struct.unpack("<4f", raw) == pytest.approx(vector)
    assert numbers["data"][1]["embedding"] != vector
    assert numbers["usage"]["completion_tokens"] == 0


async def test_responses_have_output_text_and_their_own_usage(client: Any) -> None:
    body = {"model": "tiny", "input": "hello", "max_output_tokens": 3}

    document = (await client.ask("POST", "/v1/responses", body)).json()
    events = (await client.ask("POST", "/v1/responses", {**body, "stream": True})).events()

    text = document["output"][0]["content"][0]["text"]
    deltas = [event for event in events if event["type"] == "response.output_text.delta"]
    assert document["usage"]["output_tokens"] == 3
    assert "".join(event["delta"] for event in deltas) == text
    assert len(deltas) == 3
    assert (events[0]["type"], events[-1]["type"]) == ("response.created", "response.completed")
    assert events[-1]["response"]["output"][0]["content"][0]["text"] == text
    assert [event["sequence_number"] for event in events] == list(range(10))


async def test_an_unknown_model_is_refused_as_vllm_does(client: Any) -> None:
    reply = await client.ask("POST", "/v1/completions", {"model": "nope", "prompt": "x"})

    assert reply.status == 404
    assert reply.json() == {
        "error": {
            "message": "The model `nope` does not exist. Valid aliases: tiny, small.",
            "type": "NotFoundError",
            "param": "model",
            "code": 404,
        }
    }


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        pytest.param("completions", b'{"model": "tiny", "pro', None, id="truncated"),
        pytest.param("completions", b"", None, id="empty"),
        pytest.param("completions", b"[]", None, id="no-object"),
        pytest.param("completions", {"model": 7, "prompt": "x"}, "model", id="model-no-text"),
        pytest.param("completions", {"model": "tiny"}, "prompt", id="no-prompt"),
        pytest.param("completions", {"prompt": "x", "max_tokens": 0}, "max_tokens", id="no-output"),
        pytest.param("completions", {"prompt": "x", "n": 999}, "n", id="too-many-choices"),
        pytest.param("chat/completions", {"messages": []}, "messages", id="no-message"),
        pytest.param("chat/completions", {"messages": [1]}, "messages", id="message-no-object"),
        pytest.param("embeddings", {"input": {}}, "input", id="input-no-text"),
        pytest.param(
            "completions", {"prompt": "x", "max_tokens": 10**9}, "max_tokens", id="longer-than-kv"
        ),
    ],
)
async def test_a_bad_body_is_refused_in_the_same_shape(
    client: Any, path: str, body: object, param: str | None
) -> None:
    reply = await client.ask("POST", f"/v1/{path}", body)

    error = reply.json()["error"]
    assert reply.status == 400
    assert (error["type"], error["param"], error["code"]) == ("BadRequestError", param, 400)
    assert error["message"]


@pytest.mark.parametrize(
    ("method", "path", "want"),
    [
        pytest.param("GET", "/health", 200, id="health"),
        pytest.param("GET", "/v1/models", 200, id="models"),
        pytest.param("GET", "/nothing", 404, id="unknown-path"),
        pytest.param("GET", "/v1/completions", 405, id="wrong-method"),
        pytest.param("POST", "/metrics", 405, id="post-to-metrics"),
        pytest.param("GET", "/admin/nothing", 404, id="unknown-admin-path"),
    ],
)
async def test_other_paths_answer_as_expected(
    client: Any, method: str, path: str, want: int
) -> None:
    assert (await client.ask(method, path)).status == want


async def test_the_model_list_has_base_names_and_adapters(client: Any) -> None:
    cards = (await client.ask("GET", "/v1/models")).json()["data"]

    assert [(card["id"], card["parent"]) for card in cards] == [
        ("tiny", None),
        ("small", None),
        ("sql", "tiny"),
    ]


async def test_an_adapter_is_a_model_of_its_own(sim: ModelSim, client: Any) -> None:
    document = (await client.ask("POST", "/v1/completions", {"model": "sql", "prompt": "x"})).json()

    assert document["model"] == "sql"
    assert sim.model.adapters.loaded == ["sql"]


async def test_load_counts_requests_in_work(start: StartSim, connect: Connect) -> None:
    sim = await start(engine=SLOW)
    streaming, client = await connect(sim), await connect(sim)
    streaming.send("POST", "/v1/completions", {"prompt": "x", "stream": True, "max_tokens": 1000})
    await sim.until(lambda: sim.model.num_running == 1)

    assert (await client.ask("GET", "/load")).json() == {"server_load": 1}


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
async def test_a_client_that_leaves_frees_its_slot_and_the_next_one_runs(
    start: StartSim, connect: Connect, *, stream: bool
) -> None:
    sim = await start(engine=SLOW)
    clients = [await connect(sim) for _ in range(3)]
    body = {"prompt": "x", "stream": stream, "max_tokens": ENDLESS}
    for client in clients:
        client.send("POST", "/v1/completions", body)
    await sim.until(lambda: (sim.model.num_running, sim.model.num_waiting) == (2, 1))

    await clients[0].close()
    await sim.until(lambda: (sim.model.num_running, sim.model.num_waiting) == (2, 0))
    for client in clients[1:]:
        await client.close()
    await sim.until(lambda: sim.state.in_flight == 0)

    assert sim.state.outcomes == {"aborted": 3}
    assert (sim.model.num_running, sim.model.cache.used_blocks) == (0, 0)


async def test_a_connection_serves_many_requests(sim: ModelSim, client: Any) -> None:
    for _ in range(20):
        await client.ask("POST", "/v1/completions", {"prompt": "x", "max_tokens": 1})

    assert sim.state.outcomes == {"finished": 20}


async def test_many_clients_are_served_at_once(sim: ModelSim, connect: Connect) -> None:
    clients = [await connect(sim) for _ in range(100)]
    body = {"prompt": "x", "max_tokens": 20, "stream": True}

    replies = await asyncio.gather(
        *(client.ask("POST", "/v1/completions", body) for client in clients)
    )

    assert all(reply.events()[-1] == "[DONE]" for reply in replies)
    assert sim.state.in_flight == 0


async def test_fault_500_answers_500(sim: ModelSim, client: Any) -> None:
    sim.faults.set(parse_fault("500"))

    reply = await client.ask("POST", "/v1/completions", {"prompt": "x"})

    assert (reply.status, reply.json()["error"]["code"]) == (500, 500)
    assert (await client.ask("GET", "/health")).status == 200
    assert sim.state.outcomes == {"faulted": 1}


async def test_fault_reset_resets_the_connection(sim: ModelSim, client: Any) -> None:
    sim.faults.set(parse_fault("reset"))

    with pytest.raises(ConnectionResetError):
        await client.ask("POST", "/v1/completions", {"prompt": "x"})


async def test_fault_cut_resets_a_stream_after_its_first_token(sim: ModelSim, client: Any) -> None:
    sim.faults.set(parse_fault("cut"))
    body = {"prompt": "x", "stream": True, "max_tokens": 1000}

    client.send("POST", "/v1/completions", body)
    await client.reader.readuntil(b"\r\n\r\n")
    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
        await client.reader.readuntil(b"[DONE]")
    await sim.until(lambda: sim.state.in_flight == 0)

    assert sim.state.outcomes == {"faulted": 1}
    assert sim.model.num_running == 0


async def test_fault_hang_never_answers(sim: ModelSim, client: Any, connect: Connect) -> None:
    sim.faults.set(parse_fault("hang"))
    client.send("POST", "/v1/completions", {"prompt": "x"})
    await sim.until(lambda: sim.state.outcomes["faulted"] == 1)

    other = await connect(sim)
    assert (await other.ask("GET", "/health")).status == 200
    assert client.reader._buffer == b""


async def test_fault_slow_answers_later(sim: ModelSim, client: Any) -> None:
    sim.faults.set(parse_fault("slow:1:0.05"))
    loop = asyncio.get_running_loop()
    before = loop.time()

    reply = await client.ask("POST", "/v1/completions", {"prompt": "x"})

    assert reply.status == 200
    assert loop.time() - before >= 0.05


async def test_a_client_that_leaves_a_slow_request_is_not_worked_for(
    sim: ModelSim, client: Any
) -> None:
    sim.faults.set(parse_fault("slow:1:3600"))
    client.send("POST", "/v1/completions", {"prompt": "x"})
    await sim.until(lambda: sim.state.paths["/v1/completions"] == 1)

    await client.close()
    await sim.until(lambda: sim.state.outcomes["aborted"] == 1)

    assert sim.state.in_flight == 0


async def test_metrics_faults_leave_requests_alone(sim: ModelSim, client: Any) -> None:
    sim.faults.set(parse_fault("metrics-500"))
    error = await client.ask("GET", "/metrics")
    sim.faults.clear()
    sim.faults.set(parse_fault("metrics-garbage"))

    garbage = await client.ask("GET", "/metrics")
    served = await client.ask("POST", "/v1/completions", {"prompt": "x"})

    assert (error.status, garbage.status, served.status) == (500, 200, 200)
    assert garbage.headers["content-type"].startswith("text/plain")
    assert b"\x00\xff" in garbage.body


async def test_faults_are_set_and_cleared_by_the_admin(client: Any) -> None:
    answer = await client.ask("POST", "/admin/fault", {"fault": "500", "count": 2})
    faulty = [(await client.ask("GET", "/v1/models")).status for _ in range(3)]
    await client.ask("POST", "/admin/fault", {"fault": "hang"})

    cleared = await client.ask("DELETE", "/admin/fault")

    assert answer.json()["faults"] == [
        {"fault": "500", "probability": 1.0, "seconds": 1.0, "count": 2}
    ]
    assert faulty == [500, 500, 200]
    assert cleared.json() == {"faults": []}
    assert (await client.ask("GET", "/v1/models")).status == 200


async def test_the_admin_removes_one_fault_by_name(sim: ModelSim, client: Any) -> None:
    sim.faults.set(parse_fault("hang"))
    sim.faults.set(parse_fault("metrics-500"))

    await client.ask("DELETE", "/admin/fault?fault=hang")

    assert [fault.name for fault in sim.faults.active] == ["metrics-500"]


@pytest.mark.parametrize(
    ("body", "want"),
    [
        pytest.param(b"{", "body: is not JSON", id="no-json"),
        pytest.param({"fault": "explode"}, "fault: is none of hang", id="unknown"),
    ],
)
async def test_a_bad_fault_is_refused_with_field_and_value(
    client: Any, body: object, want: str
) -> None:
    reply = await client.ask("POST", "/admin/fault", body)

    assert reply.status == 400
    assert want in reply.json()["error"]


async def test_the_state_shows_what_reached_the_pod(client: Any) -> None:
    body = b'{"model": "tiny", "prompt": "x", "max_tokens": 1}'
    await client.ask(
        "POST",
        "/v1/completions",
        body,
        x_request_id="r-1",
        x_gateway_destination_endpoint="127.0.0.1:1",
        authorization="secret",
    )
    await client.ask("GET", "/metrics")

    state = (await client.ask("GET", "/admin/state")).json()

    (record,) = state["requests"]
    assert (state["name"], state["paths"]) == ("pod-a", {"/v1/completions": 1, "/metrics": 1})
    assert (record["method"], record["path"], record["model"]) == (
        "POST",
        "/v1/completions",
        "tiny",
    )
    assert record["headers"]["x-request-id"] == ["r-1"]
    assert record["headers"]["x-gateway-destination-endpoint"] == ["127.0.0.1:1"]
    assert "authorization" not in record["headers"]
    assert record["body_bytes"] == len(body)
    assert record["body_sha1"] == hashlib.sha1(body, usedforsecurity=False).hexdigest()
    assert state["engine"]["running"] == 0


async def test_the_request_id_of_the_client_names_the_reply(client: Any) -> None:
    reply = await client.ask("POST", "/v1/completions", {"prompt": "x"}, x_request_id="abc")

    assert reply.json()["id"] == "cmpl-abc"


async def test_only_the_newest_requests_are_remembered(sim: ModelSim, client: Any) -> None:
    for _ in range(1005):
        await client.ask("GET", "/v1/models")

    state = (await client.ask("GET", "/admin/state?limit=2")).json()

    assert len(sim.state.requests) == 1000
    assert [record["number"] for record in state["requests"]] == [1004, 1005]
    assert state["recorded"] == 1005


async def test_the_record_can_be_cleared(client: Any) -> None:
    await client.ask("GET", "/v1/models")

    state = (await client.ask("DELETE", "/admin/state")).json()

    assert (state["requests"], state["paths"], state["recorded"]) == ([], {}, 0)
    assert (await client.ask("GET", "/admin/state?limit=many")).status == 400


async def test_a_body_of_many_megabytes_is_served(start: StartSim, connect: Connect) -> None:
    engine = EngineSettings(num_gpu_blocks=200_000, speed=1e6, max_num_batched_tokens=1_000_000)
    client = await connect(await start(engine=engine))

    reply = await client.ask("POST", "/v1/completions", {"prompt": "word " * 1_200_000})

    assert reply.status == 200
    assert reply.json()["usage"]["prompt_tokens"] == 1_500_000


async def test_a_fleet_has_an_address_and_a_name_for_each_pod(connect: Connect) -> None:
    async with Fleet(SimOptions(host="127.0.1.1", port=0, count=3, name="pod")) as fleet:
        clients = [await connect(pod) for pod in fleet.pods]

        names = [(await one.ask("GET", "/health")).headers["x-sim-pod"] for one in clients]

        assert names == ["pod-0", "pod-1", "pod-2"]
        assert [pod.host for pod in fleet.pods] == ["127.0.1.1", "127.0.1.2", "127.0.1.3"]
        assert len({pod.port for pod in fleet.pods}) == 1


async def test_a_taken_port_is_named(sim: ModelSim) -> None:
    taken = ModelSim(SimOptions(port=sim.port))

    with pytest.raises(ConfigError, match=rf"--host/--port.*127.0.0.1:{sim.port}"):
        await taken.start()


async def test_a_fleet_that_cannot_start_leaves_nothing_behind(connect: Connect) -> None:
    async with ModelSim(SimOptions(host="127.0.1.2", port=0)) as sim:
        with pytest.raises(ConfigError, match="Address already in use"):
            await Fleet(SimOptions(host="127.0.1.1", port=sim.port, count=2)).start()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.1.1", sim.port)


async def test_a_fleet_needs_an_address() -> None:
    with pytest.raises(ConfigError, match="--host: must be an IP address"):
        await Fleet(SimOptions(host="localhost", count=2)).start()
