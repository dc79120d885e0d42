"""Listening on a port, and the error when that cannot be: address and the system's reason.

Every server here tells the same story, whichever library it is made with; the program around it
adds the flag. Owns nothing: the socket is its caller's.
"""

import contextlib
import errno
import os
import socket

from epp.errors import TransportError

BACKLOG = 1024

_OF_THE_ADDRESS = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EINVAL})


class ListenError(TransportError):
    """A port cannot be listened on.

    Attributes:
        port: The port that was asked for; 0 is any.
        address_at_fault: The address cannot be had, whatever the port.
    """

    def __init__(self, host: str, port: int, reason: str, *, address_at_fault: bool) -> None:
        named = host and ":" not in host
        shown = f"{host}:{port}" if named else f"[{host or '::'}]:{port}"
        super().__init__(f"cannot listen on {shown}: {reason}")
        self.port = port
        self.address_at_fault = address_at_fault


def listen_error(host: str, port: int, exc: OSError) -> ListenError:
    """Make the error of what the system refused."""
    if isinstance(exc, socket.gaierror):
        return ListenError(host, port, str(exc.strerror), address_at_fault=True)
    reason = os.strerror(exc.errno) if exc.errno else str(exc)
    return ListenError(host, port, reason, address_at_fault=exc.errno in _OF_THE_ADDRESS)


def listen(host: str, port: int, *, reuse_port: bool = False) -> socket.socket:
    """Open a listening socket that does not block.

    Args:
        host: IPv4, IPv6 without brackets, or a name; empty is every address of both families,
            where the machine has both.
        port: 0 takes a free one.
        reuse_port: Let other processes of ours have the same port, each taking a share.

    Raises:
        ListenError: The system refuses; names address, port and reason.
    """
    try:
        family, address = _address(host, port)
        listener = socket.socket(family, socket.SOCK_STREAM)
    except OSError as exc:
        raise listen_error(host, port, exc) from exc
    with contextlib.ExitStack() as undo:
        undo.callback(listener.close)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        try:
            listener.bind(address)
            listener.listen(BACKLOG)  # two that bound together are told apart only here
        except OSError as exc:
            raise listen_error(host, port, exc) from exc
        listener.setblocking(False)
        undo.pop_all()
    return listener


def _address(host: str, port: int) -> tuple[socket.AddressFamily, tuple[str, int]]:
    if not host:
        family = socket.AF_INET6 if _has_ipv6() else socket.AF_INET
        return family, ("::" if family == socket.AF_INET6 else "0.0.0.0", port)
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, address = found[0]
    return family, (str(address[0]), port)


def _has_ipv6() -> bool:
    if not socket.has_ipv6:
        return False
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::", 0))
    except OSError:
        return False
    return True
