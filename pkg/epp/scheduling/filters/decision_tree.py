"""A tree of filters with success and failure edges.

A node succeeds when it keeps somebody. Success goes on with what it kept; failure goes on with
what the node was given. An edge for one outcome beats the edge for either. A node without a next
node is a leaf: its own result is the tree's, also when that is nobody. A node that raises fails;
at a leaf the error is the tree's.
Reference: GAIE v0.3.0 pkg/epp/scheduling/filter.go, v0.5.1 decision_tree_filter.go.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from epp.backend.endpoint_table import EndpointTable, Mask
from epp.scheduling.framework import Cycle
from epp.scheduling.types import FilterStep, PluginFailure, error_text

NODE = "decision-tree-node"
"""Plugin type of a node, in the record of its failure."""

NodeFilter = Callable[[Cycle, EndpointTable, Mask], tuple[Mask, str]]
"""Returns the candidates kept, and a note that says what decided."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One question of the tree.

    Attributes:
        name: For traces.
        keep: The filter.
        on_success: Asked next with what was kept.
        on_failure: Asked next with what was given.
        on_either: Asked next where the specific edge is missing.
    """

    name: str
    keep: NodeFilter
    on_success: "Node | None" = None
    on_failure: "Node | None" = None
    on_either: "Node | None" = None

    @property
    def is_leaf_on_failure(self) -> bool:
        """Nothing is asked when this node keeps nobody."""
        return self.on_failure is None and self.on_either is None


def run_tree(root: Node, cycle: Cycle, table: EndpointTable, candidates: Mask) -> Mask:
    """Walk the tree with at least one candidate; every node leaves a step in the cycle."""
    node: Node | None = root
    given = candidates
    while node is not None:
        try:
            kept, note = node.keep(cycle, table, given)
        except Exception as exc:
            if node.is_leaf_on_failure:
                raise
            kept, note = _failed(cycle, node, given, exc)
        cycle.steps.append(FilterStep(node.name, given, kept, note))
        if kept is given or np.count_nonzero(kept):
            given = kept
            node = node.on_success or node.on_either
        elif node.is_leaf_on_failure:
            return kept
        else:
            node = node.on_failure or node.on_either
    return given


def _failed(cycle: Cycle, node: Node, given: Mask, error: Exception) -> tuple[Mask, str]:
    text = error_text(error)
    cycle.failures.append(
        PluginFailure(extension_point="Filter", type=NODE, name=node.name, error=text, timed=False)
    )
    return np.zeros_like(given), f"failed: {text}"
