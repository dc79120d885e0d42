"""What plugins outside scheduling may do around a request. They cannot fail it."""

from typing import Protocol, runtime_checkable

from epp.requestcontrol.types import Completion, RoutingDecision
from epp.scheduling.framework import Plugin


@runtime_checkable
class PreRequest(Plugin, Protocol):
    """Called after a pick, before the answer goes out."""

    def pre_request(self, routing: RoutingDecision) -> None:
        """Learn from a pick, e.g. remember the prefix."""
        ...


@runtime_checkable
class ResponseComplete(Plugin, Protocol):
    """Called once when a routed request has ended."""

    def response_complete(self, routing: RoutingDecision, completion: Completion) -> None:
        """Learn from an end, e.g. release a reservation."""
        ...
