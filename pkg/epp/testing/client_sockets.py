"""Sockets of an HTTP client session, so that its owner can wait for their end.

A session that is closed does not wait for TLS connections that are still saying goodbye; an event
loop that ends meanwhile leaves them open, which is a warning in some later test.
"""

import asyncio
import socket
import time
from collections.abc import Sequence
from typing import Any


class ClientSockets:
    """Makes the sockets of a connector and remembers those that are open.

    Args:
        goodbye_seconds: How long ``closed`` waits.
    """

    def __init__(self, goodbye_seconds: float = 2.0) -> None:
        self._goodbye_seconds = goodbye_seconds
        self._made: list[socket.socket] = []

    def make(self, address: Sequence[Any]) -> socket.socket:
        """Make a socket for an address as ``getaddrinfo`` returns it: a ``socket_factory``."""
        family, kind, protocol = address[:3]
        made = socket.socket(family, kind, protocol)
        self._made = [*self._open(), made]
        return made

    async def closed(self) -> None:
        """Wait until all are closed; give up on a peer that does not answer."""
        deadline = time.monotonic() + self._goodbye_seconds
        while self._open():
            if time.monotonic() > deadline:
                return
            await asyncio.sleep(0.002)

    def _open(self) -> list[socket.socket]:
        return [made for made in self._made if made.fileno() != -1]
