"""What the end-to-end tests ask of a cluster, whichever it is.

Objects are read and written through ``admin`` on both; ``Cluster`` is what differs: how a client
reaches a Service or a pod, how a process is killed, where logs are.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from epp.testing.api_admin import ApiAdmin

Address = tuple[str, int]
Pod = Mapping[str, Any]


class ClusterError(Exception):
    """There is no such cluster, or it cannot do what was asked; the text says what to do."""


class Cluster(Protocol):
    """A running cluster.

    Attributes:
        admin: The administrator's connection to the API server.
        patience: Factor for every deadline: 1 where pods are processes of this machine.
    """

    admin: ApiAdmin
    patience: float

    async def service(self, namespace: str, name: str, port: str) -> Callable[[], Address]:
        """How clients reach a Service: ask for an address before every connection.

        It raises TransportError when the Service has no endpoint, as a connection would be refused.
        """
        ...

    def reach(self, pod: Pod, port: int) -> AbstractAsyncContextManager[Address]:
        """A way to one port of one pod, as long as the block lasts."""
        ...

    async def kill(self, pod: Pod, container: str) -> None:
        """SIGKILL the process of a container, as a crash; it is restarted."""
        ...

    async def logs(self, pod: Pod, container: str) -> str:
        """What a container has printed, earlier runs of it included where they are kept."""
        ...

    def describe(self) -> str:
        """Pods with their states and the ends of their logs, for a test that failed."""
        ...
