"""The endpoints of a simulated pod: routing, faults, and the record of what arrived.

Owner of nothing but the routes; the engine, the metrics and the state belong to ``ModelSim``.
"""

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import orjson

from epp.modelsim.admin import Admin
from epp.modelsim.engine import Engine
from epp.modelsim.faults import Fault, FaultBoard, FaultKind, FaultTarget
from epp.modelsim.generation import Generation, plan_sequences
from epp.modelsim.http_message import HttpRequest, Responder
from epp.modelsim.metrics_page import CONTENT_TYPE
from epp.modelsim.openai_reply import ReplyHead
from epp.modelsim.openai_request import Api, ApiError, decode, model_of, parse
from epp.modelsim.options import SimOptions
from epp.modelsim.sim_state import SimState
from epp.modelsim.vllm_metrics import VllmMetrics

_APIS = {api.value: api for api in Api}
_GARBAGE = (
    b"\x00\xff# TYPE vllm:num_requests_waiting\nvllm:num_requests_waiting{engine= NaN x\n}{ 7"
)
_NOT_FOUND = b'{"detail":"Not Found"}'
_WRONG_METHOD = b'{"detail":"Method Not Allowed"}'

_FINAL_FAULTS = frozenset({FaultKind.HANG, FaultKind.ERROR, FaultKind.RESET})

_Answer = Callable[[], None]


