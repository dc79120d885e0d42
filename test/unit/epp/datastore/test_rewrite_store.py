"""Which rule applies to a model name, whatever happened before."""

from collections.abc import Iterable, Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.datastore.rewrite_store import RankedRule, RewriteStore
from epp.testing.builders import make_rewrite, make_rule
from epp_api.meta import NamespacedName
from epp_api.v1alpha2.inferencemodelrewrite_types import (
    InferenceModelRewrite,
    InferenceModelRewriteRule,
    Match,
    ModelMatch,
)


def store_of(*rewrites: InferenceModelRewrite) -> RewriteStore:
    store = RewriteStore()
    for rewrite in rewrites:
        store.set(rewrite)
    return store


def target_of(rule: RankedRule | None) -> str | None:
    if rule is None:
        return None
    return rule.targets[0].model_rewrite if rule.targets else ""


def exact(target: str, *names: str) -> InferenceModelRewriteRule:
    return make_rule(target, match=names)


GENERIC_OLD = make_rewrite("old", make_rule("g"), created=1)


@pytest.mark.parametrize(
    ("rewrites", "want"),
    [
        pytest.param([], None, id="none"),
        pytest.param([make_rewrite("a")], None, id="no-rules"),
        pytest.param([make_rewrite("a", exact("t", "food"))], "t", id="exact"),
        pytest.param([make_rewrite("a", exact("t", "chat"))], None, id="another-name"),
        pytest.param([make_rewrite("a", exact("t", "Food"))], None, id="case-counts"),
        pytest.param([make_rewrite("a", exact("t", "chat", "food"))], "t", id="any-of-the-matches"),
        pytest.param([make_rewrite("a", exact("t", "food", "food"))], "t", id="matched-twice"),
        pytest.param([GENERIC_OLD], "g", id="generic"),
        pytest.param(
            [GENERIC_OLD, make_rewrite("new", exact("t", "food"), created=9)],
            "t",
            id="A9-exact-wins-though-younger",
        ),
        pytest.param(
            [
                make_rewrite("new", exact("n", "food"), created=2),
                make_rewrite("old", exact("o", "food"), created=1),
            ],
            "o",
            id="oldest-exact",
        ),
        pytest.param(
            [make_rewrite("new", make_rule("n"), created=2), GENERIC_OLD], "g", id="oldest-generic"
        ),
        pytest.param(
            [
                make_rewrite("b", exact("b", "food"), created=1),
                make_rewrite("a", exact("a", "food"), created=1),
            ],
            "a",
            id="tie-by-name",
        ),
        pytest.param(
            [
                make_rewrite("a", exact("other", "food"), namespace="z", created=1),
                make_rewrite("b", exact("b", "food"), namespace="y", created=1),
            ],
            "b",
            id="tie-by-namespace-first",
        ),
        pytest.param(
            [make_rewrite("a", exact("one", "food"), exact("two", "food"))],
            "one",
            id="first-in-the-list",
        ),
        pytest.param(
            [make_rewrite("a", make_rule("g"), exact("t", "food"))],
            "t",
            id="exact-wins-in-the-list-too",
        ),
        pytest.param([make_rewrite("a", exact("", "food"))], "", id="a-nameless-target-is-none"),
        pytest.param(
            [make_rewrite("a", make_rule({}, match=["food"]), created=9), GENERIC_OLD],
            "",
            id="only-the-winner-applies-targets-or-not",
        ),
        pytest.param(
            [make_rewrite("a", exact("t", "food"), created=None), GENERIC_OLD],
            "t",
            id="without-creation-time",
        ),
    ],
)
def test_the_rule_of_a_name(rewrites: Sequence[InferenceModelRewrite], want: str | None) -> None:
    assert target_of(store_of(*rewrites).get("food")) == want


