"""random-picker: a uniform choice among the candidates, whatever their totals."""

from collections.abc import Sequence

from epp.backend.endpoint_table import EndpointTable, Floats, Mask
from epp.scheduling.framework import Cycle, TypedName

RANDOM_PICKER_TYPE = "random-picker"


class RandomPicker:
    """Picks up to ``max_endpoints`` candidates, the first uniformly, the others as fall-backs.

    Args:
        name: Instance name.
        max_endpoints: Length of the answer, >= 1.
    """

    def __init__(self, name: str = RANDOM_PICKER_TYPE, *, max_endpoints: int = 1) -> None:
        self.typed_name = TypedName(RANDOM_PICKER_TYPE, name)
        self._max_endpoints = max_endpoints

    def pick(
        self, cycle: Cycle, _table: EndpointTable, candidates: Mask, _totals: Floats
    ) -> Sequence[int]:
        """Draw without replacement."""
        (rows,) = candidates.nonzero()
        if self._max_endpoints == 1:
            return [int(rows[cycle.random.randrange(len(rows))])]
        return draw_rows(cycle, rows.tolist(), self._max_endpoints)


def draw_rows(cycle: Cycle, rows: list[int], count: int) -> list[int]:
    """Draw ``count`` of the rows (all if there are fewer), without replacement, in random order."""
    draws = range(min(count, len(rows)))
    return [rows.pop(cycle.random.randrange(len(rows))) for _ in draws]
