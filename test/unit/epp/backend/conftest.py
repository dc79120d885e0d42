"""Recorded pages and a scripted model server, for the tests of scraping."""

import asyncio
import gzip
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import uvloop

_RECORDINGS = Path(__file__).parents[3] / "testdata/metrics/vllm-0.32"

_LOOP_FACTORIES: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}
_NETWORK_TESTS = frozenset({"test_metrics_client", "test_collector"})


@pytest.hookimpl(optionalhook=True)
def pytest_asyncio_loop_factories(
    item: pytest.Item,
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Tests that use the network run on both event loops."""
    if item.path.stem in _NETWORK_TESTS:
        return _LOOP_FACTORIES
    return {"asyncio": asyncio.new_event_loop}


Answer = Callable[[str, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture(scope="session")
def recorded_page() -> Callable[[str], bytes]:
    """A page of a real vLLM 0.32: idle, load-a, load-b or after-load."""

    def read(name: str) -> bytes:
        return gzip.decompress((_RECORDINGS / f"metrics-{name}.txt.gz").read_bytes())

    return read


class ScriptedServer:
    """A real HTTP server on loopback that answers as the test says.

    Attributes:
        answer: Writes the answer to a request target; closing the writer ends the connection.
        targets: Request targets, in order of arrival.
        heads: Request heads, in order of arrival.
        accepted: Connections so far.
    """

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.targets: list[str] = []
        self.heads: list[bytes] = []
        self.accepted = 0
        self.port = 0
        self.all_closed = asyncio.Event()
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    async def start(self, host: str, tls: ssl.SSLContext | None, port: int) -> None:
        self._server = await asyncio.start_server(self._serve, host, port, ssl=tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop listening and reset every connection."""
        if self._server is not None:
            self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        if self._writers:
            await self.all_closed.wait()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self._writers.add(writer)
        self.all_closed.clear()
        try:
            while not writer.is_closing():
                head = await reader.readuntil(b"\r\n\r\n")
                self.heads.append(head)
                self.targets.append(head.split(b" ")[1].decode())
                await self.answer(self.targets[-1], writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            self._writers.discard(writer)
            if not self._writers:
                self.all_closed.set()


@pytest.fixture
async def scripted_server() -> AsyncIterator[Callable[..., Awaitable[ScriptedServer]]]:
    """Start servers: ``await scripted_server(answer, host=..., tls=..., port=...)``."""
    servers: list[ScriptedServer] = []

    async def start(
        answer: Answer,
        *,
        host: str = "127.0.0.1",
        tls: ssl.SSLContext | None = None,
        port: int = 0,
    ) -> ScriptedServer:
        server = ScriptedServer(answer)
        await server.start(host, tls, port)
        servers.append(server)
        return server

    yield start
    for server in servers:
        await server.stop()
