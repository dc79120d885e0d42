"""ReflectorObserver: what a reflector tells whoever counts; metrics implement it."""

from typing import Protocol


class ReflectorObserver(Protocol):
    """Counts what happens; every method is called with the kind."""

    def relisted(self, kind: str) -> None:
        """A complete list is in the store."""
        ...

    def watch_restarted(self, kind: str) -> None:
        """A watch has ended, for whatever reason, and another one begins."""
        ...

    def failed(self, kind: str, reason: str) -> None:
        """Something went wrong; the reason is e.g. ``Forbidden``, ``Gone`` or ``Undecodable``."""
        ...


class NullObserver:
    """Counts nothing."""

    def relisted(self, kind: str) -> None:
        """Ignore it."""

    def watch_restarted(self, kind: str) -> None:
        """Ignore it."""

    def failed(self, kind: str, reason: str) -> None:
        """Ignore it."""
