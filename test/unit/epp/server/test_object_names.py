"""Names that the API server could have an object or a namespace of."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.server.object_names import parse_namespace, parse_object_name


@pytest.mark.parametrize(
    "name, is_object, is_namespace",
    [
        pytest.param("pool", True, True, id="word"),
        pytest.param("0", True, True, id="digit"),
        pytest.param("a-1", True, True, id="dash"),
        pytest.param("a.b-c.d", True, False, id="dots"),
        pytest.param("a" * 63, True, True, id="longest-label"),
        pytest.param("a" * 64, True, False, id="longer-than-a-label"),
        pytest.param("a" * 253, True, False, id="longest-name"),
        pytest.param("a" * 254, False, False, id="too-long"),
        pytest.param("", False, False, id="empty"),
        pytest.param("A", False, False, id="capital"),
        pytest.param("a_b", False, False, id="underscore"),
        pytest.param("-a", False, False, id="dash-first"),
        pytest.param("a-", False, False, id="dash-last"),
        pytest.param("a..b", False, False, id="two-dots"),
        pytest.param("a.-b", False, False, id="dash-after-dot"),
        pytest.param("a/b", False, False, id="slash"),
        pytest.param("..", False, False, id="parent"),
        pytest.param("a\n", False, False, id="newline"),
        pytest.param("é", False, False, id="not-ascii"),
        pytest.param("٣", False, False, id="other-digit"),
    ],
)
def test_names(name: str, is_object: bool, is_namespace: bool) -> None:
    for parse, is_good in ((parse_object_name, is_object), (parse_namespace, is_namespace)):
        if is_good:
            assert parse(name) == name
        else:
            with pytest.raises(ValueError, match=r"^is not the name of a "):
                parse(name)


@given(st.text(alphabet="ab0-.", max_size=300))
def test_a_namespace_is_always_an_object_name(text: str) -> None:
    try:
        parse_namespace(text)
    except ValueError:
        return
    assert parse_object_name(text) == text
