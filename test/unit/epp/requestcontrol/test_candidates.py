from collections.abc import Sequence

import pytest

from epp.backend.endpoint_rows import EndpointRows
from epp.backend.endpoint_table import EndpointTable
from epp.errors import UnavailableError
from epp.requestcontrol.candidates import MAX_SUBSETS, Candidates, split_host_port, subset_mask
from epp.testing.builders import make_endpoint


def table(*targets: tuple[str, int]) -> EndpointTable:
    """Endpoints at these addresses, one pod each unless an address repeats (then: ranks)."""
    rows = EndpointRows()
    for position, (address, port) in enumerate(targets):
        rows.put(make_endpoint(f"pod-{position}", address=address, port=port))
    return rows.snapshot(0.0)


ONE_EACH = table(("10.0.0.1", 8000), ("10.0.0.2", 8000))
RANKS = table(("10.0.0.1", 8000), ("10.0.0.1", 8001), ("10.0.0.2", 8000))
V6 = table(("fd00::1", 8000), ("fd00::2", 8000))
V6_RANKS = table(("fd00::1", 8000), ("fd00::1", 8001))


@pytest.mark.parametrize(
    ("pool", "hint", "want"),
    [
        pytest.param(ONE_EACH, ["10.0.0.2"], [1], id="address-alone"),
        pytest.param(ONE_EACH, ["10.0.0.2:8000"], [1], id="address-and-port"),
        pytest.param(ONE_EACH, ["10.0.0.2:9999"], [1], id="port-ignored"),
        pytest.param(ONE_EACH, [" 10.0.0.2 "], [1], id="blanks"),
        pytest.param(ONE_EACH, ["10.0.0.3", "10.0.0.1"], [0], id="unknown-entries-skipped"),
        pytest.param(ONE_EACH, ["", ":", "[", "x"], [], id="garbage"),
        pytest.param(RANKS, ["10.0.0.1:8001"], [1], id="port-chooses-among-ranks"),
        pytest.param(RANKS, ["10.0.0.1"], [0, 1], id="all-ranks-without-a-port"),
        pytest.param(RANKS, ["10.0.0.1:8001", "10.0.0.1"], [0, 1], id="the-wider-entry-wins"),
        pytest.param(RANKS, ["10.0.0.1:9999"], [], id="no-such-rank"),
        pytest.param(V6, ["[fd00::2]:8000"], [1], id="v6-brackets-and-port"),
        pytest.param(V6, ["[fd00::2]"], [1], id="v6-brackets"),
        pytest.param(V6, ["fd00::2"], [1], id="v6-bare"),
        pytest.param(V6, ["[FD00:0:0::2]:8000"], [1], id="v6-other-spelling"),
        pytest.param(V6_RANKS, ["[fd00::1]:8001"], [1], id="v6-ranks"),
    ],
)
def test_rows_of_a_hint(pool: EndpointTable, hint: Sequence[str], want: list[int]) -> None:
    assert subset_mask(pool, hint).nonzero()[0].tolist() == want


@pytest.mark.parametrize(
    ("entry", "want"),
    [
        pytest.param("1.2.3.4:80", ("1.2.3.4", 80), id="v4"),
        pytest.param("1.2.3.4:", ("1.2.3.4", None), id="empty-port"),
        pytest.param("1.2.3.4:８０", ("1.2.3.4", None), id="digits-of-other-scripts"),
        pytest.param("1.2.3.4:123456789", ("1.2.3.4", None), id="port-too-long"),
        pytest.param("[::1", ("::1", None), id="open-bracket"),
        pytest.param("a:b:c", ("a:b:c", None), id="no-address"),
    ],
)
def test_splitting(entry: str, want: tuple[str, int | None]) -> None:
    assert split_host_port(entry) == want


def test_without_a_hint_everybody_is_a_candidate() -> None:
    assert Candidates().of(ONE_EACH, None).tolist() == [True, True]


def test_hints_can_be_switched_off() -> None:
    assert Candidates(honour_subset=False).of(ONE_EACH, ()).tolist() == [True, True]


@pytest.mark.parametrize(
    ("pool", "hint"),
    [
        pytest.param(table(), None, id="no-endpoint"),
        pytest.param(ONE_EACH, (), id="empty-hint"),
        pytest.param(ONE_EACH, ("10.9.9.9",), id="no-match"),
    ],
)
def test_no_candidate_is_unavailable(pool: EndpointTable, hint: tuple[str, ...] | None) -> None:
    with pytest.raises(UnavailableError) as info:
        Candidates().of(pool, hint)

    assert info.value.dropped_reason == "rejected-no-endpoints"


def test_a_hint_is_remembered_until_the_endpoints_change() -> None:
    rows = EndpointRows()
    rows.put(make_endpoint("a", address="10.0.0.1"))
    candidates = Candidates()

    first = candidates.of(rows.snapshot(0.0), ("10.0.0.1",))
    rows.add_in_flight(make_endpoint("a").key, 1)
    again = candidates.of(rows.snapshot(1.0), ("10.0.0.1",))
    rows.put(make_endpoint("b", address="10.0.0.2"))
    after = candidates.of(rows.snapshot(2.0), ("10.0.0.1",))

    assert again is first
    assert after.tolist() == [True, False]


def test_everybody_follows_the_number_of_endpoints() -> None:
    candidates = Candidates()

    counts = [candidates.of(pool, None).tolist() for pool in (ONE_EACH, RANKS, ONE_EACH)]

    assert counts == [[True] * 2, [True] * 3, [True] * 2]


@pytest.mark.parametrize(
    "hint", [pytest.param(("10.0.0.1",), id="hint"), pytest.param(None, id="everybody")]
)
def test_a_remembered_mask_cannot_be_written_to(hint: tuple[str, ...] | None) -> None:
    mask = Candidates().of(ONE_EACH, hint)

    with pytest.raises(ValueError, match="read-only"):
        mask[0] = False


def test_the_memory_of_hints_is_bounded() -> None:
    candidates = Candidates()

    for number in range(MAX_SUBSETS + 10):
        candidates.of(ONE_EACH, ("10.0.0.1", str(number)))

    assert len(candidates._masks) == MAX_SUBSETS
