"""The admin endpoints of a simulated pod: faults at run time, and what reached it.

``GET|POST|DELETE /admin/fault`` and ``GET|DELETE /admin/state``. Never hit by a fault.
"""

from typing import Any

import orjson

from epp.errors import ConfigError
from epp.logs import get_logger
from epp.modelsim.engine import Engine
from epp.modelsim.faults import FaultBoard, fault_from_json
from epp.modelsim.http_message import HttpRequest, Responder
from epp.modelsim.sim_state import MAX_RECORDS, SimState

log = get_logger(__name__)


class Admin:
    """Handles ``/admin/``; everything it shows and changes belongs to others."""

    def __init__(self, name: str, *, state: SimState, faults: FaultBoard, engine: Engine) -> None:
        self._name = name
        self._state = state
        self._faults = faults
        self._engine = engine

    def handle(self, request: HttpRequest, responder: Responder) -> None:
        """Answer a request; every error names field and value."""
        try:
            match request.method, request.path:
                case "GET", "/admin/state":
                    document = self._state_document(request)
                case "DELETE", "/admin/state":
                    self._state.clear()
                    document = self._state_document(request)
                case "GET", "/admin/fault":
                    document = self._fault_document()
                case "POST", "/admin/fault":
                    self._set_fault(request.body)
                    document = self._fault_document()
                case "DELETE", "/admin/fault":
                    self._clear_fault(request)
                    document = self._fault_document()
                case _:
                    responder.send(404, _json({"error": "no such admin endpoint"}))
                    return
        except ConfigError as exc:
            responder.send(400, _json({"error": str(exc)}))
            return
        responder.send(200, _json(document))

    def _set_fault(self, body: bytes) -> None:
        try:
            document = orjson.loads(body)
        except orjson.JSONDecodeError as exc:
            raise ConfigError(f"is not JSON: {exc}", field="body") from exc
        fault = fault_from_json(document)
        self._faults.set(fault)
        log.info("fault set", pod=self._name, fault=fault.name, probability=fault.probability)

    def _clear_fault(self, request: HttpRequest) -> None:
        names = request.query_values("fault") or (None,)
        for name in names:
            self._faults.clear(name)
        log.info("fault cleared", pod=self._name, fault=names[0] or "all")

    def _fault_document(self) -> dict[str, Any]:
        return {
            "faults": [
                {
                    "fault": fault.name,
                    "probability": fault.probability,
                    "seconds": fault.seconds,
                    "count": fault.count,
                }
                for fault in self._faults.active
            ]
        }

    def _state_document(self, request: HttpRequest) -> dict[str, Any]:
        model = self._engine.model
        return {
            "name": self._name,
            **self._fault_document(),
            "engine": {
                "running": model.num_running,
                "waiting": model.num_waiting,
                "kv_usage_ratio": model.cache.usage_ratio,
                "used_blocks": model.cache.used_blocks,
                "idle_blocks": model.cache.idle_blocks,
                "running_adapters": model.adapters.running,
                "loaded_adapters": model.adapters.loaded,
            },
            **self._state.document(_limit(request)),
        }


def _limit(request: HttpRequest) -> int:
    """Return how many records were asked for: ``?limit=N``, all of them by default."""
    asked = request.query_values("limit")
    if not asked:
        return MAX_RECORDS
    if not (asked[0].isascii() and asked[0].isdigit() and len(asked[0]) < 10):
        raise ConfigError("is not a number below 10 digits", field="limit", value=asked[0])
    return int(asked[0])


def _json(document: dict[str, Any]) -> bytes:
    return orjson.dumps(document, option=orjson.OPT_INDENT_2)
