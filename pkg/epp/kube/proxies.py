"""Which proxy leads to the API server, by the environment variables that Go programs read.

``HTTPS_PROXY`` (or ``HTTP_PROXY`` for a plain server) unless ``NO_PROXY`` exempts the host; the
lower-case spellings count when the upper-case ones are empty. Loopback is always direct.
Reference: golang.org/x/net/http/httpproxy (rules of NO_PROXY).
"""

import ipaddress
from collections.abc import Mapping
from urllib.parse import urlsplit

PROXY_SCHEMES = frozenset({"http", "https"})
"""What the HTTP library can speak to; SOCKS is not among it."""

_DEFAULT_PORTS = {"http": 80, "https": 443}


def proxy_for(server: str, env: Mapping[str, str]) -> tuple[str, str]:
    """Choose the proxy of a server.

    Args:
        server: Base URL of the API server.
        env: Environment variables.

    Returns:
        The proxy's URL and the variable it comes from; two empty strings when the way is direct.
    """
    url = urlsplit(server)
    name = "HTTPS_PROXY" if url.scheme == "https" else "HTTP_PROXY"
    value = _variable(env, name)
    if not value:
        return "", ""
    port = url.port or _DEFAULT_PORTS.get(url.scheme, 0)
    if _is_exempt(url.hostname or "", port, _variable(env, "NO_PROXY")):
        return "", ""
    return (value if "://" in value else f"http://{value}"), name


def _variable(env: Mapping[str, str], name: str) -> str:
    return env.get(name) or env.get(name.lower()) or ""


def _is_exempt(host: str, port: int, no_proxy: str) -> bool:
    address = _address(host)
    if host == "localhost" or (address is not None and address.is_loopback):
        return True
    return any(
        _exempts(entry.strip().lower(), host.lower(), address, port)
        for entry in no_proxy.split(",")
        if entry.strip()
    )


def _exempts(
    entry: str, host: str, address: ipaddress.IPv4Address | ipaddress.IPv6Address | None, port: int
) -> bool:
    if entry == "*":
        return True
    if "/" in entry:
        try:
            network = ipaddress.ip_network(entry, strict=False)
        except ValueError:
            return False
        return address is not None and address in network
    name, wanted_port = _split_port(entry)
    if wanted_port not in {"", str(port)}:
        return False
    wanted = _address(name)
    if wanted is not None:
        return wanted == address
    if name.startswith("*."):
        name = name[1:]
    if name.startswith("."):
        return host.endswith(name)
    return host == name or host.endswith(f".{name}")


def _split_port(entry: str) -> tuple[str, str]:
    if _address(entry) is not None:
        return entry, ""
    name, colon, port = entry.rpartition(":")
    return (name, port) if colon and port.isdigit() else (entry, "")


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text.strip("[]"))
    except ValueError:
        return None
