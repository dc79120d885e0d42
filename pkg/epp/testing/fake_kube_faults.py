"""Faults of a fake API server: what goes wrong, with which requests, and how often."""

import asyncio
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Refuse:
    """Answer with a status.

    Attributes:
        status: HTTP status.
        reason: Of the Status object.
        message: Of the Status object.
        retry_after: Seconds of the Retry-After header, or None.
    """

    status: int
    reason: str = ""
    message: str = ""
    retry_after: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Hang:
    """Give no answer as long as the fault is there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delay:
    """Answer later."""

    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Reset:
    """Break the connection instead of answering."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorEvent:
    """Open the watch, then say in it that something is wrong.

    Attributes:
        code: Of the Status object; 410 is an expired version.
        reason: Of the Status object.
    """

    code: int = 410
    reason: str = "Expired"


@dataclass(frozen=True, slots=True, kw_only=True)
class EndAtOnce:
    """Open the watch and end it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CutMidLine:
    """Break the watch in the middle of its next event."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Silence:
    """Open the watch and never send anything: the peer is dead and nobody noticed."""


Action = Refuse | Hang | Delay | Reset | ErrorEvent | EndAtOnce | CutMidLine | Silence


@dataclass(slots=True, kw_only=True)
class Fault:
    """One thing that goes wrong.

    Attributes:
        action: What happens.
        verb: ``get list watch create update patch delete``, or ``*``.
        resource: Plural, or ``*``.
        times: How many requests it still hits; None for all.
        removed: Set when it is over.
    """

    action: Action
    verb: str
    resource: str
    times: int | None
    removed: asyncio.Event = field(default_factory=asyncio.Event)


class Faults:
    """The faults of one server, first added first used."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []

    def add(
        self, action: Action, *, verb: str = "*", resource: str = "*", times: int | None = None
    ) -> Fault:
        """Let something go wrong from now on."""
        fault = Fault(action=action, verb=verb, resource=resource, times=times)
        self._faults.append(fault)
        return fault

    def remove(self, fault: Fault) -> None:
        """This fault is over; what hangs because of it is answered."""
        fault.removed.set()
        if fault in self._faults:
            self._faults.remove(fault)

    def clear(self) -> None:
        """Everything works again."""
        for fault in list(self._faults):
            self.remove(fault)

    def take(self, verb: str, resource: str) -> Fault | None:
        """The fault that hits this request, which uses it up by one."""
        for fault in self._faults:
            if fault.verb in {"*", verb} and fault.resource in {"*", resource}:
                if fault.times is not None:
                    fault.times -= 1
                    if fault.times == 0:
                        self._faults.remove(fault)
                return fault
        return None
