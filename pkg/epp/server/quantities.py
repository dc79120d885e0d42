"""Values as Go programs write them on a command line: durations, byte quantities, booleans.

Every function raises ValueError with half a sentence that says what is wrong; the caller adds
flag and value.
"""

import math
import re
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple

from epp.backend.endpoint import join_host_port

_DURATION_PART = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)", re.ASCII)
_SECONDS = {
    "ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0,
}  # fmt: skip

MAX_DURATION_SECONDS = 100 * 365.25 * 86400.0
"""Beyond it timers overflow, and Go's durations soon after."""

_QUANTITY = re.compile(
    r"([+-]?\d+\.?\d*|[+-]?\.\d+)(?:[eE](\d{1,2})|([KMGTPE]i|[kKMGTPE]))?", re.ASCII
)
_FACTORS = {
    "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50, "Ei": 2**60,
    "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15, "E": 10**18,
}  # fmt: skip

_TRUE = frozenset({"1", "t", "T", "true", "TRUE", "True"})
_FALSE = frozenset({"0", "f", "F", "false", "FALSE", "False"})


class HostPort(NamedTuple):
    """An IP address and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return join_host_port(self.host, self.port)


def parse_duration(text: str) -> float:
    """Seconds of ``50ms``, ``1m30s``, ``0``. Reference: Go time.ParseDuration."""
    unsigned = text.removeprefix("-").removeprefix("+")
    sign = -1.0 if text.startswith("-") else 1.0
    if unsigned == "0":
        return 0.0
    parts = list(_DURATION_PART.finditer(unsigned))
    if not parts or "".join(part.group() for part in parts) != unsigned:
        raise ValueError("is not a duration such as 50ms, 30s or 1m30s")
    seconds = math.fsum(float(part[1]) * _SECONDS[part[2]] for part in parts)
    if seconds > MAX_DURATION_SECONDS:
        raise ValueError("is longer than a century")
    return sign * seconds


def parse_positive_duration(text: str) -> float:
    """A duration above zero."""
    seconds = parse_duration(text)
    if seconds <= 0:
        raise ValueError("must be longer than zero")
    return seconds


def parse_duration_or_zero(text: str) -> float:
    """A duration that is not negative."""
    seconds = parse_duration(text)
    if seconds < 0:
        raise ValueError("must not be negative")
    return seconds


def parse_bytes(text: str) -> int:
    """Bytes of ``10MiB``, ``25MB``, ``4Mi``, ``1e6``, rounded up.

    Reference: Kubernetes resource.Quantity after one trailing ``B`` or ``b`` was removed.
    """
    bare = text[:-1] if text[-1:] in {"B", "b"} else text
    match = _QUANTITY.fullmatch(bare)
    if match is None:
        raise ValueError("is not a number of bytes such as 16MiB or 25MB")
    number, exponent, suffix = match.groups()
    if number.startswith("-"):
        raise ValueError("must not be negative")
    factor: int = 10 ** int(exponent) if exponent else _FACTORS.get(suffix or "", 1)
    whole, _, fraction = number.removeprefix("+").partition(".")
    scaled = int((whole or "0") + fraction) * factor
    divisor: int = 10 ** len(fraction)
    return -(-scaled // divisor)


def parse_bool(text: str) -> bool:
    """Reference: Go strconv.ParseBool."""
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise ValueError("is neither true nor false")


def parse_int(text: str) -> int:
    """A decimal integer."""
    if re.fullmatch(r"[+-]?[0-9]{1,18}", text) is None:
        raise ValueError("is not a whole number")
    return int(text)


def parse_positive_int(text: str) -> int:
    """A whole number of at least one."""
    number = parse_int(text)
    if number < 1:
        raise ValueError("must be at least 1")
    return number


def parse_float(text: str) -> float:
    """A finite number."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError("is not a number")
    return number


def parse_port(text: str) -> int:
    """A port, 0 for a free one."""
    if re.fullmatch(r"[0-9]{1,5}", text) is None or int(text) > 65535:
        raise ValueError("is not a port (0 to 65535)")
    return int(text)


def parse_ip(text: str) -> str:
    """An IP address, returned as written."""
    if _ip(text) is None:
        raise ValueError("is not an IP address")
    return text


def parse_host_port(text: str) -> HostPort:
    """``10.0.0.5:8000`` or ``[fd00::5]:8000``; the gateway takes no host names."""
    host, colon, port_text = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    address = _ip(host[1:-1] if bracketed else host)
    if not colon or address is None or bracketed != isinstance(address, IPv6Address):
        raise ValueError("is not IP:PORT, such as 10.0.0.5:8000 or [fd00::5]:8000 (no host names)")
    port = parse_port(port_text)
    if port == 0:
        raise ValueError("needs a port from 1 to 65535")
    return HostPort(str(address), port)


def _ip(text: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None
