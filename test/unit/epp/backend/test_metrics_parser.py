"""The targeted scan: what it reads, what it skips, and that it agrees with a full parser."""

import math
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from epp.backend.metrics_parser import MEMO_UP_TO_BYTES, PageScanner

Found = list[tuple[dict[str, str], float, float]]


def scan(page: str | bytes, *names: str) -> tuple[dict[str, Found], int]:
    scanner = PageScanner(names or ("m",))
    result = scanner.scan(page.encode() if isinstance(page, str) else page)
    found = {
        name: [(dict(scanner.labels(s)), s.value, s.timestamp) for s in samples]
        for name, samples in result.by_name.items()
    }
    return found, result.malformed


@pytest.mark.parametrize(
    ("page", "want"),
    [
        pytest.param("m 7\n", ({}, 7.0, 0.0), id="bare"),
        pytest.param("m 7", ({}, 7.0, 0.0), id="no-final-newline"),
        pytest.param("\n\nm 7\n", ({}, 7.0, 0.0), id="empty-lines-before"),
        pytest.param("  \tm\t 7 \t\n", ({}, 7.0, 0.0), id="blanks-around"),
        pytest.param("m 7\r\n", ({}, 7.0, 0.0), id="carriage-return"),
        pytest.param("m{} 7\n", ({}, 7.0, 0.0), id="empty-block"),
        pytest.param('m{a="b"} 7\n', ({"a": "b"}, 7.0, 0.0), id="label"),
        pytest.param('m{a="b"}7\n', ({"a": "b"}, 7.0, 0.0), id="no-blank-behind-the-block"),
        pytest.param('m { a = "b" , } 7\n', ({"a": "b"}, 7.0, 0.0), id="blanks-and-comma"),
        pytest.param('m{a="b",c="d"} 7\n', ({"a": "b", "c": "d"}, 7.0, 0.0), id="two-labels"),
        pytest.param('m{a="}{\\",="} 7\n', ({"a": '}{",='}, 7.0, 0.0), id="punctuation"),
        pytest.param('m{a="1\\n2\\\\3"} 7\n', ({"a": "1\n2\\3"}, 7.0, 0.0), id="escapes"),
        pytest.param('m{a="\\x"} 7\n', ({"a": "\\x"}, 7.0, 0.0), id="unknown-escape-stays"),
        pytest.param('m{a="\\\\n"} 7\n', ({"a": "\\n"}, 7.0, 0.0), id="escaped-backslash-first"),
        pytest.param('m{a="é漢"} 7\n', ({"a": "é漢"}, 7.0, 0.0), id="utf-8"),
        pytest.param("m 7 1700000000123\n", ({}, 7.0, 1700000000123.0), id="milliseconds"),
        pytest.param("m 7 1700000000.123\n", ({}, 7.0, 1700000000.123), id="openmetrics-seconds"),
        pytest.param('m 7 # {id="x"} 1 2\n# EOF\n', ({}, 7.0, 0.0), id="exemplar"),
        pytest.param("m 1.5e+3\n", ({}, 1500.0, 0.0), id="exponent"),
        pytest.param("m +Inf\n", ({}, math.inf, 0.0), id="infinity"),
        pytest.param("m -3\n", ({}, -3.0, 0.0), id="negative"),
    ],
)
def test_a_sample_line_is_read(page: str, want: tuple[dict[str, str], float, float]) -> None:
    assert scan(page) == ({"m": [want]}, 0)


@pytest.mark.parametrize(
    "line",
    [
        pytest.param("m_created 7", id="created"),
        pytest.param("m_total 7", id="longer-name"),
        pytest.param("xm 7", id="name-within-a-name"),
        pytest.param("# HELP m is m 7", id="help"),
        pytest.param("# TYPE m gauge", id="type"),
        pytest.param('other{a="\\nm 7"} 1', id="name-in-a-label"),
        pytest.param("# EOF", id="end-of-openmetrics"),
        pytest.param("", id="nothing"),
    ],
)
def test_other_lines_are_not_looked_at(line: str) -> None:
    assert scan(f"{line}\n") == ({}, 0)


