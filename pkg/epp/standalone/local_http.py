"""HTTP requests of the supervisor to its own children: few, small, in a thread each.

Not for traffic: the demo and the readiness polls use it, nothing on a hot path.
"""

import asyncio
import http.client
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from epp.errors import TransportError


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An answer, read whole."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    def json(self) -> Any:
        """Return the body as JSON. Raises TransportError when it is none."""
        try:
            return json.loads(self.body)
        except ValueError as exc:
            raise TransportError(f"not JSON: {self.body[:80]!r}") from exc


async def request(
    host: str,
    port: int,
    method: str,
    path: str,
    *,
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
    deadline_seconds: float = 10.0,
) -> Reply:
    """Send one request and read the whole answer.

    Raises:
        TransportError: No answer, or none in time.
    """
    args = (host, port, method, path, dict(headers or {}), body, deadline_seconds)
    return await asyncio.to_thread(_request, *args)


async def get_json(host: str, port: int, path: str, *, deadline_seconds: float = 2.0) -> Any:
    """GET a JSON document. Raises TransportError for anything but a 200 with JSON."""
    reply = await request(host, port, "GET", path, deadline_seconds=deadline_seconds)
    if reply.status != 200:
        raise TransportError(f"{path} answered {reply.status}")
    return reply.json()


async def answers(host: str, port: int, path: str) -> bool:
    """Tell whether a GET answers 200 within a second."""
    try:
        return (await request(host, port, "GET", path, deadline_seconds=1.0)).status == 200
    except TransportError:
        return False


def _request(
    host: str,
    port: int,
    method: str,
    path: str,
    headers: dict[str, str],
    body: bytes | None,
    deadline_seconds: float,
) -> Reply:
    connection = http.client.HTTPConnection(host, port, timeout=deadline_seconds)
    try:
        connection.request(method, path, body=body, headers=headers)
        response = connection.getresponse()
        names = {name.lower(): value for name, value in response.getheaders()}
        return Reply(status=response.status, headers=names, body=response.read())
    except (OSError, http.client.HTTPException) as exc:
        raise TransportError(f"{method} http://{host}:{port}{path}: {exc}") from exc
    finally:
        connection.close()
