"""max-score-picker: the candidate with the highest total; ties are broken at random."""

from collections.abc import Sequence

import numpy as np

from epp.backend.endpoint_table import EndpointTable, Floats, Mask
from epp.scheduling.framework import Cycle, TypedName
from epp.scheduling.pickers.random_picker import draw_rows

MAX_SCORE_PICKER_TYPE = "max-score-picker"


class MaxScorePicker:
    """Picks up to ``max_endpoints`` candidates by descending total.

    Args:
        name: Instance name.
        max_endpoints: Length of the answer, >= 1.
    """

    def __init__(self, name: str = MAX_SCORE_PICKER_TYPE, *, max_endpoints: int = 1) -> None:
        self.typed_name = TypedName(MAX_SCORE_PICKER_TYPE, name)
        self._max_endpoints = max_endpoints

    def pick(
        self, cycle: Cycle, _table: EndpointTable, candidates: Mask, totals: Floats
    ) -> Sequence[int]:
        """Take the best; among equals draw."""
        rows = np.flatnonzero(candidates)
        values = totals[rows]
        if self._max_endpoints == 1:
            best = rows[values == values.max()].tolist()
            return draw_rows(cycle, best, 1)
        shuffled = draw_rows(cycle, rows.tolist(), len(rows))
        return sorted(shuffled, key=lambda row: -totals[row])[: self._max_endpoints]
