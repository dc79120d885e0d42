"""A tree of filters with success and failure edges.

A node succeeds when it keeps somebody. Success goes on with what it kept; failure goes on with
what the node was given. An edge for one outcome beats the edge for either. A node without a next
node is a leaf: its own result is the tree's, also when that is nobody.
Reference: GAIE v0.3.0 pkg/epp/scheduling/filter.go, v0.5.1 decision_tree_filter.go.
"""

from collections.abc import Callable
from dataclasses import dataclass

from epp.backend.endpoint_table import EndpointTable, Mask
from epp.scheduling.framework import Cycle
from epp.scheduling.types import FilterStep

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


def run_tree(root: Node, cycle: Cycle, table: EndpointTable, candidates: Mask) -> Mask:
    """Walk the tree; every node leaves a step in the cycle."""
    node: Node | None = root
    given = candidates
    while node is not None:
        kept, note = node.keep(cycle, table, given)
        cycle.steps.append(FilterStep(node.name, given, kept, note))
        if kept.any():
            given = kept
            node = node.on_success or node.on_either
        else:
            following = node.on_failure or node.on_either
            if following is None:
                return kept
            node = following
    return given
