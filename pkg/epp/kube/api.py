"""KubeApi: what the parts of this package need of a client of the API server.

``client.KubeClient`` is the implementation; tests may write a smaller one. Nothing here imports an
HTTP library, so that reflectors and informers cost nothing in a process that never makes a client.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Protocol


class KubeRequests(Protocol):
    """Single requests to one API server. Raises ``epp.kube.errors.ApiError`` and nothing else."""

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: object | None = None,
        content_type: str = "application/json",
        timeout_seconds: float = 30.0,
        what: str = "",
    ) -> bytes:
        """Send one request and return the body of its answer, within the timeout."""
        ...


class KubeApi(KubeRequests, Protocol):
    """Requests and watches."""

    def lines(
        self,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        idle_seconds: float,
        what: str = "",
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Open a watch: one JSON document per item."""
        ...
