"""A simulated pod, and a row of them: construction, start, stop.

``async with ModelSim(options) as sim: sim.url`` for one, ``Fleet`` for ``options.count`` of them on
consecutive addresses with one port. Each pod owns its engine, metrics, faults, record and socket.
"""

import asyncio
import errno
import ipaddress
import os
import random
import time
from collections.abc import Callable
from dataclasses import replace
from types import TracebackType
from typing import Self

from epp.errors import ConfigError
from epp.modelsim.app import App
from epp.modelsim.changes import Changes, Condition
from epp.modelsim.engine import Engine
from epp.modelsim.faults import FaultBoard
from epp.modelsim.http_server import HttpServer
from epp.modelsim.options import SimOptions
from epp.modelsim.sim_state import SimState
from epp.modelsim.step_model import StepModel
from epp.modelsim.vllm_metrics import VllmMetrics

_PORT_ATTEMPTS = 10
"""Free ports tried until one is free on every address of a fleet."""


class ModelSim:
    """One pod.

    Attributes:
        options: What it was asked to do.
        state: What reached it.
        faults: Its active faults.
        model: Its engine's state.
        metrics: Its metrics.
    """

    def __init__(
        self,
        options: SimOptions,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        source: random.Random | None = None,
    ) -> None:
        self.options = options
        self.state = SimState()
        self.faults = FaultBoard(options.faults, source or random.Random())
        self.model = StepModel(options.engine)
        self.metrics = VllmMetrics(
            self.model,
            model_name=options.model_names[0],
            has_loras=bool(options.loras),
            page_bytes=options.metrics_page_kb * 1000,
            wall_clock=wall_clock,
        )
        self._changes = Changes()
        self._engine = Engine(self.model, self.metrics, clock=clock, changed=self._changes.announce)
        app = App(
            options,
            engine=self._engine,
            metrics=self.metrics,
            state=self.state,
            faults=self.faults,
            changed=self._changes.announce,
            clock=clock,
            wall_clock=wall_clock,
        )
        self._server = HttpServer(
            app.handle,
            max_body_bytes=options.max_body_bytes,
            response_headers=(("server", "epp-modelsim"), ("x-sim-pod", options.name)),
        )
        self._address = (options.host, options.port)

    @property
    def name(self) -> str:
        """Pod name, as in ``x-sim-pod``."""
        return self.options.name

    @property
    def host(self) -> str:
        """Address that it listens on."""
        return self._address[0]

    @property
    def port(self) -> int:
        """Port; the chosen one once it has started."""
        return self._address[1]

    @property
    def url(self) -> str:
        """Base URL, without a slash at the end."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    async def until(self, condition: Condition, *, deadline_seconds: float = 10.0) -> None:
        """Wait until a condition on ``state``, ``model`` or ``faults`` is true.

        Raises:
            TimeoutError: It did not come true in time.
        """
        await self._changes.until(condition, deadline_seconds=deadline_seconds)

    async def start(self) -> None:
        """Listen. Raises ConfigError when the address cannot be used."""
        host, port = self.options.host, self.options.port
        try:
            self._address = await self._server.start(host, port)
        except OSError as exc:
            # A name that does not resolve has a negative number of another kind.
            reason = os.strerror(exc.errno) if exc.errno and exc.errno > 0 else str(exc)
            raise ConfigError(
                f"cannot listen: {reason}", source="--host/--port", value=f"{host}:{port}"
            ) from exc

    async def stop(self, drain_seconds: float = 0.0) -> None:
        """Stop listening, let requests in work finish for a while, then drop the rest."""
        await self._server.stop(drain_seconds)
        self._engine.stop()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()


class Fleet:
    """``options.count`` pods in one process, on consecutive addresses and the same port."""

    def __init__(self, options: SimOptions) -> None:
        self._options = options
        self.pods: tuple[ModelSim, ...] = ()

    async def start(self) -> None:
        """Start every pod or none. Raises ConfigError when an address cannot be used."""
        for attempt in range(1, _PORT_ATTEMPTS + 1):
            try:
                self.pods = await self._start_all()
                return
            except ConfigError as exc:
                # A port that is free on the first address may be taken on another one.
                if self._options.port or not _is_taken(exc) or attempt == _PORT_ATTEMPTS:
                    raise

    async def stop(self, drain_seconds: float = 0.0) -> None:
        """Stop every pod, all draining at the same time."""
        await asyncio.gather(*(pod.stop(drain_seconds) for pod in self.pods))

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    async def _start_all(self) -> tuple[ModelSim, ...]:
        started: list[ModelSim] = []
        port = self._options.port
        try:
            for options in pod_options(self._options):
                pod = ModelSim(replace(options, port=port))
                await pod.start()
                started.append(pod)
                port = pod.port
        except ConfigError:
            for pod in started:
                await pod.stop()
            raise
        return tuple(started)


def pod_options(options: SimOptions) -> list[SimOptions]:
    """Return the options of each pod: its own address and name.

    Raises:
        ConfigError: Several pods, but the host is a name rather than an address.
    """
    if options.count == 1:
        return [options]
    try:
        first = ipaddress.ip_address(options.host)
        addresses = [str(first + index) for index in range(options.count)]
    except ValueError as exc:
        raise ConfigError(
            "must be an IP address with --count", source="--host", value=options.host
        ) from exc
    return [
        replace(options, host=address, name=f"{options.name}-{index}", count=1)
        for index, address in enumerate(addresses)
    ]


def _is_taken(error: ConfigError) -> bool:
    cause = error.__cause__
    return isinstance(cause, OSError) and cause.errno == errno.EADDRINUSE
