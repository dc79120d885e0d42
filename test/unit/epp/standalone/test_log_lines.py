"""Log lines of a run: one format for everybody."""

import pytest

from epp.standalone.log_lines import LineSink, readable

INFO = '{"event": "pool set", "level": "info", "time": "t", "logger_name": "n", "pool": "a/b"}'
WARNING = '{"event": "pool gone", "level": "warning"}'


@pytest.mark.parametrize(
    ("line", "everything", "want"),
    [
        pytest.param(INFO, True, "epp: pool set pool=a/b", id="information"),
        pytest.param(INFO, False, "", id="information-not-wanted"),
        pytest.param(WARNING, False, "epp: warning: pool gone", id="warning"),
        pytest.param("Segmentation fault", False, "epp: Segmentation fault", id="plain-text"),
        pytest.param("epp: --port: no", True, "epp: --port: no", id="named-already"),
        pytest.param("[1]", True, "epp: [1]", id="other-json"),
        pytest.param("", True, "", id="empty"),
    ],
)
def test_a_line_as_people_read_it(line, everything, want):
    assert readable(line, program="epp", everything=everything) == want


def test_pieces_of_lines_are_put_together():
    lines: list[str] = []
    sink = LineSink(lines.append)

    for piece in ("a", "b\nc\n", "d"):
        sink.write(piece)

    assert lines == ["ab", "c"]
