"""What plugins outside scheduling may do around a request. They cannot fail it.

Every hook runs, whatever the others do; one that raises is counted by the observer's timer and
logged once a minute.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol, runtime_checkable

from epp.requestcontrol.faults import FaultLog
from epp.requestcontrol.types import Completion, RoutingDecision
from epp.scheduling.framework import Plugin, PluginObserver


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


class Hooks:
    """Runs hooks in the order given.

    Args:
        hooks: A plugin may have both roles.
        observe: Wraps each call.
        faults: Is told of those that raise.
    """

    def __init__(
        self,
        hooks: Sequence[PreRequest | ResponseComplete],
        observe: PluginObserver,
        faults: FaultLog,
    ) -> None:
        self._before = [hook for hook in hooks if isinstance(hook, PreRequest)]
        self._after = [hook for hook in hooks if isinstance(hook, ResponseComplete)]
        self._observe = observe
        self._faults = faults

    def pre_request(self, routing: RoutingDecision) -> None:
        """Run the hooks of a pick."""
        for hook in self._before:
            self._run(hook, "PreRequest", partial(hook.pre_request, routing))

    def response_complete(self, routing: RoutingDecision, completion: Completion) -> None:
        """Run the hooks of an end."""
        for hook in self._after:
            call = partial(hook.response_complete, routing, completion)
            self._run(hook, "ResponseComplete", call)

    def _run(self, hook: Plugin, point: str, call: Callable[[], None]) -> None:
        try:
            with self._observe(point, hook.typed_name):
                call()
        except Exception as exc:
            self._faults.say("hook failed", error=exc, plugin=hook.typed_name.name)
