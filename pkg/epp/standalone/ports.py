"""Ports of standalone mode: a taken default is replaced by a free one, a taken choice is an error.

Between the look at a port and the child's bind nobody holds it. Runs of one user that start at
the same moment therefore take turns, from the look until their children listen.
"""

import asyncio
import contextlib
import errno
import fcntl
import os
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from pathlib import Path

from epp.errors import ConfigError

TURN_SECONDS = 60.0
"""A start that takes longer than this has gone wrong; the next run does not wait for it."""

TURN_POLL_SECONDS = 0.05


@contextlib.asynccontextmanager
async def start_in_turn(
    on_wait: Callable[[], None],
    *,
    lock_file: Path | None = None,
    patience_seconds: float = TURN_SECONDS,
) -> AsyncIterator[None]:
    """Hold the turn to claim ports and start listening on them.

    Args:
        on_wait: Called once when another run has the turn.
        lock_file: What runs take turns by; one per user in the temporary directory.
        patience_seconds: How long to wait; afterwards go on without the turn.
    """
    path = lock_file or Path(tempfile.gettempdir(), f"epp-standalone-{os.getuid()}.lock")
    with contextlib.ExitStack() as held:
        try:
            lock = held.enter_context(path.open("a"))
        except OSError:  # nowhere to take turns: as good as alone
            yield
            return
        await _wait_for(lock.fileno(), on_wait, patience_seconds)
        yield


async def _wait_for(lock: int, on_wait: Callable[[], None], patience_seconds: float) -> None:
    deadline = asyncio.get_running_loop().time() + patience_seconds
    told = False
    while asyncio.get_running_loop().time() < deadline:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        if not told:
            told = True
            on_wait()
        await asyncio.sleep(TURN_POLL_SECONDS)


def claim_port(
    name: str, *, chosen: int | None, default: int, hosts: Sequence[str], taken: Iterable[int] = ()
) -> tuple[int, str | None]:
    """Decide on a port.

    Args:
        name: Flag that names the port, for error texts.
        chosen: What the user asked for; None when they did not. 0 asks for any free port.
        default: Used when free and nothing was chosen.
        hosts: Addresses that will be bound, all of them; an empty one is every IPv4 and IPv6 one.
        taken: Ports already given away in this run.

    Returns:
        The port, and a sentence for the user when the default had to be replaced.

    Raises:
        ConfigError: The chosen port is in use, or an address cannot be bound at all.
    """
    used = set(taken)
    wanted = default if chosen is None else chosen
    if wanted != 0 and wanted not in used and _is_free(name, hosts, wanted):
        return wanted, None
    if chosen is not None and chosen != 0:
        raise ConfigError("this port is already in use", source=name, value=chosen)
    free = _free_port(name, hosts, used)
    note = None if wanted == 0 else f"port {wanted} is in use: {name} is {free} instead"
    return free, note


def _is_free(name: str, hosts: Sequence[str], port: int) -> bool:
    return all(_bound_port(name, host, port) is not None for host in _addresses(hosts))


def _free_port(name: str, hosts: Sequence[str], used: set[int]) -> int:
    first, *others = _addresses(hosts)
    while True:
        port = _bound_port(name, first, 0)
        if port is not None and port not in used and _is_free(name, others, port):
            return port


def _addresses(hosts: Sequence[str]) -> list[str]:
    """Spell out "every address", with IPv6 where the machine has it."""
    every = ["0.0.0.0", "::"] if socket.has_dualstack_ipv6() else ["0.0.0.0"]
    return [address for host in hosts for address in ([host] if host else every)]


def _bound_port(name: str, host: str, port: int) -> int | None:
    """Bind and let go; the port that it was, or None when somebody has it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            return int(probe.getsockname()[1])
    except OSError as exc:
        if exc.errno in {errno.EADDRINUSE, errno.EACCES}:
            return None
        shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        raise ConfigError(f"cannot listen there: {exc.strerror}", source=name, value=shown) from exc
