"""CertReloader: follows the files of a certificate while the process serves.

Change notifications make it fast, a look every few seconds makes it certain: a Secret is updated
by a swap of the symbolic link ``..data``, other tools rename or overwrite, and some file systems
notify of nothing. It owns one task and no certificate: what changed is somebody else's to load. A
pair that cannot be served leaves the previous one in use and is logged once, not at every look.
Reference: controller-runtime pkg/certwatcher; llm-d-router ebab687 pkg/common/certs.go.
"""

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path

from watchfiles import awatch

from epp.errors import ConfigError
from epp.kube.manager import Loop
from epp.logs import get_logger

log = get_logger(__name__)

DEBOUNCE_MILLISECONDS = 250
"""Quiet time after a change: certificate and key are two files."""

MAX_DEBOUNCE_MILLISECONDS = 2000
"""A directory that never is quiet is looked at this often."""

LOOK_SECONDS = 10.0
"""How often to look without a notification."""

GONE_SECONDS = 1.0
"""How often to look for a directory that has disappeared."""


class CertReloader(Loop):
    """A runnable of ``kube.manager``: watches from start to stop, never ends by itself.

    Args:
        directory: Holds the files, as ``--cert-path`` names it.
        reload: Loads them and uses them for new connections; True when they differ from those in
            use. Raises ConfigError and changes nothing when they cannot be served.
        debounce_milliseconds: Quiet time after a change.
        look_seconds: How often to look without a notification.
    """

    def __init__(
        self,
        directory: Path,
        reload: Callable[[], bool],
        *,
        debounce_milliseconds: int = DEBOUNCE_MILLISECONDS,
        look_seconds: float = LOOK_SECONDS,
    ) -> None:
        super().__init__(f"certificate watch {directory}", self._follow)
        self._directory = directory
        self._reload = reload
        self._debounce_milliseconds = debounce_milliseconds
        self._look_seconds = look_seconds
        self._reported = ""

    def look(self) -> None:
        """Reload now. What is wrong is logged once, until it is something else or repaired."""
        try:
            changed = self._reload()
        except ConfigError as exc:
            if str(exc) != self._reported:
                self._reported = str(exc)
                log.warning("certificate cannot be served, the previous one stays", error=exc)
            return
        self._reported = ""
        if changed:
            log.info("certificate reloaded", path=str(self._directory))

    async def _follow(self) -> None:
        while True:
            try:
                await self._watch_until_gone()
            except (OSError, RuntimeError) as exc:  # the notifier fails in its own ways
                log.debug("change notification failed, looking again", error=exc)
            await asyncio.sleep(GONE_SECONDS)
            self.look()

    async def _watch_until_gone(self) -> None:
        changes = awatch(
            self._directory,
            watch_filter=None,
            debounce=max(MAX_DEBOUNCE_MILLISECONDS, self._debounce_milliseconds),
            step=self._debounce_milliseconds,
            rust_timeout=int(self._look_seconds * 1000),
            yield_on_timeout=True,
            recursive=False,
        )
        async with contextlib.aclosing(changes):
            async for _ in changes:
                self.look()
                if not self._directory.is_dir():
                    return
