import random

import numpy as np
import pytest

from epp.backend.endpoint_table import EndpointTable, Mask
from epp.scheduling.filters.decision_tree import NODE, Node, NodeFilter, run_tree
from epp.scheduling.framework import Cycle
from epp.scheduling.types import InferenceRequest
from epp.testing.builders import P, make_table

TABLE = make_table([P(), P(), P()])


def cycle() -> Cycle:
    return Cycle(InferenceRequest(request_id="r"), random.Random(1))


def keeps(*rows: int) -> NodeFilter:
    """A node that keeps these rows of what it is given."""

    def keep(_cycle: Cycle, table: EndpointTable, given: Mask) -> tuple[Mask, str]:
        return given & table.mask_of(rows), f"rows {rows}"

    return keep


def raises(_cycle: Cycle, _table: EndpointTable, _given: Mask) -> tuple[Mask, str]:
    raise ValueError("broken node")


ALL = Node(name="next", keep=keeps(0, 1, 2))
OTHER = Node(name="other", keep=keeps(0, 1, 2))


@pytest.mark.parametrize(
    ("root", "want", "path"),
    [
        pytest.param(Node(name="root", keep=keeps(1)), [1], ["root"], id="leaf-success"),
        pytest.param(Node(name="root", keep=keeps()), [], ["root"], id="leaf-failure-is-empty"),
        pytest.param(
            Node(name="root", keep=keeps(1), on_success=ALL),
            [1],
            ["root", "next"],
            id="success-hands-on-what-it-kept",
        ),
        pytest.param(
            Node(name="root", keep=keeps(), on_failure=ALL),
            [0, 1, 2],
            ["root", "next"],
            id="failure-hands-on-what-it-was-given",
        ),
        pytest.param(
            Node(name="root", keep=keeps(1), on_success=ALL, on_either=OTHER),
            [1],
            ["root", "next"],
            id="success-edge-beats-either",
        ),
        pytest.param(
            Node(name="root", keep=keeps(), on_failure=ALL, on_either=OTHER),
            [0, 1, 2],
            ["root", "next"],
            id="failure-edge-beats-either",
        ),
        pytest.param(
            Node(name="root", keep=keeps(2), on_failure=OTHER),
            [2],
            ["root"],
            id="success-without-an-edge-ends",
        ),
        pytest.param(
            Node(name="root", keep=keeps(), on_either=ALL),
            [0, 1, 2],
            ["root", "next"],
            id="either-makes-a-failing-node-a-no-op",
        ),
        pytest.param(
            Node(
                name="root",
                keep=keeps(0, 1),
                on_success=Node(name="second", keep=keeps(2), on_failure=ALL),
            ),
            [0, 1],
            ["root", "second", "next"],
            id="original-input-is-the-nodes-own",
        ),
        pytest.param(
            Node(name="root", keep=raises, on_failure=ALL),
            [0, 1, 2],
            ["root", "next"],
            id="an-error-is-a-failure",
        ),
    ],
)
def test_edges(root: Node, want: list[int], path: list[str]) -> None:
    run = cycle()

    kept = run_tree(root, run, TABLE, TABLE.all_rows())

    assert list(np.flatnonzero(kept)) == want
    assert [step.name for step in run.steps] == path


def test_every_node_says_what_it_was_given_what_it_kept_and_why() -> None:
    run = cycle()

    run_tree(Node(name="root", keep=keeps(0, 1), on_success=ALL), run, TABLE, TABLE.all_rows())

    assert [step.note for step in run.steps] == ["rows (0, 1)", "rows (0, 1, 2)"]
    assert list(run.steps[1].before) == [True, True, False]


def test_a_node_that_raises_is_named_and_was_seen_by_no_timer() -> None:
    run = cycle()

    run_tree(Node(name="root", keep=raises, on_either=ALL), run, TABLE, TABLE.all_rows())

    (failure,) = run.failures
    assert (failure.type, failure.name, failure.timed) == (NODE, "root", False)
    assert failure.error == "ValueError: broken node"
    assert run.steps[0].note == "failed: ValueError: broken node"


def test_an_error_of_a_leaf_is_the_trees() -> None:
    with pytest.raises(ValueError, match="broken node"):
        run_tree(Node(name="root", keep=raises), cycle(), TABLE, TABLE.all_rows())
