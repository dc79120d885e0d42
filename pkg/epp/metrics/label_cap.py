"""LabelCap: how many different model names may become label values.

Model names come from clients. The first names keep their own label, the rest share ``other``.
A name once admitted keeps its label for the life of the process, so counters never move between
series. Declared (pinned) names always keep their own and do not use up the cap. The empty string
passes. A name that no exposition format could carry, or an absurdly long one, is ``other``.
Reference: llm-d-router ebab687, shared cap over model_name and target_model_name.
"""

from collections.abc import Iterable

from epp.metrics.cells import OTHER

DEFAULT_MAX_LABEL_VALUES = 1000
MAX_LABEL_LENGTH = 256
"""The longest ``spec.modelName`` that an InferenceModel may have."""


class LabelCap:
    """Admits values up to a limit.

    Args:
        limit: Distinct values that are neither pinned nor empty.
    """

    def __init__(self, limit: int = DEFAULT_MAX_LABEL_VALUES) -> None:
        self._limit = limit
        self._admitted: set[str] = set()
        self._pinned: set[str] = {"", OTHER}

    def pin(self, values: Iterable[str]) -> None:
        """Admit declared names whatever the cap says. Names stay pinned."""
        fresh = {value for value in values if _is_encodable(value)}
        self._pinned |= fresh
        self._admitted -= fresh

    def admit(self, value: str) -> str:
        """The label for a value: itself, or ``other``."""
        if value in self._pinned or value in self._admitted:
            return value
        if len(self._admitted) >= self._limit or len(value) > MAX_LABEL_LENGTH:
            return OTHER
        if not _is_encodable(value):
            return OTHER
        self._admitted.add(value)
        return value


def _is_encodable(value: str) -> bool:
    """Lone surrogates cannot be written as UTF-8; one of them would spoil the whole page."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
