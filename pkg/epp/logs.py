"""Logging: four levels of the field (2 default, 3 verbose, 4 debug, 5 trace), console or JSON.

Events are constant lower-case phrases with fields: ``log.info("pod added", pod=key)``. The same
field means the same thing everywhere: pool, pod, endpoint, model, target_model, request_id,
plugin, score, error. Logs go to standard error; standard output belongs to what a command prints.

Levels map to the methods ``info`` (2), ``verbose`` (3) and ``debug`` (4); 5 is taken because the
reference has it, and says no more. A disabled level costs one attribute look-up and one call.
Configuration happens once, in the program (``configure``); modules only call
``get_logger(__name__)``.
"""

import sys
from collections.abc import Callable, MutableMapping
from enum import IntEnum
from typing import Any, TextIO, cast

import structlog


class Verbosity(IntEnum):
    """The ``-v`` scale of the reference."""

    DEFAULT = 2
    VERBOSE = 3
    DEBUG = 4
    TRACE = 5


_verbosity = Verbosity.DEFAULT


class Logger:
    """A named logger. Fields given to ``bind`` are added to every event."""

    __slots__ = ("_emit", "_fields", "_name")

    def __init__(self, name: str, fields: dict[str, object] | None = None) -> None:
        self._name = name
        self._fields = fields or {}
        self._emit = structlog.get_logger(logger_name=name, **self._fields)

    def bind(self, **fields: object) -> "Logger":
        """Return a logger that adds these fields to every event."""
        return Logger(self._name, {**self._fields, **fields})

    def error(self, event: str, **fields: object) -> None:
        """Something failed and an operator should look."""
        self._emit.error(event, **fields)

    def warning(self, event: str, **fields: object) -> None:
        """Something is wrong but handled."""
        self._emit.warning(event, **fields)

    def info(self, event: str, **fields: object) -> None:
        """Say that a state changed, once per change."""
        self._emit.info(event, **fields)

    def verbose(self, event: str, **fields: object) -> None:
        """One line per request."""
        if _verbosity >= Verbosity.VERBOSE:
            self._emit.info(event, **fields)

    def debug(self, event: str, **fields: object) -> None:
        """Per endpoint."""
        if _verbosity >= Verbosity.DEBUG:
            self._emit.debug(event, **fields)

    def enabled(self, level: Verbosity) -> bool:
        """Tell whether a level is on, to guard fields that cost something to build."""
        return _verbosity >= level


def get_logger(name: str) -> Logger:
    """Return the logger of a module; call it with ``__name__``."""
    return Logger(name)


def configure(
    *,
    verbosity: int = Verbosity.DEFAULT,
    json: bool = False,
    stream: TextIO | None = None,
) -> None:
    """Set up logging for the process.

    Args:
        verbosity: 2 to 5; out-of-range values are clamped.
        json: One JSON object a line instead of console text.
        stream: Where to write; standard error by default.
    """
    global _verbosity  # noqa: PLW0603 - the one process-wide setting, written by the program only
    _verbosity = Verbosity(min(max(verbosity, Verbosity.DEFAULT), Verbosity.TRACE))
    target = stream or sys.stderr
    structlog.configure(
        processors=_processors(json=json, colors=_is_terminal(target)),
        logger_factory=structlog.PrintLoggerFactory(target),
        cache_logger_on_first_use=False,
    )


def _processors(*, json: bool, colors: bool) -> list[structlog.typing.Processor]:
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        _stringify_errors,
    ]
    if json:
        import orjson

        def dump(value: object, default: Callable[[Any], Any] | None = None, **_: object) -> str:
            return orjson.dumps(value, default=default).decode()

        return [*shared, structlog.processors.JSONRenderer(serializer=dump)]
    console = structlog.dev.ConsoleRenderer(colors=colors, timestamp_key="time", pad_event_to=0)
    return [*shared, cast("structlog.typing.Processor", console)]


def _stringify_errors(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Turn exceptions in fields into text: a log line never carries a traceback by accident."""
    for key, value in event.items():
        if isinstance(value, BaseException):
            event[key] = f"{type(value).__name__}: {value}"
    return event


def _is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except ValueError:
        return False
