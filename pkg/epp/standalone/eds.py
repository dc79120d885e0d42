"""EdsWriter: the file of endpoints that Envoy watches, always a step ahead of the candidates.

Envoy may only be sent to endpoints that it knows. The writer therefore hears of an endpoint
before it becomes a candidate, and writes at once; later additions and all removals of the same
loop turn share one more write. Envoy's watcher needs a rename, so each write goes to a temporary
file beside the target. A file that a previous process left stays until the first endpoint is
known: while we start, its endpoints keep serving.

Envoy refuses a whole file for one endpoint that is no IP address, so such an endpoint is left out
and named in the log.
"""

import asyncio
import contextlib
import os
from collections.abc import Iterable
from ipaddress import ip_address
from pathlib import Path

from epp.backend.endpoint import Endpoint, EndpointKey
from epp.errors import ConfigError
from epp.logs import get_logger

log = get_logger(__name__)

CLUSTER = "pool"
RETRY_SECONDS = 1.0
"""After a write that failed."""

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

    Raises:
        ConfigError: Nothing can be written there.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._endpoints: dict[EndpointKey, Endpoint] = {}
        self._scheduled = False
        self._retry: asyncio.TimerHandle | None = None
        self._failing = False
        self._written: str | None = None
        self._prepare()

    def endpoint_added(self, endpoint: Endpoint) -> None:
        """Write before the endpoint becomes a candidate."""
        if self._take(endpoint):
            self._write_now_or_soon()

    def endpoint_updated(self, old: Endpoint, new: Endpoint) -> None:
        """Write when the address changed."""
        if old.key != new.key:
            self._endpoints.pop(old.key, None)
        if self._take(new):
            self._write_now_or_soon()
        else:
            self._write_soon()

    def endpoint_removed(self, endpoint: Endpoint) -> None:
        """Write at the end of the turn: nobody picks it any more."""
        if self._endpoints.pop(endpoint.key, None) is not None:
            self._write_soon()

    def _take(self, endpoint: Endpoint) -> bool:
        try:
            ip_address(endpoint.address)
        except ValueError:
            self._endpoints.pop(endpoint.key, None)
            log.error(
                "endpoint left out of the endpoint file, its address is no IP address",
                endpoint=endpoint.key,
                address=endpoint.address,
            )
            return False
        self._endpoints[endpoint.key] = endpoint
        return True

    def _prepare(self) -> None:
        """Try the directory; a file that is there already is put back as it is."""
        try:
            self._replace(self._path.read_text("utf-8") if self._path.exists() else render(()))
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else "is not a text file"
            raise ConfigError(
                f"cannot be written: {why}", source="--eds-file", value=str(self._path)
            ) from error

    def _write_now_or_soon(self) -> None:
        """The first change of a turn is written at once, the others together."""
        if not self._scheduled:
            self._write()
        self._write_soon()

    def _write_soon(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._end_turn)

    def _end_turn(self) -> None:
        self._scheduled = False
        self._write()

    def _write(self) -> None:
        text = render(self._endpoints.values())
        if text == self._written:
            return
        try:
            self._replace(text)
        except OSError as error:
            if not self._failing:
                log.error("endpoint file cannot be written", path=str(self._path), error=error)
            self._failing = True
            self._write_later()
            return
        self._written = text
        if self._failing:
            self._failing = False
            log.info("endpoint file can be written again", path=str(self._path))

    def _write_later(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
        self._retry = asyncio.get_running_loop().call_later(RETRY_SECONDS, self._write)

    def _replace(self, text: str) -> None:
        draft = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        try:
            draft.write_text(text, "utf-8")
            draft.replace(self._path)
        except OSError:
            with contextlib.suppress(OSError):
                draft.unlink()
            raise


def render(endpoints: Iterable[Endpoint]) -> str:
    """Return the file's text: every address once, in the order of address and port."""
    targets = sorted({(endpoint.address, endpoint.port) for endpoint in endpoints})
    if not targets:
        return f"{_HEADER}  endpoints: []\n"
    lines = [
        f'    - endpoint: {{address: {{socket_address: {{address: "{address}", port_value: {port}}}}}}}\n'
        for address, port in targets
    ]
    return f"{_HEADER}  endpoints:\n  - lb_endpoints:\n{''.join(lines)}"