@pytest.mark.parametrize(
    "line",
    [
        pytest.param("m ", id="no-value"),
        pytest.param("m seven", id="not-a-number"),
        pytest.param("m 1_000", id="underscore"),
        pytest.param("m 7 soon", id="bad-timestamp"),
        pytest.param("m 7 8 9", id="too-many-fields"),
        pytest.param('m{a="b" 7', id="open-block"),
        pytest.param('m{a="b} 7', id="open-quote"),
        pytest.param("m{a=b} 7", id="bare-label-value"),
        pytest.param('m{a="b",,} 7', id="two-commas"),
        pytest.param('m{="b"} 7', id="label-without-name"),
        pytest.param("m{\xff} 7", id="garbage"),
    ],
)
def test_a_malformed_line_is_skipped_and_counted(line: str) -> None:
    found, malformed = scan(f"m 1\n{line}\nm 2\n")

    assert [value for _, value, _ in found["m"]] == [1.0, 2.0]
    assert malformed == 1


def test_series_keep_their_order_and_names_are_kept_apart() -> None:
    page = 'a{x="1"} 1\nb 2\na{x="2"} 3\nab 4\n'

    found, _ = scan(page, "a", "ab", "b")

    assert {name: [value for _, value, _ in rows] for name, rows in found.items()} == {
        "a": [1.0, 3.0],
        "b": [2.0],
        "ab": [4.0],
    }


def test_not_a_number_is_a_value_and_no_malformed_line() -> None:
    found, malformed = scan("m NaN\n")

    assert math.isnan(found["m"][0][1])
    assert malformed == 0


def test_invalid_utf_8_in_a_label_does_not_hide_the_sample() -> None:
    found, malformed = scan(b'm{a="\xff\xfe"} 7\n')

    assert found == {"m": [({"a": "\ufffd\ufffd"}, 7.0, 0.0)]}
    assert malformed == 0


@pytest.mark.parametrize(
    "length",
    [
        pytest.param(300, id="remembered"),
        pytest.param(MEMO_UP_TO_BYTES + 1, id="too-long-to-remember"),
    ],
)
def test_long_info_lines_read_the_same_every_time(length: int) -> None:
    scanner = PageScanner(["m"])
    page = f'm{{a="{"x" * length}"}} 1\n'.encode()

    first, second = scanner.scan(page), scanner.scan(page)

    assert first == second
    assert dict(scanner.labels(first.by_name["m"][0])) == {"a": "x" * length}


def test_a_scanner_without_names_finds_nothing() -> None:
    assert PageScanner(()).scan(b"m 7\n") == ({}, 0)


_NAMES = ("vllm:num_requests_waiting", "vllm:num_requests_running", "q")
_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=8)
_LABEL_SETS = st.dictionaries(st.from_regex(r"[a-z][a-z_]{0,5}", fullmatch=True), _TEXT, max_size=3)
_VALUES = st.floats(allow_nan=False, width=64)


def _line(name: str, labels: Mapping[str, str], value: float, timestamp: int | None) -> str:
    escaped = (
        (key, text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"'))
        for key, text in labels.items()
    )
    block = ",".join(f'{key}="{text}"' for key, text in escaped)
    shown = str(value).replace("inf", "Inf")
    return f"{name}{{{block}}} {shown}" + ("" if timestamp is None else f" {timestamp}")


_LINES = st.builds(
    _line,
    st.sampled_from([*_NAMES, "other", "q_created", "vllm:num_requests_waiting_by_reason"]),
    _LABEL_SETS,
    _VALUES,
    st.none() | st.integers(0, 2**42),
)


@pytest.mark.fuzz
@settings(max_examples=1000)
@given(lines=st.lists(_LINES, max_size=12))
def test_a_valid_page_reads_as_a_full_parser_reads_it(lines: list[str]) -> None:
    page = "".join(f"{line}\n" for line in lines)
    want: dict[str, Found] = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            if sample.name in _NAMES:
                seconds = float(sample.timestamp or 0.0)
                row = (dict(sample.labels), sample.value, seconds)
                want.setdefault(sample.name, []).append(row)

    found, malformed = scan(page, *_NAMES)

    seconds_found = {
        name: [(labels, value, stamp / 1000) for labels, value, stamp in rows]
        for name, rows in found.items()
    }
    assert seconds_found == want
    assert malformed == 0