@pytest.mark.parametrize(
    "match",
    [
        pytest.param(Match(), id="no-model"),
        pytest.param(Match(model=ModelMatch(type="Prefix", value="food")), id="unknown-type"),
    ],
)
def test_a_rule_whose_matches_say_nothing_we_know_never_applies(match: Match) -> None:
    rule = msgspec.structs.replace(make_rule("t"), matches=[match])

    store = store_of(make_rewrite("a", rule))

    assert store.get("food") is None
    assert store.delete(NamespacedName("default", "a"))


def test_a_rule_knows_where_it_comes_from() -> None:
    rule = store_of(make_rewrite("a", make_rule(), exact("t", "food"))).get("food")

    assert rule is not None
    assert (rule.rewrite, rule.position) == (NamespacedName("default", "a"), 1)


def test_a_new_version_replaces_all_rules_of_the_old_one() -> None:
    store = store_of(make_rewrite("a", exact("t", "food"), make_rule("g")))

    changed = store.set(make_rewrite("a", exact("t2", "chat")))

    assert changed
    assert store.get("food") is None
    assert target_of(store.get("chat")) == "t2"
    assert store.model_names() == {"chat", "t2"}


def test_setting_the_same_again_changes_nothing() -> None:
    rewrite = make_rewrite("a", make_rule())

    assert not store_of(rewrite).set(rewrite)


def test_the_next_in_line_follows_a_deleted_object() -> None:
    younger = make_rewrite("younger", make_rule("y"), created=2)
    store = store_of(younger, GENERIC_OLD)

    deleted = [store.delete(GENERIC_OLD.metadata.key) for _ in range(2)]

    assert deleted == [True, False]
    assert target_of(store.get("any")) == "y"


def test_names_are_those_matched_and_those_given() -> None:
    store = store_of(
        make_rewrite("a", make_rule({"r7": 1, "r8": 1}, match=["food", "chat"])), GENERIC_OLD
    )

    assert store.model_names() == {"food", "chat", "r7", "r8", "g"}


def test_list_is_sorted_and_clear_forgets_all() -> None:
    store = store_of(make_rewrite("b", make_rule()), make_rewrite("a", exact("t", "food")))

    listed = [rewrite.metadata.name for rewrite in store.list()]
    store.clear()

    assert listed == ["a", "b"]
    assert (len(store), store.get("food"), store.model_names()) == (0, None, frozenset())


NAMES = ("food", "chat")
RULES = st.builds(
    make_rule,
    st.sampled_from(["t1", "t2", "t3"]),
    match=st.lists(st.sampled_from(NAMES), max_size=2),
)
REWRITES = st.builds(
    lambda name, rules, created: make_rewrite(name, *rules, created=created),
    st.sampled_from("abc"),
    st.lists(RULES, max_size=3),
    st.integers(1, 3),
)
EVENTS = st.lists(st.sampled_from("abc") | REWRITES, max_size=15)


@given(EVENTS)
def test_after_any_events_the_answers_are_those_of_the_objects_that_are_left(
    events: list[str | InferenceModelRewrite],
) -> None:
    store = RewriteStore()
    left: dict[NamespacedName, InferenceModelRewrite] = {}

    for event in events:
        if isinstance(event, str):
            key = NamespacedName("default", event)
            store.delete(key)
            left.pop(key, None)
        else:
            store.set(event)
            left[event.metadata.key] = event

    assert list(store.list()) == [left[key] for key in sorted(left)]
    for name in (*NAMES, "other"):
        assert place_of(store.get(name)) == expected_place(left.values(), name)


def place_of(rule: RankedRule | None) -> tuple[str, int] | None:
    return None if rule is None else (rule.rewrite.name, rule.position)


def expected_place(
    rewrites: Iterable[InferenceModelRewrite], model_name: str
) -> tuple[str, int] | None:
    """The definition, written as one sort over everything."""
    ranked = [
        (not names, rewrite.metadata.creation_timestamp, rewrite.metadata.name, position)
        for rewrite in rewrites
        for position, rule in enumerate(rewrite.spec.rules)
        for names in [{match.model.value for match in rule.matches if match.model is not None}]
        if not names or model_name in names
    ]
    if not ranked:
        return None
    *_, name, position = min(ranked)
    return name, position
