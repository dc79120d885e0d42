"""Prometheus text, against the official parser and the official number format."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.utils import floatToGoString

from epp.modelsim.exposition import Family, Histogram, Value, format_float, series


@pytest.mark.parametrize(
    ("value", "want"),
    [
        pytest.param(0.0, "0.0", id="zero"),
        pytest.param(1, "1.0", id="integer"),
        pytest.param(1795576302.5, "1.7955763025e+09", id="unix-time"),
        pytest.param(10_000_000.0, "1e+07", id="round"),
        pytest.param(999_999.5, "999999.5", id="below-a-million"),
        pytest.param(4.890300033366657e-05, "4.890300033366657e-05", id="small"),
        pytest.param(math.inf, "+Inf", id="infinite"),
    ],
)
def test_numbers_look_like_those_of_a_python_server(value: float, want: str) -> None:
    assert format_float(value) == want


def official(value: float) -> str:
    return str(floatToGoString(value))


@given(st.floats(allow_nan=False))
def test_numbers_equal_the_official_format(value: float) -> None:
    assert format_float(value) == official(value)


def test_labels_are_sorted_and_escaped() -> None:
    assert series("m", {"b": 'x"y', "a": "c\\d\n"}) == 'm{a="c\\\\d\\n",b="x\\"y"}'


def test_a_histogram_is_cumulative() -> None:
    histogram = Histogram("h", {"a": "1"}, (1.0, 5.0))
    for value in (0.5, 1.0, 3.0, 9.0):
        histogram.observe(value)

    assert histogram.lines() == (
        'h_bucket{a="1",le="1.0"} 2.0\nh_bucket{a="1",le="5.0"} 3.0\n'
        'h_bucket{a="1",le="+Inf"} 4.0\nh_count{a="1"} 4.0\nh_sum{a="1"} 13.5\n'
    )


def test_without_buckets_it_is_a_summary() -> None:
    summary = Histogram("s", {}, ())
    summary.observe(2.0, times=3)

    assert summary.lines() == "s_count 3.0\ns_sum 6.0\n"


def test_text_follows_the_value() -> None:
    value = Value("v", {})

    before = value.lines()
    value.inc(2)
    after_increment = value.lines()
    value.set(7)

    assert (before, after_increment, value.lines()) == ("v 0.0\n", "v 2.0\n", "v 7.0\n")


def test_a_family_is_read_by_the_official_parser() -> None:
    family = Family("h", "histogram", "Some text.")
    family.samples.append(Histogram("h", {"a": "1"}, (1.0,)))

    (parsed,) = text_string_to_metric_families(family.render())

    assert (parsed.name, parsed.type, parsed.documentation) == ("h", "histogram", "Some text.")
    assert len(parsed.samples) == 4


def test_a_restricted_family_keeps_the_named_samples_only() -> None:
    family = Family("h", "histogram", "Text.")
    family.samples.append(Histogram("h", {"a": "1"}, (1.0,)))

    text = family.render_only(frozenset({"h_count"}))

    assert text == '# HELP h Text.\n# TYPE h histogram\nh_count{a="1"} 0.0\n'
    assert family.render_only(frozenset({"other"})) == ""
