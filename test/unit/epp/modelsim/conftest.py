"""Simulated pods on free ports, and a plain HTTP client to ask them with."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from typing import Any

import pytest

from epp.modelsim.model_sim import ModelSim
from epp.modelsim.options import SimOptions
from epp.modelsim.step_model import EngineSettings

FAST = EngineSettings(speed=1000.0)

StartSim = Callable[..., Awaitable[ModelSim]]


@dataclass
class Reply:
    """An answer, read whole."""

    status: int
    headers: dict[str, str]
    body: bytes
    chunks: list[bytes] = field(default_factory=list)

    def json(self) -> Any:
        return json.loads(self.body)

    def events(self) -> list[Any]:
        """Return the data of the server-sent events, decoded where they are JSON."""
        data = [block.partition(b"data: ")[2] for block in self.body.split(b"\n\n") if block]
        return [text.decode() if text == b"[DONE]" else json.loads(text) for text in data]


class Client:
    """One keep-alive connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def ask(self, method: str, path: str, body: object = None, **headers: str) -> Reply:
        self.send(method, path, body, **headers)
        return await self.read()

    def send(self, method: str, path: str, body: object = None, **headers: str) -> None:
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body)
        raw = data if isinstance(data, bytes) else data.encode()
        lines = [f"{method} {path} HTTP/1.1", "host: sim", f"content-length: {len(raw)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.writer.write("\r\n".join([*lines, "", ""]).encode() + raw)

    async def read(self) -> Reply:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.strip().split("\r\n")
        pairs = [(name, value) for name, _, value in (line.partition(": ") for line in lines)]
        headers = dict(pairs)
        reply = Reply(int(first.split()[1]), headers, b"")
        if headers.get("transfer-encoding") == "chunked":
            await self._read_chunks(reply)
        else:
            reply.body = await self.reader.readexactly(int(headers.get("content-length", 0)))
        return reply

    async def _read_chunks(self, reply: Reply) -> None:
        while size := int(await self.reader.readline(), 16):
            reply.chunks.append(await self.reader.readexactly(size))
            await self.reader.readexactly(2)
        await self.reader.readexactly(2)
        reply.body = b"".join(reply.chunks)

    async def close(self) -> None:
        self.writer.close()
        with suppress(ConnectionError):
            await self.writer.wait_closed()


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
def start(stack: AsyncExitStack) -> StartSim:
    """Start a pod with these options; it is fast and on a free port unless they say otherwise."""

    async def start_sim(**options: Any) -> ModelSim:
        chosen = {"port": 0, "name": "pod-a", "engine": FAST, **options}
        return await stack.enter_async_context(ModelSim(SimOptions(**chosen)))

    return start_sim


@pytest.fixture
def connect(stack: AsyncExitStack) -> Callable[[ModelSim], Awaitable[Client]]:
    """Open a connection to a pod."""

    async def open_client(sim: ModelSim) -> Client:
        client = Client(*await asyncio.open_connection(sim.host, sim.port))
        stack.push_async_callback(client.close)
        return client

    return open_client
