import pytest

from epp.datastore.age import age_key
from epp.testing.builders import make_model


@pytest.mark.parametrize(
    ("older", "younger"),
    [
        pytest.param(("b", 1000), ("a", 1001), id="creation-first"),
        pytest.param(("a", 1000), ("b", 1000), id="then-the-name"),
        pytest.param(("b", 1000), ("a", None), id="no-creation-is-youngest"),
        pytest.param(("b", 1000), ("a", "soon"), id="unreadable-is-youngest"),
        pytest.param(
            ("b", "2025-03-01T12:00:00+02:00"), ("a", "2025-03-01T10:00:01Z"), id="as-an-instant"
        ),
    ],
)
def test_order(older: tuple[str, str | int], younger: tuple[str, str | int | None]) -> None:
    first, second = (make_model(name, created=created) for name, created in (older, younger))

    assert age_key(first.metadata) < age_key(second.metadata)
