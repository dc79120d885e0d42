"""Faults on request: what goes wrong, where, how often.

A fault is written ``[TARGET-]KIND[:PROBABILITY[:SECONDS]]``: ``500``, ``slow:0.1:2``,
``metrics-hang``. Owner of the active faults; draws come from an injected random source.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from epp.errors import ConfigError


class FaultTarget(StrEnum):
    """Which paths a fault hits; the admin endpoints are never hit."""

    REQUESTS = "requests"
    METRICS = "metrics"
    HEALTH = "health"


class FaultKind(StrEnum):
    """What happens to a request that is hit."""

    HANG = "hang"
    """It is read and never answered."""
    ERROR = "500"
    """It gets a 500."""
    SLOW = "slow"
    """It is handled after a delay."""
    RESET = "reset"
    """Its connection is reset."""
    CUT = "cut"
    """Its connection is reset after the first token."""
    GARBAGE = "garbage"
    """It gets a 200 with a body that is no metrics page."""


DEFAULT_SLOW_SECONDS = 1.0

_ALLOWED = {
    FaultTarget.REQUESTS: frozenset(FaultKind) - {FaultKind.GARBAGE},
    FaultTarget.METRICS: frozenset(FaultKind) - {FaultKind.CUT},
    FaultTarget.HEALTH: frozenset(FaultKind) - {FaultKind.CUT, FaultKind.GARBAGE},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One fault.

    Attributes:
        target: Paths that it hits.
        kind: What it does.
        probability: Share of the requests that it hits, 0 to 1.
        seconds: Delay of ``slow``.
        count: Hits after which it is spent; None for never.
    """

    target: FaultTarget = FaultTarget.REQUESTS
    kind: FaultKind
    probability: float = 1.0
    seconds: float = DEFAULT_SLOW_SECONDS
    count: int | None = None

    @property
    def name(self) -> str:
        """The word it is asked for with."""
        prefix = "" if self.target is FaultTarget.REQUESTS else f"{self.target}-"
        return f"{prefix}{self.kind}"

    def __post_init__(self) -> None:
        """Raise ConfigError for values outside their range."""
        if not 0 <= self.probability <= 1:
            raise ConfigError(
                "must be between 0 and 1", field="probability", value=self.probability
            )
        if not 0 <= self.seconds <= 3600:
            raise ConfigError("must be between 0 and 3600", field="seconds", value=self.seconds)
        if self.count is not None and self.count < 1:
            raise ConfigError("must be at least 1", field="count", value=self.count)


def parse_fault(text: str) -> Fault:
    """Read a fault as it is written on the command line.

    Raises:
        ConfigError: Unknown word, or a number that is none.
    """
    name, *numbers = text.split(":")
    if len(numbers) > 2:
        raise ConfigError("is not KIND[:PROBABILITY[:SECONDS]]", field="fault", value=text)
    target, kind = _parse_name(name)
    if len(numbers) == 2 and kind is not FaultKind.SLOW:
        raise ConfigError("only slow kinds take SECONDS", field="fault", value=text)
    fault = Fault(target=target, kind=kind)
    if numbers:
        fault = replace(fault, probability=_number("probability", numbers[0]))
    if len(numbers) == 2:
        fault = replace(fault, seconds=_number("seconds", numbers[1]))
    return fault


def fault_from_json(document: object) -> Fault:
    """Read a fault as it is posted: ``{"fault": "slow", "probability": 0.5, "count": 3}``.

    Raises:
        ConfigError: Not an object, an unknown key, or a value that cannot be used.
    """
    if not isinstance(document, Mapping) or not isinstance(document.get("fault"), str):
        raise ConfigError('needs {"fault": "KIND"}', field="fault", value=document)
    unknown = set(document) - {"fault", "probability", "seconds", "count"}
    if unknown:
        raise ConfigError("unknown field", field=str(min(unknown)))
    fault = parse_fault(document["fault"])
    changes: dict[str, Any] = {
        key: _number(key, document[key]) for key in ("probability", "seconds") if key in document
    }
    if document.get("count") is not None:
        if type(document["count"]) is not int:
            raise ConfigError("is not a whole number", field="count", value=document["count"])
        changes["count"] = document["count"]
    return replace(fault, **changes)


class FaultBoard:
    """The active faults. A later one of the same name replaces the earlier one."""

    def __init__(self, faults: tuple[Fault, ...], source: random.Random) -> None:
        self._source = source
        self._active: dict[str, Fault] = {}
        for fault in faults:
            self.set(fault)

    @property
    def active(self) -> tuple[Fault, ...]:
        """Every fault that may still hit."""
        return tuple(self._active.values())

    def set(self, fault: Fault) -> None:
        """Add or replace a fault."""
        self._active[fault.name] = fault

    def clear(self, name: str | None = None) -> None:
        """Remove the fault of this name, or all of them."""
        if name is None:
            self._active.clear()
        else:
            self._active.pop(name, None)

    def draw(self, target: FaultTarget) -> Fault | None:
        """Decide the fate of one request; the first fault that hits counts."""
        for name, fault in self._active.items():
            if fault.target is not target or self._source.random() >= fault.probability:
                continue
            if fault.count is not None:
                self._use_up(name, fault, fault.count)
            return fault
        return None

    def _use_up(self, name: str, fault: Fault, count: int) -> None:
        if count == 1:
            del self._active[name]
        else:
            self._active[name] = replace(fault, count=count - 1)


def _parse_name(name: str) -> tuple[FaultTarget, FaultKind]:
    for target in FaultTarget:
        prefix = "" if target is FaultTarget.REQUESTS else f"{target}-"
        for kind in _ALLOWED[target]:
            if name == f"{prefix}{kind}":
                return target, kind
    raise ConfigError(f"is none of {', '.join(fault_names())}", field="fault", value=name)


def fault_names() -> list[str]:
    """Every fault there is, by name."""
    return [
        Fault(target=target, kind=kind).name
        for target in FaultTarget
        for kind in FaultKind
        if kind in _ALLOWED[target]
    ]


def _number(field: str, value: object) -> float:
    try:
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise TypeError
        return float(value)
    except (TypeError, ValueError) as exc:
        raise ConfigError("is not a number", field=field, value=value) from exc
