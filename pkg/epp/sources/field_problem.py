"""FieldProblem: what is wrong with one field of an object, before anyone knows the file."""

import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

FieldPath = tuple[str | int, ...]
"""Keys and list positions from the object's root."""

_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*", re.ASCII)
_MAX_NAME = 80


class FieldProblem(NamedTuple):
    """A field, what must be different about it, and its value (None: nothing to show)."""

    path: FieldPath
    message: str
    value: Any = None


def field_path(path: FieldPath) -> str:
    """Write a path as ``spec.targetPorts[0].number`` or ``metadata.labels[example.com/a]``."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif not _PLAIN_NAME.fullmatch(part):
            text += f"[{_shorten(part)}]"
        else:
            text += f".{_shorten(part)}" if text else _shorten(part)
    return text


def in_path_order(problems: Iterable[FieldProblem]) -> Sequence[FieldProblem]:
    """Sort by path, list positions as numbers, and drop repetitions."""
    ordered = sorted(problems, key=lambda problem: (_sort_key(problem.path), problem.message))
    seen = {(problem.path, problem.message): problem for problem in reversed(ordered)}
    return [problem for problem in ordered if seen[problem.path, problem.message] is problem]


def _sort_key(path: FieldPath) -> tuple[tuple[bool, int, str], ...]:
    return tuple(
        (False, part, "") if isinstance(part, int) else (True, 0, part) for part in path
    )


def _shorten(name: str) -> str:
    printable = name if name.isprintable() else ascii(name)[1:-1]
    return printable if len(printable) <= _MAX_NAME else f"{printable[:_MAX_NAME]}…"
