"""PickStream: a steady stream of requests over ext_proc, and which endpoint each one was sent to.

Open loop up to a limit: a request starts at its time, whatever became of those before it. No model
server takes part: the picks are what counts. Every exchange is finished as a gateway would.
"""

import asyncio
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import grpc.aio

from epp.testing.ext_proc_client import LEAN, ExtProcClient, ExtProcStream, set_headers
from epp.testing.stack import eventually

DESTINATION = "x-gateway-destination-endpoint"
REQUEST = {":method": "POST", ":path": "/v1/completions", "content-type": "application/json"}
CONNECTIONS = 4
MAX_RUNNING = 200
"""Limit of the open loop, for busy machines: more at once would measure the client."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pick:
    """What became of a request.

    Attributes:
        at: When it was sent, on the monotonic clock.
        seconds: How long the answer took.
        target: ``ip:port``; empty when there was none.
        problem: Why there was none.
    """

    at: float
    seconds: float
    target: str = ""
    problem: str = ""


class PickStream:
    """Sends requests for one model from entering the block to leaving it.

    Args:
        port: Of the EPP's ext_proc, without TLS.
        per_second: How many requests start in a second.
        model: Which model they name.

    Attributes:
        picks: Those that were answered or have failed, in the order of their ends.
    """

    def __init__(self, port: int, *, per_second: float = 50.0, model: str = "tiny") -> None:
        self.picks: list[Pick] = []
        self._port = port
        self._pause = 1.0 / per_second
        self._body = b'{"model":"%s","prompt":"x"}' % model.encode()
        self._clients: list[ExtProcClient] = []
        self._running: set[asyncio.Task[None]] = set()
        self._pace: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Begin to send."""
        self._clients = [ExtProcClient(self._port) for _ in range(CONNECTIONS)]
        self._pace = asyncio.create_task(self._send_on(), name="pick stream")
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _exc: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        """Send no more, and let what runs end."""
        if self._pace is not None:
            self._pace.cancel()
            await asyncio.wait((self._pace,))
        if self._running:
            await asyncio.wait(self._running)
        for client in self._clients:
            await client.close()

    @property
    def failures(self) -> Sequence[Pick]:
        """Requests without an endpoint."""
        return [pick for pick in self.picks if pick.problem]

    def targets_since(self, moment: float) -> set[str]:
        """Endpoints of the requests that were sent after a moment."""
        return {pick.target for pick in self.picks if pick.at > moment and pick.target}

    def late(self, gone: Mapping[str, float], *, seconds: float = 1.0) -> Sequence[Pick]:
        """Requests sent to an endpoint longer after its end than this.

        Args:
            gone: When each endpoint ended, by target, on the monotonic clock.
            seconds: What is allowed.
        """
        never = float("inf")
        return [pick for pick in self.picks if pick.at > gone.get(pick.target, never) + seconds]

    async def more(self, count: int) -> None:
        """Wait until so many more requests have ended."""
        wanted = len(self.picks) + count
        await eventually(lambda: len(self.picks) >= wanted, what=f"{count} more requests")

    async def reaches(self, targets: Collection[str]) -> None:
        """Wait until requests that are sent from now on have gone to exactly these endpoints."""
        now = time.monotonic()
        await eventually(
            lambda: self.targets_since(now) == set(targets), what=f"picks of {sorted(targets)}"
        )

    async def _send_on(self) -> None:
        loop = asyncio.get_running_loop()
        due, number = loop.time(), 0
        while True:
            client = self._clients[number % CONNECTIONS]
            task = asyncio.create_task(self._send(client), name=f"pick {number}")
            self._running.add(task)
            task.add_done_callback(self._running.discard)
            number += 1
            due = max(due + self._pause, loop.time())
            await asyncio.sleep(max(0.0, due - loop.time()))
            while len(self._running) >= MAX_RUNNING:
                await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)

    async def _send(self, client: ExtProcClient) -> None:
        at = time.monotonic()
        target = problem = ""
        try:
            async with client.exchange(LEAN) as stream:
                target = await self._ask(stream)
        except (EOFError, TimeoutError, grpc.aio.AioRpcError, asyncio.InvalidStateError) as exc:
            problem = f"{type(exc).__name__}: {exc}"
        seconds = time.monotonic() - at
        if not target:
            problem = problem or "answered without an endpoint"
        self.picks.append(Pick(at=at, seconds=seconds, target=target, problem=problem))

    async def _ask(self, stream: ExtProcStream) -> str:
        """The whole exchange; the endpoint of the request."""
        await stream.request_headers(REQUEST)
        await stream.request_body(self._body)
        target = ""
        for _ in range(2):
            answer = await stream.receive()
            target = target or set_headers(answer).get(DESTINATION, "")
            if answer.WhichOneof("response") == "immediate_response":
                return ""
        await stream.response_headers({":status": "200", "content-type": "application/json"})
        await stream.receive()
        await stream.half_close()
        await stream.receive_all()
        return target
