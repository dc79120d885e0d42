"""PageMode: does one endpoint get the restricted question or the full page?

A server that honours ``name[]`` answers a restricted question with a small page; one that ignores
it sends the full page, which is as good. The trouble is a registry that knows the parameter but
not the names (multi-process ones): its answer lacks what a full page has. So an answer that lacks
a signal is followed, at once, by a full page:

* the full page lacks it too: the server does not have it, and no more is asked because of it;
* the full page has it, twice in a row: this endpoint gets full pages from now on. Once is not
  enough, since a metric can appear between the two questions.

``reset`` forgets everything; it is for a new process behind the address, which is recognised by a
connection that could not be made: a model server takes seconds to start, and listens only then.
"""

from collections.abc import Iterable


class PageMode:
    """The state of one endpoint; signals are named as in ``ScrapeOutcome.missing``.

    Args:
        restricted: False asks for full pages only.
    """

    __slots__ = ("_absent", "_contested", "_lacked", "_restricted", "full")

    def __init__(self, *, restricted: bool = True) -> None:
        self._restricted = restricted
        self.reset()

    def reset(self) -> None:
        """Start over, as for a new server."""
        self.full = not self._restricted
        self._absent: frozenset[str] = frozenset()
        self._contested: frozenset[str] = frozenset()
        self._lacked: frozenset[str] = frozenset()

    def needs_full_page(self, missing: Iterable[str]) -> bool:
        """Take what an answer to the restricted question lacks; True asks for the full page."""
        lacked = frozenset(missing) - self._absent
        if lacked & self._contested:
            self.full = True
        elif not lacked:
            self._contested = frozenset()
        self._lacked = lacked
        return bool(lacked)

    def full_page_came(self, missing: Iterable[str]) -> None:
        """Take what the full page, asked for after a restricted answer, lacks."""
        absent = frozenset(missing)
        self._contested = self._lacked - absent
        self._absent = absent
        self._lacked = frozenset()
