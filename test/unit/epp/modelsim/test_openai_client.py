"""The client that users have, against a simulated pod."""

from collections.abc import AsyncIterator, Awaitable, Callable

import openai
import pytest

from epp.modelsim.model_sim import ModelSim

StartSim = Callable[..., Awaitable[ModelSim]]


@pytest.fixture
async def client(start: StartSim) -> AsyncIterator[openai.AsyncOpenAI]:
    sim = await start(model="tiny")
    async with openai.AsyncOpenAI(
        base_url=f"{sim.url}/v1", api_key="none", max_retries=0, timeout=10
    ) as client:
        yield client


async def test_chat(client: openai.AsyncOpenAI) -> None:
    reply = await client.chat.completions.create(
        model="tiny", messages=[{"role": "user", "content": "hello"}], max_completion_tokens=4
    )

    text = reply.choices[0].message.content
    assert text is not None
    assert len(text.split()) == 4
    assert reply.choices[0].finish_reason == "length"
    assert reply.usage is not None
    assert reply.usage.completion_tokens == 4


async def test_streamed_chat(client: openai.AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model="tiny",
        messages=[{"role": "user", "content": "hello"}],
        max_tokens=4,
        stream=True,
        stream_options={"include_usage": True},
    )

    chunks = [chunk async for chunk in stream]

    assert chunks[0].choices[0].delta.content == ""
    assert len(chunks) == 6
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 4


async def test_completion(client: openai.AsyncOpenAI) -> None:
    reply = await client.completions.create(model="tiny", prompt="hello", max_tokens=3)

    assert len(reply.choices[0].text.split()) == 3


async def test_streamed_completion(client: openai.AsyncOpenAI) -> None:
    stream = await client.completions.create(
        model="tiny", prompt="hello", max_tokens=3, stream=True
    )

    reasons = [chunk.choices[0].finish_reason async for chunk in stream]

    assert reasons == [None, None, "length"]


async def test_embeddings(client: openai.AsyncOpenAI) -> None:
    reply = await client.embeddings.create(model="tiny", input=["one", "two"], dimensions=5)

    assert [len(item.embedding) for item in reply.data] == [5, 5]
    assert reply.usage.prompt_tokens == 2


async def test_response(client: openai.AsyncOpenAI) -> None:
    reply = await client.responses.create(model="tiny", input="hello", max_output_tokens=3)

    assert len(reply.output_text.split()) == 3
    assert reply.usage is not None
    assert reply.usage.output_tokens == 3


async def test_streamed_response(client: openai.AsyncOpenAI) -> None:
    async with client.responses.stream(model="tiny", input="hello", max_output_tokens=3) as stream:
        types = [event.type async for event in stream]

    assert types[0] == "response.created"
    assert types.count("response.output_text.delta") == 3
    assert types[-1] == "response.completed"


async def test_models(client: openai.AsyncOpenAI) -> None:
    assert [model.id async for model in client.models.list()] == ["tiny"]


async def test_an_unknown_model_raises_not_found(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        await client.completions.create(model="nope", prompt="x")

    assert caught.value.param == "model"
    assert "`nope` does not exist" in caught.value.message
