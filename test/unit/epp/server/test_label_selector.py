"""The grammar of label selectors, and what they match."""

import pytest

from epp.server.label_selector import parse_label_selector

LABELS = {"app": "vllm", "tier": "gold", "rank": "7", "empty": "", "example.com/zone": "a.b_c"}


@pytest.mark.parametrize(
    "text, want",
    [
        pytest.param("app=vllm", True, id="equals"),
        pytest.param("app==vllm", True, id="equals-twice"),
        pytest.param(" app = vllm , tier = gold ", True, id="spaces"),
        pytest.param("app=sglang", False, id="other-value"),
        pytest.param("app=vllm,tier=silver", False, id="one-of-two-fails"),
        pytest.param("empty=", True, id="empty-value"),
        pytest.param("missing=", False, id="empty-is-not-absent"),
        pytest.param("app!=sglang", True, id="differs"),
        pytest.param("app!=vllm", False, id="does-not-differ"),
        pytest.param("missing!=x", True, id="absent-differs"),
        pytest.param("tier in (gold, silver)", True, id="in"),
        pytest.param("tier in (bronze)", False, id="not-in-the-set"),
        pytest.param("missing in (gold)", False, id="absent-is-in-no-set"),
        pytest.param("empty in ()", True, id="empty-set-is-the-empty-value"),
        pytest.param("tier notin (bronze,iron)", True, id="notin"),
        pytest.param("tier notin (gold)", False, id="notin-fails"),
        pytest.param("missing notin (gold)", True, id="absent-is-notin"),
        pytest.param("app", True, id="exists"),
        pytest.param("missing", False, id="does-not-exist"),
        pytest.param("!missing", True, id="absent"),
        pytest.param("! app", False, id="not-absent"),
        pytest.param("rank>6", True, id="above"),
        pytest.param("rank > 7", False, id="not-above-itself"),
        pytest.param("rank<10", True, id="below-as-a-number"),
        pytest.param("app<10", False, id="words-are-no-numbers"),
        pytest.param("missing>0", False, id="absent-is-no-number"),
        pytest.param("example.com/zone=a.b_c", True, id="prefixed-key"),
        pytest.param("app in (a,vllm),tier notin (b,c),!missing", True, id="mixed"),
        pytest.param("in in (in),notin", False, id="operators-are-keys-too"),
    ],
)
def test_a_selector_matches(text: str, want: bool) -> None:
    assert parse_label_selector(text).matches(LABELS) is want


@pytest.mark.parametrize(
    "text, problem",
    [
        pytest.param("a=b,", "cannot read the term ''", id="trailing-comma"),
        pytest.param("a b", "cannot read the term 'a b'", id="two-words"),
        pytest.param("a in b", "cannot read the term 'a in b'", id="no-parentheses"),
        pytest.param("a in (b", "cannot read the term 'a in (b'", id="open-parenthesis"),
        pytest.param("a in (b))", "cannot read the term 'a in (b))'", id="closed-twice"),
        pytest.param("ain (b)", "cannot read the term 'ain (b)'", id="no-space"),
        pytest.param("a=b=c", "cannot read the term 'a=b=c'", id="two-operators"),
        pytest.param("=b", "cannot read the term '=b'", id="no-key"),
        pytest.param("!a=b", "cannot read the term '!a=b'", id="negated-equality"),
        pytest.param("ok=1,-a=b", "'-a' is not a label key in the term '-a=b'", id="key"),
        pytest.param("a/b/c=d", "'a/b/c' is not a label key", id="two-slashes"),
        pytest.param("/c=d", "'/c' is not a label key", id="empty-prefix"),
        pytest.param("Ex.com/c", "'Ex.com/c' is not a label key", id="prefix-in-capitals"),
        pytest.param("a" * 64, "is not a label key", id="long-key"),
        pytest.param(f"{'a.' * 127}b/c", "is not a label key", id="long-prefix"),
        pytest.param("a=-b", "'-b' is not a label value", id="value"),
        pytest.param("a=" + "b" * 64, "is not a label value", id="long-value"),
        pytest.param("a in (b,c!)", "'c!' is not a label value", id="value-in-a-set"),
        pytest.param("a>b", "'b' is not a whole number", id="number"),
        pytest.param("a<", "'' is not a whole number", id="no-number"),
        pytest.param("a=ü", "'ü' is not a label value", id="not-ascii"),
    ],
)
def test_a_bad_selector_is_refused_by_term(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match="is not a label selector: ") as caught:
        parse_label_selector(text)

    assert problem in str(caught.value)


def test_the_canonical_form_is_what_the_api_takes_and_parses_to_the_same() -> None:
    selector = parse_label_selector("a == b, c in ( x,y, x ),d notin(z) , ! e,f, g>1,h!=2")

    assert str(selector) == "a=b,c in (x,y),d notin (z),!e,f,g>1,h!=2"
    assert parse_label_selector(str(selector)) == selector


@pytest.mark.parametrize(
    "text, want",
    [
        pytest.param("a=b,c=d", {"a": "b", "c": "d"}, id="equality-only"),
        pytest.param("a=b,c", None, id="existence"),
        pytest.param("a in (b)", None, id="set"),
        pytest.param("a=b,a=c", None, id="one-key-twice"),
    ],
)
def test_equality_selectors_are_labels(text: str, want: dict[str, str] | None) -> None:
    assert parse_label_selector(text).equalities == want
