"""Sockets of an HTTP client session, so that its owner can end them with it.

A session that is closed does not wait for TLS connections that are still saying goodbye, among
them every watch that was left: they stay open until the server answers, or for ever when the event
loop ends first.
"""

import asyncio
import contextlib
import socket
import time
from collections.abc import Sequence
from typing import Any


class ClientSockets:
    """Makes the sockets of a connector and remembers those that are open.

    Args:
        end_seconds: Longest time that ``end`` takes.
    """

    def __init__(self, end_seconds: float = 2.0) -> None:
        self._end_seconds = end_seconds
        self._made: list[socket.socket] = []

    def make(self, address: Sequence[Any]) -> socket.socket:
        """Make a socket for an address as ``getaddrinfo`` returns it: a ``socket_factory``."""
        family, kind, protocol = address[:3]
        made = socket.socket(family, kind, protocol)
        self._made = [*self._open(), made]
        return made

    async def end(self) -> None:
        """End the connections, and wait until their transports have closed the sockets.

        What was written is still sent; no answer is waited for, so a silent peer costs nothing.
        """
        for left in self._open():
            with contextlib.suppress(OSError):  # never connected, or the peer has gone
                left.shutdown(socket.SHUT_RDWR)
        deadline = time.monotonic() + self._end_seconds
        while self._open() and time.monotonic() < deadline:  # noqa: ASYNC110  # nothing tells us
            await asyncio.sleep(0.002)

    def _open(self) -> list[socket.socket]:
        return [made for made in self._made if made.fileno() != -1]
