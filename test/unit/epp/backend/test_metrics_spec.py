"""The spec syntax: a row per input of the reference's two versions, and our own extensions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.backend.metrics_spec import MetricSpec, parse_metric_spec
from epp.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "name", "labels"),
    [
        pytest.param("m", "m", {}, id="name"),
        pytest.param("  m  ", "m", {}, id="name-in-blanks"),
        pytest.param("m{a=b}", "m", {"a": "b"}, id="one-label"),
        pytest.param('m{a="b"}', "m", {"a": "b"}, id="quotes-are-not-part-of-the-value"),
        pytest.param("  m  {  a  =  b  ,  c  =  d  }  ", "m", {"a": "b", "c": "d"}, id="blanks"),
        pytest.param("m{}", "m", {}, id="empty-block"),
        pytest.param("m{ }", "m", {}, id="blank-block"),
        pytest.param('m{a=""}', "m", {"a": ""}, id="quoted-empty-value"),
        pytest.param("m{a=b=c}", "m", {"a": "b=c"}, id="equals-sign-in-bare-value"),
        pytest.param('m{a="b=c"}', "m", {"a": "b=c"}, id="equals-sign-in-quotes"),
        pytest.param('m{a="b,c"}', "m", {"a": "b,c"}, id="comma-in-quotes"),
        pytest.param('m{a="}"}', "m", {"a": "}"}, id="brace-in-quotes"),
        pytest.param('m{a="x y"}', "m", {"a": "x y"}, id="blank-in-quotes"),
        pytest.param(r'm{a="\"\\"}', "m", {"a": '"\\'}, id="escapes"),
        pytest.param("my metric", "my metric", {}, id="v0.3-did-not-check-names"),
        pytest.param("m{a-b=c}", "m", {"a-b": "c"}, id="v0.3-did-not-check-labels"),
        pytest.param("vllm:x_total{e=0}", "vllm:x_total", {"e": "0"}, id="colon-in-name"),
    ],
)
def test_a_spec_that_either_version_accepts_is_read(
    text: str, name: str, labels: dict[str, str]
) -> None:
    spec = parse_metric_spec(text)

    assert spec is not None
    assert (spec.name, dict(spec.labels)) == (name, labels)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        pytest.param("m{a}", "name=value", id="label-without-value"),
        pytest.param("m{=b}", "label name is empty", id="empty-label-name"),
        pytest.param("m{a=}", "value of label 'a' is empty", id="empty-bare-value"),
        pytest.param("m{ = }", "label name is empty", id="only-equals-sign"),
        pytest.param("m{a=b,}", "name=value", id="trailing-comma"),
        pytest.param("m{a=b", "no closing brace", id="no-closing-brace"),
        pytest.param('m{a="b}', "empty", id="no-closing-quote"),
        pytest.param('m{a="b"c}', "after a quoted value", id="text-behind-quotes"),
        pytest.param("ma=b}", "without an opening one", id="no-opening-brace"),
        pytest.param("m{a=b}x", "after the label section", id="text-behind-the-block"),
        pytest.param("m{}x", "after the label section", id="text-behind-an-empty-block"),
        pytest.param("{a=b}", "metric name is empty", id="no-name"),
        pytest.param("   ", "metric name is empty", id="only-blanks"),
        pytest.param("m{", "name=value", id="only-opening-brace"),
        pytest.param("m{a=b,a=c}", "'a' is given twice", id="label-twice"),
    ],
)
def test_a_bad_spec_is_refused_by_flag_and_value(text: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_metric_spec(text, source="--kv-cache-usage-percentage-metric")

    assert problem in str(caught.value)
    assert "--kv-cache-usage-percentage-metric" in str(caught.value)
    assert repr(text) in str(caught.value)


def test_an_empty_text_switches_the_signal_off() -> None:
    assert parse_metric_spec("") is None


_NAMES = st.from_regex(r"[a-zA-Z_:][a-zA-Z0-9_:]{0,12}", fullmatch=True)
_LABELS = st.from_regex(r"[a-zA-Z_][a-zA-Z0-9_]{0,8}", fullmatch=True)


@given(name=_NAMES, labels=st.dictionaries(_LABELS, st.text(max_size=12), max_size=3))
def test_a_spec_survives_being_written_and_read(name: str, labels: dict[str, str]) -> None:
    spec = MetricSpec(name=name, labels=tuple(labels.items()))

    assert parse_metric_spec(str(spec)) == spec


@pytest.mark.fuzz
@given(text=st.text(alphabet='m{}=,"\\ ab\n', max_size=20))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        spec = parse_metric_spec(text, source="flag")
    except ConfigError:
        return

    assert spec is None or spec.name
