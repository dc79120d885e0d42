import pytest

from epp.errors import ConfigError
from epp.sources.caches import SourceCaches
from epp.sources.pool_choice import choose_pool
from epp.testing.builders import make_old_pool, make_pool

Keys = list[tuple[str, str]]


def caches(keys: Keys, old_keys: Keys = []) -> SourceCaches:  # noqa: B006 - never changed
    filled = SourceCaches()
    for namespace, name in keys:
        filled.pools_v1.upsert(make_pool(name, namespace=namespace))
    for namespace, name in old_keys:
        filled.pools_v1alpha2.upsert(make_old_pool(name, namespace=namespace))
    return filled


A, B, OTHER_A = ("default", "a"), ("default", "b"), ("prod", "a")


@pytest.mark.parametrize(
    ("keys", "name", "namespace", "want"),
    [
        pytest.param([A], "", None, A, id="the-only-one"),
        pytest.param([A, OTHER_A], "", "prod", OTHER_A, id="the-only-one-of-the-namespace"),
        pytest.param([A, B], "b", None, B, id="named"),
        pytest.param([B, OTHER_A], "a", None, OTHER_A, id="named-wherever-it-is"),
        pytest.param([A, OTHER_A], "a", "prod", OTHER_A, id="named-with-namespace"),
        pytest.param([], "c", None, ("default", "c"), id="not-there-yet"),
        pytest.param([A], "c", "prod", ("prod", "c"), id="not-there-yet-in-a-namespace"),
    ],
)
def test_the_pool_that_is_served(
    keys: Keys, name: str, namespace: str | None, want: tuple[str, str]
) -> None:
    assert choose_pool(caches(keys), name=name, namespace=namespace) == want


@pytest.mark.parametrize(
    ("keys", "name", "namespace", "message"),
    [
        pytest.param([], "", None, "there is no InferencePool here", id="none"),
        pytest.param([A], "", "prod", "there is no InferencePool here", id="none-in-namespace"),
        pytest.param([A, B], "", None, "there are 2 .*: default/a, default/b", id="several"),
        pytest.param(
            [A, OTHER_A], "a", None, "several namespaces.*default/a, prod/a", id="ambiguous-name"
        ),
    ],
)
def test_an_undecided_choice_lists_what_there_is(
    keys: Keys, name: str, namespace: str | None, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        choose_pool(caches(keys), name=name, namespace=namespace)


def test_a_pool_of_both_versions_is_one_pool() -> None:
    assert choose_pool(caches([A], [A]), name="", namespace=None) == A


def test_a_pool_of_the_old_version_counts() -> None:
    assert choose_pool(caches([], [B]), name="", namespace=None) == B


def test_a_broken_pool_may_be_the_one_that_is_meant() -> None:
    with pytest.raises(ConfigError, match=r"cannot be used \(default/b, see above\)"):
        choose_pool(caches([A]), name="", namespace=None, broken=["default/b"])


def test_a_broken_pool_does_not_matter_to_a_named_one() -> None:
    assert choose_pool(caches([A]), name="a", namespace=None, broken=["default/b"]) == A
