"""ManifestProblem: what is wrong with a manifest, where, and with which value."""

from dataclasses import dataclass

_SHOWN = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestProblem:
    """One defect of one document.

    Attributes:
        message: What is wrong, in one clause.
        file: Path below the manifest directory.
        document: Position in the file, from 1; 0 for the file as a whole.
        object: ``Kind namespace/name`` as far as it is known.
        field: Path of the field, e.g. ``spec.targetPorts[0].number``.
        value: What stands there, shortened; empty when nothing does.
    """

    message: str
    file: str = ""
    document: int = 0
    object: str = ""
    field: str = ""
    value: str = ""

    def __str__(self) -> str:
        """File, document, object, field, message and value on one line."""
        place = f"{self.file} (document {self.document})" if self.document > 1 else self.file
        parts = [part for part in (place, self.object, self.field, self.message) if part]
        text = ": ".join(parts)
        return _one_line(f"{text} (got {self.value})" if self.value else text)


def _one_line(text: str) -> str:
    """Escape what would break a line, a terminal or UTF-8: names come from outside."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def shown(value: object) -> str:
    """A value as error texts show it."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
