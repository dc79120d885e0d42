"""The generated pages say defaults as a reader writes them."""

import pytest


@pytest.mark.parametrize(
    "variable, default",
    [
        pytest.param("POD_NAME", "empty", id="a-word-for-nothing"),
        pytest.param("KV_CACHE_THRESHOLD", "`0.8`", id="code-for-a-value"),
    ],
)
def test_the_default_of_a_variable(hack, variable, default):
    rows = hack("gen_metrics_docs").flags_document().splitlines()
    (row,) = [row for row in rows if row.startswith(f"| `{variable}` |")]

    assert row.split(" | ")[1] == default
