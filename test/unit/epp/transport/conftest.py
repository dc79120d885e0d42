"""Both event loops, and a service that keeps the books of its handlers."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import pytest
import structlog
import uvloop

from epp.logs import Verbosity, configure
from epp.transport.stream import CloseReason, StreamSender


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Every asynchronous test of this directory runs on both."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@dataclass
class Tally:
    """A service whose handlers answer by a hook; it knows what each was told.

    Attributes:
        on_message: Called with the sender and each message.
        finish: Handlers finish at the half-close.
    """

    on_message: Callable[[StreamSender, bytes], None] = lambda sender, payload: sender.send(payload)
    finish: bool = True
    handlers: list["TallyHandler"] = field(default_factory=list)
    messages: int = 0

    def __call__(self, sender: StreamSender) -> "TallyHandler":
        self.handlers.append(TallyHandler(self, sender))
        return self.handlers[-1]

    @property
    def ends(self) -> list[list[CloseReason]]:
        return [handler.ends for handler in self.handlers]

    @property
    def open(self) -> int:
        return sum(not handler.ends for handler in self.handlers)


class TallyHandler:
    """One stream."""

    def __init__(self, tally: Tally, sender: StreamSender) -> None:
        self.sender = sender
        self.ends: list[CloseReason] = []
        self._tally = tally

    def on_message(self, payload: bytes) -> None:
        self._tally.messages += 1
        self._tally.on_message(self.sender, payload)

    def on_half_close(self) -> None:
        if self._tally.finish:
            self.sender.finish()

    def on_closed(self, reason: CloseReason) -> None:
        self.ends.append(reason)


@pytest.fixture
def tally() -> type[Tally]:
    return Tally


@pytest.fixture
def debug_logs() -> Iterator[None]:
    """Lines at debug are written."""
    configure(verbosity=Verbosity.DEBUG)
    yield
    configure()
    structlog.reset_defaults()  # or later tests write to this test's captured stream
