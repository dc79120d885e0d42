"""ReflectorSettings: how a reflector lists and watches."""

from dataclasses import dataclass

from epp.kube.workqueue import Backoff

_BACKOFF = Backoff(first_seconds=0.2, max_seconds=30.0, jitter_ratio=0.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReflectorSettings:
    """How to list and watch.

    Attributes:
        page_size: Objects in a page of a list; 250 pods are about 1.5 MB.
        streams_lists: Let the server stream the first list (``sendInitialEvents``), which spares
            its memory; a server that cannot is noticed.
        list_seconds: Deadline of one page.
        silent_list_seconds: Longest silence in a streamed list; beyond it the server does not
            know the feature, and pages are used for good.
        idle_seconds: Longest silence of a watch; a living server sends a bookmark every 60 s.
        watch_seconds: The server is asked to end a watch after this to twice this.
        short_watch_seconds: A watch that ends sooner and brought nothing is a failure.
        backoff: Waits after failures; starts over after a round that brought something.
        missing_seconds: How often a kind that the server does not serve is looked for.
        refused_seconds: How long an optional kind may be forbidden at the start, as it is while
            permissions are being created; then its cache counts as complete, and empty.
    """

    page_size: int = 250
    streams_lists: bool = True
    list_seconds: float = 60.0
    silent_list_seconds: float = 10.0
    idle_seconds: float = 150.0
    watch_seconds: float = 300.0
    short_watch_seconds: float = 1.0
    backoff: Backoff = _BACKOFF
    missing_seconds: float = 30.0
    refused_seconds: float = 5.0


DEFAULT_SETTINGS = ReflectorSettings()
