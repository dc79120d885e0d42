import pytest

from epp.backend.endpoint_table import MAX_ADAPTER_MEMO
from epp.testing.builders import P, make_table


@pytest.mark.parametrize(
    ("adapter", "include_waiting", "want"),
    [
        pytest.param("sql", True, [True, True, False], id="running-or-waiting"),
        pytest.param("sql", False, [True, False, False], id="running-only"),
        pytest.param("unknown", True, [False, False, False], id="nobody"),
        pytest.param("", True, [False, False, False], id="empty-name"),
    ],
)
def test_rows_with_an_adapter(adapter: str, include_waiting: bool, want: list[bool]) -> None:
    table = make_table([P(active={"sql"}), P(waiting_adapters={"sql"}), P(active={"chat"})])

    first = table.has_adapter(adapter, include_waiting=include_waiting)
    again = table.has_adapter(adapter, include_waiting=include_waiting)

    assert list(first) == want
    assert list(again) == want


def test_the_memo_of_adapters_is_bounded() -> None:
    table = make_table([P(active={"sql"})])

    for number in range(MAX_ADAPTER_MEMO + 50):
        table.has_adapter(f"adapter-{number}")

    assert len(table.columns.adapter_rows) == MAX_ADAPTER_MEMO
    assert list(table.has_adapter("sql")) == [True]


def test_masks_of_rows() -> None:
    table = make_table([P(), P(), P()])

    mask = table.all_rows()
    mask[0] = False

    assert list(table.all_rows()) == [True, True, True]
    assert list(table.mask_of([0, 2])) == [True, False, True]
    assert list(table.mask_of([])) == [False, False, False]


def test_age_and_staleness_are_relative_to_the_time_of_the_table() -> None:
    table = make_table([P(fresh=True), P(fresh=False), P(known=False), P(failing=True)])

    assert list(table.stale) == [False, True, True, True]
    assert table.age_seconds[1] == pytest.approx(10.0)
    assert len(table) == 4