class App:
    """Handles every request of one pod."""

    def __init__(
        self,
        options: SimOptions,
        *,
        engine: Engine,
        metrics: VllmMetrics,
        state: SimState,
        faults: FaultBoard,
        changed: Callable[[], None],
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
    ) -> None:
        self._options = options
        self._engine = engine
        self._metrics = metrics
        self._state = state
        self._faults = faults
        self._changed = changed
        self._clock = clock
        self._wall_clock = wall_clock
        self._started_at = int(wall_clock())
        self._request_ids = 0
        self._admin = Admin(options.name, state=state, faults=faults, engine=engine)
        self._get_routes: dict[str, tuple[FaultTarget, Callable[[HttpRequest, Responder], None]]]
        self._get_routes = {
            "/metrics": (FaultTarget.METRICS, self._serve_metrics),
            "/health": (FaultTarget.HEALTH, self._serve_health),
            "/load": (FaultTarget.HEALTH, self._serve_load),
            "/v1/models": (FaultTarget.REQUESTS, self._serve_models),
        }

    def handle(self, request: HttpRequest, responder: Responder) -> None:
        """Answer a request, now or later."""
        if request.path.startswith("/admin/"):
            self._admin.handle(request, responder)
        elif request.path in _APIS:
            self._handle_api(_APIS[request.path], request, responder)
        else:
            self._handle_get(request, responder)
        self._changed()

    def _handle_get(self, request: HttpRequest, responder: Responder) -> None:
        route = self._get_routes.get(request.path)
        self._state.paths[request.path if route else "other"] += 1
        responder.on_finished = partial(self._count_status, responder)
        if route is None:
            responder.send(404, _NOT_FOUND)
            return
        if request.method != "GET":
            responder.send(405, _WRONG_METHOD, headers=(("allow", "GET"),))
            return
        target, serve = route
        if target is FaultTarget.REQUESTS:
            self._observe(request, responder)  # instead of counting the status alone
            self._state.record(request, None)
        self._strike(self._faults.draw(target), responder, partial(serve, request, responder))

    def _handle_api(self, api: Api, request: HttpRequest, responder: Responder) -> None:
        self._state.paths[request.path] += 1
        self._observe(request, responder)
        if request.method != "POST":
            responder.send(405, _WRONG_METHOD, headers=(("allow", "POST"),))
            return
        document, model, error = _read(request.body)
        self._state.record(request, model)
        fault = self._faults.draw(FaultTarget.REQUESTS)
        if fault is not None and fault.kind in _FINAL_FAULTS:
            self._state.outcomes["faulted"] += 1
        cut = fault is not None and fault.kind is FaultKind.CUT
        if error is None:
            answer = partial(self._run, api, document, request, responder, cut=cut)
        else:
            answer = partial(self._refuse, responder, error)
        self._strike(fault, responder, answer)

    def _run(
        self,
        api: Api,
        document: Mapping[str, Any],
        request: HttpRequest,
        responder: Responder,
        *,
        cut: bool,
    ) -> None:
        engine = self._options.engine
        try:
            parsed = parse(api, document)
            model, adapter = self._resolve(parsed.model)
            sequences = plan_sequences(
                parsed,
                adapter=adapter,
                block_size=engine.block_size,
                capacity_tokens=engine.capacity_tokens,
            )
        except ApiError as exc:
            self._refuse(responder, exc)
            return
        head = ReplyHead(
            request_id=request.header("x-request-id") or self._new_id(),
            created=int(self._wall_clock()),
            model=model,
        )
        self._metrics.request_parameters(choices=parsed.choices, max_tokens=parsed.output_tokens)
        self._state.in_flight += 1
        generation = Generation(parsed, sequences, head, responder, on_end=self._ended, cut=cut)
        generation.start(self._engine)

    def _resolve(self, name: str | None) -> tuple[str, str | None]:
        """Return the model to name in the reply, and the adapter to run it with."""
        names = self._options.model_names
        if name is None or name in names:
            return name or names[0], None
        if name in self._options.loras:
            return name, name
        raise ApiError(
            f"The model `{name}` does not exist. Valid aliases: {', '.join(names)}.",
            status=404,
            kind="NotFoundError",
            param="model",
        )

    def _refuse(self, responder: Responder, error: ApiError) -> None:
        self._state.outcomes["refused"] += 1
        responder.send(error.status, error.body())

    def _ended(self, outcome: str) -> None:
        self._state.in_flight -= 1
        self._state.outcomes[outcome] += 1
        self._changed()

    def _new_id(self) -> str:
        self._request_ids += 1
        return f"{self._options.name}-{self._request_ids}"

    def _strike(self, fault: Fault | None, responder: Responder, answer: _Answer) -> None:
        """Do what the fault says instead of, or before, answering."""
        match fault.kind if fault is not None else None:
            case None | FaultKind.CUT:
                answer()
            case FaultKind.HANG:
                pass
            case FaultKind.ERROR:
                error = ApiError("A fault was asked for.", status=500, kind="InternalServerError")
                responder.send(500, error.body())
            case FaultKind.RESET:
                responder.reset()
            case FaultKind.GARBAGE:
                responder.send(200, _GARBAGE, content_type=CONTENT_TYPE)
            case FaultKind.SLOW:
                assert fault is not None  # noqa: S101 - the match is on its kind
                timer = asyncio.get_running_loop().call_later(fault.seconds, answer)
                responder.on_disconnect = partial(self._gave_up, timer, fault.target)

    def _gave_up(self, timer: asyncio.TimerHandle, target: FaultTarget) -> None:
        timer.cancel()
        if target is FaultTarget.REQUESTS:
            self._state.outcomes["aborted"] += 1
        self._changed()

    def _serve_metrics(self, request: HttpRequest, responder: Responder) -> None:
        names: frozenset[str] | None = None
        if self._options.honour_name_param:
            names = frozenset(request.query_values("name[]")) or None
        page = self._metrics.render(names)
        responder.send(200, page, content_type=CONTENT_TYPE, headers=(("vary", "Origin"),))

    def _serve_health(self, _request: HttpRequest, responder: Responder) -> None:
        responder.send(200, b"")

    def _serve_load(self, _request: HttpRequest, responder: Responder) -> None:
        responder.send(200, orjson.dumps({"server_load": self._state.in_flight}))

    def _serve_models(self, _request: HttpRequest, responder: Responder) -> None:
        names = self._options.model_names
        cards = [self._card(name, root=self._options.model, parent=None) for name in names]
        cards += [self._card(name, root=name, parent=names[0]) for name in self._options.loras]
        responder.send(200, orjson.dumps({"object": "list", "data": cards}))

    def _card(self, name: str, *, root: str, parent: str | None) -> dict[str, Any]:
        return {
            "id": name,
            "object": "model",
            "created": self._started_at,
            "owned_by": "vllm",
            "root": root,
            "parent": parent,
            "max_model_len": self._options.engine.capacity_tokens,
        }

    def _observe(self, request: HttpRequest, responder: Responder) -> None:
        """Count the reply in state and metrics once it is complete."""
        responder.on_finished = partial(self._finished, request, responder, self._clock())

    def _finished(self, request: HttpRequest, responder: Responder, arrived_at: float) -> None:
        self._count_status(responder)
        self._metrics.http_finished(
            path=request.path,
            method=request.method,
            status=responder.status,
            seconds=self._clock() - arrived_at,
            received=len(request.body),
            sent=responder.sent_bytes,
        )

    def _count_status(self, responder: Responder) -> None:
        self._state.statuses[responder.status] += 1


def _read(body: bytes) -> tuple[Mapping[str, Any], str | None, ApiError | None]:
    """Decode a body as far as it goes: document, model, and what is wrong with it."""
    try:
        document = decode(body)
        return document, model_of(document), None
    except ApiError as exc:
        return {}, None, exc
