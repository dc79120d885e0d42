"""Which endpoints a request may go to: ready ones, within the gateway's subset hint.

The hint's entries are ``ip`` or ``ip:port``, IPv6 in brackets where a port follows. The port counts
only where several endpoints share the address; elsewhere the address alone decides.
Reference: llm-d-router pkg/epp/requestcontrol/candidates.go; departs from it in the brackets and
in honouring the port among ranks.
"""

from collections import Counter
from collections.abc import Sequence
from ipaddress import ip_address

import numpy as np
from cachetools import LRUCache

from epp.backend.endpoint_table import EndpointTable, Mask
from epp.errors import UnavailableError

NO_ENDPOINTS = "rejected-no-endpoints"
MAX_SUBSETS = 256
"""Hints remembered; gateways send few distinct ones."""


class Candidates:
    """Turns subset hints into masks, remembered per set of endpoints.

    Args:
        honour_subset: False ignores hints (``--disable-endpoint-subset-filter``).
    """

    def __init__(self, *, honour_subset: bool = True) -> None:
        self._honour_subset = honour_subset
        self._masks: LRUCache[tuple[int, tuple[str, ...]], Mask] = LRUCache(MAX_SUBSETS)
        self._everybody = _all_of(0)

    def of(self, table: EndpointTable, subset: tuple[str, ...] | None) -> Mask:
        """Mask of the candidates; never empty. Do not write to it.

        Raises:
            UnavailableError: No endpoint at all, or none within the hint.
        """
        endpoints = len(table)
        if not endpoints:
            raise UnavailableError("no endpoint is ready", dropped_reason=NO_ENDPOINTS)
        if subset is None or not self._honour_subset:
            if self._everybody.size != endpoints:
                self._everybody = _all_of(endpoints)
            return self._everybody
        key = (table.columns.generation, subset)
        mask = self._masks.get(key)
        if mask is None:
            mask = subset_mask(table, subset)
            mask.setflags(write=False)
            self._masks[key] = mask
        if not mask.any():
            raise UnavailableError(
                "none of the endpoints that the gateway allows is ready",
                dropped_reason=NO_ENDPOINTS,
            )
        return mask


def subset_mask(table: EndpointTable, subset: Sequence[str]) -> Mask:
    """Rows that the hint allows."""
    allowed = [split_host_port(entry) for entry in subset]
    addresses = {host for host, _ in allowed}
    exact = set(allowed)
    hosts = [_canonical(endpoint.address) for endpoint in table.endpoints]
    shared = Counter(hosts)
    rows = []
    for row, (address, endpoint) in enumerate(zip(hosts, table.endpoints, strict=True)):
        if address not in addresses:
            continue
        by_port = shared[address] > 1 and (address, None) not in exact
        if not by_port or (address, endpoint.port) in exact:
            rows.append(row)
    return table.mask_of(rows)


def split_host_port(entry: str) -> tuple[str, int | None]:
    """Split ``ip``, ``ip:port``, ``[v6]``, ``[v6]:port`` or a bare IPv6 address.

    IPv6 addresses come back in their one canonical spelling.
    """
    text = entry.strip()
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        return _canonical(host), _port(rest.removeprefix(":"))
    if text.count(":") == 1:
        host, _, port = text.partition(":")
        return host, _port(port)
    return _canonical(text), None


def _all_of(rows: int) -> Mask:
    mask = np.ones(rows, dtype=np.bool_)
    mask.setflags(write=False)
    return mask


def _canonical(host: str) -> str:
    if ":" not in host:
        return host
    try:
        return ip_address(host).compressed
    except ValueError:
        return host


def _port(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 5 else None
