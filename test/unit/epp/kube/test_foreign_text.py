"""Text of others, before it is shown."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.kube.foreign_text import SHOWN_CHARACTERS, first_line, without_secrets

TOKEN = "eyJhbGciOiJSUzI1NiIsImtpZCI6IjEyMzQ1Njc4OTAifQ"


@pytest.mark.parametrize(
    ("body", "line"),
    [
        pytest.param(b"no way\nsecond", "no way", id="first-line-only"),
        pytest.param(b"\n\n  no way \r\nmore", "no way", id="blank-lines-before"),
        pytest.param(b"a\x00b\x1b[1mc", "a b [1mc", id="control-characters"),
        pytest.param(b"\xff ok", "\ufffd ok", id="not-utf-8"),
        pytest.param(b"<!doctype html>", "", id="page"),
        pytest.param(b'{"a":', "", id="broken-json"),
        pytest.param(b"", "", id="empty"),
        pytest.param(f"got {TOKEN}".encode(), "got …", id="long-word"),
        pytest.param(b"x " * 300, ("x " * 100)[:SHOWN_CHARACTERS], id="long-line"),
    ],
)
def test_the_first_line(body: bytes, line: str) -> None:
    assert first_line(body) == line


@pytest.mark.parametrize(
    ("hide", "line"),
    [
        pytest.param("Bearer abc", "you are … and …", id="whole-and-parts"),
        pytest.param("", "you are Bearer abc and abc", id="nothing-to-hide"),
    ],
)
def test_what_must_not_be_shown_is_not(hide: str, line: str) -> None:
    assert first_line(b"you are Bearer abc and abc", hide=hide) == line


@given(st.binary(max_size=500))
def test_a_line_is_short_and_printable(body: bytes) -> None:
    line = first_line(body)

    assert len(line) <= SHOWN_CHARACTERS
    assert line.isprintable()


def test_words_of_ordinary_length_stay() -> None:
    assert without_secrets("context deadline exceeded") == "context deadline exceeded"
