"""Cells: bucket edges, and the bound on the number of children."""

from typing import Any

import pytest

from epp.metrics import request_families as request
from epp.metrics import system_families as system
from epp.metrics.cells import HistogramCell, number_store
from epp.metrics.label_cap import LabelCap


@pytest.mark.parametrize(
    "value, want",
    [
        pytest.param(-1.0, [1, 0, 0], id="below"),
        pytest.param(1.0, [1, 0, 0], id="on-the-first-bound"),
        pytest.param(1.1, [0, 1, 0], id="between"),
        pytest.param(2.0, [0, 1, 0], id="on-the-last-bound"),
        pytest.param(2.1, [0, 0, 1], id="beyond"),
    ],
)
def test_a_value_falls_into_the_first_bucket_that_holds_it(value: Any, want: Any) -> None:
    cell = HistogramCell((1.0, 2.0))

    cell.observe(value)

    assert cell.counts == want
    assert cell.total == value


def test_beyond_the_limit_new_children_share_one_that_keeps_known_labels() -> None:
    store = number_store(request.REQUEST_ERROR_TOTAL, kept_labels=("error_code",), max_cells=1)
    first = store.cell("a", "a", "0", "Internal")

    shared = store.cell("b", "b", "0", "BadRequest")

    assert store.cell("a", "a", "0", "Internal") is first
    assert store.cell("c", "", "7", "BadRequest") is not shared
    assert store.cell("c", "c", "7", "BadRequest") is shared
    assert [values for values, _ in store.items()] == [
        ("a", "a", "0", "Internal"),
        ("other", "other", "other", "BadRequest"),
        ("other", "", "other", "BadRequest"),
    ]


def test_discard_forgets_only_what_is_gone() -> None:
    store = number_store(system.SCRAPE_FAILURES)
    store.cell("timeout")
    store.cell("refused")

    store.discard(lambda labels: labels == ("timeout",))

    assert [values for values, _ in store.items()] == [("refused",)]


@pytest.mark.parametrize(
    "value, want",
    [
        pytest.param("", "", id="empty-passes"),
        pytest.param("pinned", "pinned", id="declared"),
        pytest.param("seen", "seen", id="admitted-before"),
        pytest.param("new", "other", id="over-the-cap"),
    ],
)
def test_a_full_cap_admits_what_it_knows(value: Any, want: Any) -> None:
    cap = LabelCap(1)
    cap.pin(["pinned"])
    cap.admit("seen")

    assert cap.admit(value) == want


def test_pinning_an_admitted_name_frees_its_place() -> None:
    cap = LabelCap(1)
    cap.admit("declared-later")

    cap.pin(["declared-later"])

    assert cap.admit("next") == "next"


@pytest.mark.parametrize("value", ["x" * 257, "\udcff"])
def test_names_that_make_no_label_are_other_even_with_room(value: Any) -> None:
    assert LabelCap(10).admit(value) == "other"
