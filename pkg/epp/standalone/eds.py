"""EdsWriter: the file of endpoints that Envoy watches, always a step ahead of the candidates.

Envoy may only be sent to endpoints that it knows. The writer therefore hears of an endpoint
before it becomes a candidate, and writes at once; later additions and all removals of the same
loop turn share one more write. Envoy's watcher needs a rename, so each write goes to a temporary
file beside the target. A file that a previous process left stays until the first endpoint is
known: while we start, its endpoints keep serving.
"""

import asyncio
import contextlib
import os
from pathlib import Path

from epp.backend.endpoint import Endpoint, EndpointKey
from epp.logs import get_logger

log = get_logger(__name__)

CLUSTER = "pool"
_HEADER = f"""\
# Written by the Endpoint Picker; edits are lost.
resources:
- "@type": type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment
  cluster_name: {CLUSTER}
"""


class EdsWriter:
    """Keeps the file.

    Args:
        path: Of the file; its directory must exist.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._endpoints: dict[EndpointKey, Endpoint] = {}
        self._scheduled = False
        if not path.exists():
            self._write()

    def endpoint_added(self, endpoint: Endpoint) -> None:
        """Write before the endpoint becomes a candidate."""
        self._endpoints[endpoint.key] = endpoint
        self._write_soon_or_now()

    def endpoint_updated(self, old: Endpoint, new: Endpoint) -> None:
        """Write when the address changed."""
        self._endpoints[new.key] = new
        if old.target != new.target:
            self._write_soon_or_now()

    def endpoint_removed(self, endpoint: Endpoint) -> None:
        """Write at the end of the turn: nobody picks it any more."""
        self._endpoints.pop(endpoint.key, None)
        self._write_soon()

    def _write_soon_or_now(self) -> None:
        """The first change of a turn is written at once, the others together."""
        if not self._scheduled:
            self._write()
        self._write_soon()

    def _write_soon(self) -> None:
        if self._scheduled:
            return
        self._scheduled = True
        asyncio.get_running_loop().call_soon(self._write_now)

    def _write_now(self) -> None:
        self._scheduled = False
        self._write()

    def _write(self) -> None:
        draft = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        try:
            draft.write_text(render(list(self._endpoints.values())))
            draft.replace(self._path)
        except OSError as exc:
            log.error("endpoint file cannot be written", path=str(self._path), error=exc)
            with contextlib.suppress(OSError):
                draft.unlink()


def render(endpoints: list[Endpoint]) -> str:
    """The file's text, in the order of addresses."""
    targets = sorted({(endpoint.address, endpoint.port) for endpoint in endpoints})
    if not targets:
        return f"{_HEADER}  endpoints: []\n"
    lines = [
        f'    - endpoint: {{address: {{socket_address: {{address: "{address}", port_value: {port}}}}}}}\n'
        for address, port in targets
    ]
    return f"{_HEADER}  endpoints:\n  - lb_endpoints:\n{''.join(lines)}"
