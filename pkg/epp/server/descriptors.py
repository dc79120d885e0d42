"""The file descriptors of this process: one for each connection, scraped endpoint and watch."""

import resource

MOST = 1 << 20
"""More than anybody needs; where the hard limit is none, some libraries walk the whole range."""

RESERVED = 512
"""Descriptors that gateways' connections leave to everything else: scrapes, watches, probes."""

FEWEST_CONNECTIONS = 64


def raise_descriptor_limit() -> int:
    """Raise the soft limit to the hard one, as far as sensible; return what it is now.

    The soft limit of many systems is 1,024, for programs that use ``select``.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST if hard == resource.RLIM_INFINITY else min(hard, MOST)
    if soft == resource.RLIM_INFINITY:
        return MOST
    if soft >= wanted:
        return soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError):  # systems with a lower limit of their own, macOS for one
        return soft
    return wanted


def connections_for(descriptors: int, wanted: int) -> int:
    """How many of the wanted connections so many descriptors allow."""
    return max(FEWEST_CONNECTIONS, min(wanted, descriptors - RESERVED))
