"""Clients of a gateway for end-to-end tests: one request, many, or a steady stream of them.

The stream is open-loop: a request starts at its time, whatever became of the others. Unless a
client keeps connections, each request has one of its own, so that every request is a new choice of
the Service.
"""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import aiohttp

from epp.errors import TransportError
from epp.testing.cluster import Address
from epp.testing.stack import eventually

DEADLINE_SECONDS = 20.0
MARK_HEADER = "x-went-into-resp-headers"
"""Of a reply that an EPP has seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What became of a request.

    Attributes:
        status: HTTP status; 0 when there was no whole answer.
        model: Model that the reply names.
        pod: Pod that served it.
        by_epp: An EPP has seen the reply.
        at: When the request began, on the monotonic clock.
        seconds: How long it took.
        text: The body, or why there was none.
    """

    status: int
    model: str = ""
    pod: str = ""
    by_epp: bool = False
    at: float = 0.0
    seconds: float = 0.0
    text: str = ""


class Client:
    """Sends completions.

    Args:
        address: Asked before every request.
        keep_connections: Stay with one address and its connections, as most clients do, until the
            server closes one; otherwise each request has a connection of its own.
    """

    def __init__(self, address: Callable[[], Address], *, keep_connections: bool = False) -> None:
        self._address = address
        self._keep = keep_connections
        self._kept: Address | None = None
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        """Open, in the running event loop."""
        connector = aiohttp.TCPConnector(limit=0, force_close=not self._keep)
        timeout = aiohttp.ClientTimeout(total=DEADLINE_SECONDS)
        self._session = aiohttp.ClientSession(connector=connector, timeout=timeout)
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _exc: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        """Close what is open."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def ask(
        self,
        model: str,
        *,
        tokens: int = 1,
        stream: bool = False,
        begun: asyncio.Event | None = None,
    ) -> Answer:
        """Send one completion and read the whole reply.

        Args:
            model: Its model.
            tokens: How many to generate.
            stream: As server-sent events.
            begun: Set when the reply has begun.
        """
        if self._session is None:
            raise RuntimeError("Client is used outside of `async with`")
        began = time.monotonic()
        body = {"model": model, "prompt": "hello", "max_tokens": tokens, "stream": stream}
        try:
            host, port = self._next_address()
            url = f"http://{host}:{port}/v1/completions"
            async with self._session.post(url, json=body) as reply:
                if begun is not None:
                    begun.set()
                if reply.headers.get("connection") == "close":
                    self._kept = None
                text = await reply.text()
                named = "" if stream else await _model_of(reply)
                return Answer(
                    status=reply.status,
                    model=named,
                    pod=reply.headers.get("x-sim-pod", ""),
                    by_epp=MARK_HEADER in reply.headers,
                    at=began,
                    seconds=time.monotonic() - began,
                    text=text,
                )
        except (aiohttp.ClientError, OSError, TimeoutError, TransportError) as exc:
            self._kept = None
            text = f"{type(exc).__name__}: {exc}"
            return Answer(status=0, at=began, seconds=time.monotonic() - began, text=text)

    def _next_address(self) -> Address:
        if self._kept is not None:
            return self._kept
        address = self._address()
        if self._keep:
            self._kept = address
        return address

    async def ask_many(self, model: str, count: int, *, at_once: int = 16) -> list[Answer]:
        """Send ``count`` completions, ``at_once`` of them at a time."""
        answers: list[Answer] = []
        left = iter(range(count))

        async def send() -> None:
            for _ in left:
                answers.append(await self.ask(model))  # noqa: PERF401 (shared by all of them)

        await asyncio.gather(*(send() for _ in range(at_once)))
        return answers


class Traffic:
    """A steady stream of requests while a block runs.

    Args:
        client: Sends them.
        model: Of every request.
        rate: Requests a second.

    Attributes:
        answers: In the order in which they came.
    """

    def __init__(self, client: Client, model: str, *, rate: float = 40.0) -> None:
        self.answers: list[Answer] = []
        self._client = client
        self._model = model
        self._rate = rate
        self._task: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()

    @property
    def lost(self) -> list[Answer]:
        """Requests that were not served."""
        return [answer for answer in self.answers if answer.status != 200]

    def since(self, moment: float) -> Sequence[Answer]:
        """Answers to requests that began after a moment of the monotonic clock."""
        return [answer for answer in self.answers if answer.at >= moment]

    def pods(self, moment: float = 0.0) -> Counter[str]:
        """Requests served by each pod."""
        return Counter(a.pod for a in self.since(moment) if a.status == 200)

    async def more(self, count: int, *, seconds: float = DEADLINE_SECONDS) -> float:
        """Wait until ``count`` requests that begin from now on are answered; return now."""
        moment = time.monotonic()
        await eventually(
            lambda: len(self.since(moment)) >= count, seconds=seconds, what=f"{count} more answers"
        )
        return moment

    async def __aenter__(self) -> Self:
        """Begin."""
        self._task = asyncio.create_task(self._send(), name="traffic")
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _exc: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        """Stop sending, and wait for what is under way."""
        self._stopping.set()
        if self._task is not None:
            await self._task

    async def _send(self) -> None:
        began = time.monotonic()
        number = 0
        async with asyncio.TaskGroup() as group:
            while not self._stopping.is_set():
                number += 1
                group.create_task(self._one(), name="request")
                pause = began + number / self._rate - time.monotonic()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), max(0.0, pause))

    async def _one(self) -> None:
        self.answers.append(await self._client.ask(self._model))


async def _model_of(reply: aiohttp.ClientResponse) -> str:
    try:
        document = await reply.json(content_type=None)
    except ValueError:
        return ""
    return str(document.get("model", "")) if isinstance(document, dict) else ""
