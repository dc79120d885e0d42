"""Faults: how they are written, and when they hit."""

import random

import pytest

from epp.errors import ConfigError
from epp.modelsim.faults import (
    Fault,
    FaultBoard,
    FaultKind,
    FaultTarget,
    fault_from_json,
    fault_names,
    parse_fault,
)


@pytest.mark.parametrize(
    ("text", "want"),
    [
        pytest.param("hang", Fault(kind=FaultKind.HANG), id="a-word"),
        pytest.param("500:0.25", Fault(kind=FaultKind.ERROR, probability=0.25), id="probability"),
        pytest.param(
            "slow:0.5:3",
            Fault(kind=FaultKind.SLOW, probability=0.5, seconds=3.0),
            id="seconds",
        ),
        pytest.param(
            "metrics-garbage",
            Fault(target=FaultTarget.METRICS, kind=FaultKind.GARBAGE),
            id="of-the-metrics",
        ),
        pytest.param(
            "health-reset", Fault(target=FaultTarget.HEALTH, kind=FaultKind.RESET), id="of-health"
        ),
    ],
)
def test_a_fault_is_written_as_kind_probability_seconds(text: str, want: Fault) -> None:
    assert parse_fault(text) == want


@pytest.mark.parametrize("name", fault_names())
def test_every_listed_fault_can_be_written(name: str) -> None:
    assert parse_fault(name).name == name


@pytest.mark.parametrize(
    ("text", "want"),
    [
        pytest.param("explode", "fault: is none of hang, 500,", id="unknown"),
        pytest.param("garbage", "is none of", id="garbage-is-for-metrics"),
        pytest.param("metrics-cut", "is none of", id="metrics-have-no-tokens"),
        pytest.param("500:often", "probability: is not a number", id="no-number"),
        pytest.param("500:2", "probability: must be between 0 and 1 (got 2.0)", id="above-one"),
        pytest.param("500:nan", "probability: must be between 0 and 1", id="nan"),
        pytest.param("slow:1:-1", "seconds: must be between", id="negative"),
        pytest.param("slow:1:1:1", "is not KIND[:PROBABILITY[:SECONDS]]", id="too-much"),
    ],
)
def test_a_bad_fault_names_field_and_value(text: str, want: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_fault(text)

    assert want in str(caught.value)


def test_a_posted_fault_may_have_a_count() -> None:
    document = {"fault": "slow", "probability": 0.5, "seconds": 2, "count": 3}

    assert fault_from_json(document) == Fault(
        kind=FaultKind.SLOW, probability=0.5, seconds=2.0, count=3
    )


@pytest.mark.parametrize(
    ("document", "want"),
    [
        pytest.param([], 'needs {"fault": "KIND"}', id="no-object"),
        pytest.param({"fault": 500}, 'needs {"fault": "KIND"}', id="no-text"),
        pytest.param({"fault": "500", "prob": 1}, "prob: unknown field", id="unknown-field"),
        pytest.param({"fault": "500", "count": 0}, "count: must be at least 1", id="count-zero"),
        pytest.param({"fault": "500", "count": 1.5}, "count: is not a whole", id="count-broken"),
        pytest.param({"fault": "500", "probability": True}, "is not a number", id="boolean"),
        pytest.param({"fault": "500", "probability": None}, "is not a number", id="null"),
    ],
)
def test_a_bad_posted_fault_names_the_field(document: object, want: str) -> None:
    with pytest.raises(ConfigError) as caught:
        fault_from_json(document)

    assert want in str(caught.value)


def test_a_counted_fault_is_spent_after_its_hits() -> None:
    board = FaultBoard((Fault(kind=FaultKind.RESET, count=2),), random.Random(1))

    hits = [board.draw(FaultTarget.REQUESTS) is not None for _ in range(4)]

    assert hits == [True, True, False, False]
    assert board.active == ()


def test_a_fault_hits_its_target_only() -> None:
    board = FaultBoard((parse_fault("metrics-500"),), random.Random(1))

    assert board.draw(FaultTarget.REQUESTS) is None
    assert board.draw(FaultTarget.METRICS) == parse_fault("metrics-500")


def test_a_probability_is_a_share_of_the_requests() -> None:
    board = FaultBoard((parse_fault("500:0.25"),), random.Random(1))

    hits = sum(board.draw(FaultTarget.REQUESTS) is not None for _ in range(4000))

    assert 900 < hits < 1100


def test_a_later_fault_replaces_the_one_of_its_name() -> None:
    board = FaultBoard((parse_fault("500:0.1"), parse_fault("hang")), random.Random(1))
    board.set(parse_fault("500:0.9"))

    assert [fault.probability for fault in board.active] == [0.9, 1.0]
    board.clear("500")
    assert [fault.name for fault in board.active] == ["hang"]
    board.clear()
    assert board.active == ()
