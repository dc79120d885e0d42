"""weighted-random-picker: a draw in proportion to the totals; uniform when all are zero."""

from collections.abc import Sequence

import numpy as np

from epp.backend.endpoint_table import EndpointTable, Floats, Mask
from epp.scheduling.framework import Cycle, TypedName

WEIGHTED_RANDOM_PICKER_TYPE = "weighted-random-picker"


class WeightedRandomPicker:
    """Picks up to ``max_endpoints`` candidates, each draw in proportion to what totals are left.

    Args:
        name: Instance name.
        max_endpoints: Length of the answer, >= 1.
    """

    def __init__(self, name: str = WEIGHTED_RANDOM_PICKER_TYPE, *, max_endpoints: int = 1) -> None:
        self.typed_name = TypedName(WEIGHTED_RANDOM_PICKER_TYPE, name)
        self._max_endpoints = max_endpoints

    def pick(
        self, cycle: Cycle, _table: EndpointTable, candidates: Mask, totals: Floats
    ) -> Sequence[int]:
        """Draw without replacement."""
        rows = np.flatnonzero(candidates).tolist()
        weights = [max(0.0, float(totals[row])) for row in rows]
        picks = []
        for _ in range(min(self._max_endpoints, len(rows))):
            at = _draw(cycle, weights)
            picks.append(rows.pop(at))
            weights.pop(at)
        return picks


def _draw(cycle: Cycle, weights: Sequence[float]) -> int:
    total = sum(weights)
    if total <= 0:
        return cycle.random.randrange(len(weights))
    point = cycle.random.random() * total
    for at, weight in enumerate(weights):
        if point < weight:
            return at
        point -= weight
    return max(at for at, weight in enumerate(weights) if weight > 0)
