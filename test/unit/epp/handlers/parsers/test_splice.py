"""splice: the model's value changes, nothing else does."""

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epp.handlers.parsers.splice import splice_model

SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
)
NAMES = st.text() | st.sampled_from(["model", "usage", "mod\\el", '"model"', "model\\"])
VALUES = st.recursive(
    SCALARS | NAMES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)
SEPARATORS = st.sampled_from([(",", ":"), (", ", ": "), (" ,\n\t", " \r\n: ")])


@pytest.mark.parametrize(
    ("body", "want"),
    [
        pytest.param('{"model":"a"}', '{"model":"B"}', id="only-key"),
        pytest.param('{"x":1,"model" : "a" }', '{"x":1,"model" : "B" }', id="whitespace-kept"),
        pytest.param(
            '{"z":{"model":"n"},"model":"a","b":1}',
            '{"z":{"model":"n"},"model":"B","b":1}',
            id="nested-key-untouched",
        ),
        pytest.param(
            '{"model":"a","tools":[{"model":"n"},["model"]]}',
            '{"model":"B","tools":[{"model":"n"},["model"]]}',
            id="nested-key-after",
        ),
        pytest.param(
            '{"kind":"model","model":"a"}', '{"kind":"model","model":"B"}', id="value-named-model"
        ),
        pytest.param('{"model":"a","model":"b"}', '{"model":"B","model":"B"}', id="duplicate-keys"),
        pytest.param(
            '{"model":"a","mod\\u0065l":"b"}',
            '{"model":"B","mod\\u0065l":"B"}',
            id="duplicate-with-an-escape",
        ),
        pytest.param('{"\\u006dodel":"a"}', '{"\\u006dodel":"B"}', id="escaped-key"),
        pytest.param(
            '{"seed":123456789012345678901,"t":1.0,"model":"a"}',
            '{"seed":123456789012345678901,"t":1.0,"model":"B"}',
            id="big-integer-and-float-kept",
        ),
        pytest.param(
            '{"prompt":"say \\"model\\":\\"x\\"","model":"a\\"\\\\"}',
            '{"prompt":"say \\"model\\":\\"x\\"","model":"B"}',
            id="quotes-and-backslashes-in-strings",
        ),
        pytest.param('{"p":"日本","model":"ä"}', '{"p":"日本","model":"B"}', id="unicode"),
        pytest.param(
            '{"p":"' + '\\"' * 100 + '","k":"model","model":"a"}',
            '{"p":"' + '\\"' * 100 + '","k":"model","model":"B"}',
            id="many-escaped-quotes",
        ),
        pytest.param(
            '{"model":7,"model":"a"}', '{"model":7,"model":"B"}', id="duplicate-of-another-type"
        ),
    ],
)
def test_only_the_value_of_the_top_level_model_changes(body: Any, want: Any) -> None:
    assert splice_model(body.encode(), "B") == want.encode()


def test_a_name_that_needs_escapes_stays_json() -> None:
    spliced = splice_model(b'{"model":"a","n":1}', 'q"\\ü\n')

    assert json.loads(spliced) == {"model": 'q"\\ü\n', "n": 1}


def test_a_body_in_utf_16_is_serialised_again() -> None:
    spliced = splice_model('{"model":"a","n":1}'.encode("utf-16"), "B")

    assert json.loads(spliced) == {"model": "B", "n": 1}


def test_more_brackets_than_a_scan_visits_are_serialised_again() -> None:
    body = b'{"k":"model","x":[' + b"[],{}," * 120_000 + b'0],"model":"a"}'

    spliced = splice_model(body, "B")

    assert json.loads(spliced) == {**json.loads(body), "model": "B"}


def test_more_keys_than_a_scan_visits_are_serialised_again() -> None:
    keys = ",".join(f'"k{index}":0' for index in range(210_000))
    body = f'{{"kind":"model",{keys},"model":"a"}}'.encode()

    spliced = splice_model(body, "B")

    assert json.loads(spliced) == {**json.loads(body), "model": "B"}


@pytest.mark.parametrize(
    "prompt",
    [
        pytest.param("a word here. " * 35_000, id="prose"),
        pytest.param('"q" \\ ' * 75_000, id="quotes-and-backslashes"),
        pytest.param("{[" * 90_000, id="brackets"),
        pytest.param('{"model": "x"} ' * 30_000, id="json-in-a-string"),
    ],
)
def test_a_long_prompt_may_stand_before_the_key(prompt: Any) -> None:
    body = json.dumps({"prompt": prompt, "kind": "model", "model": "a"}).encode()

    spliced = splice_model(body, "B")

    assert spliced == body[: -len('"a"}')] + b'"B"}'


@pytest.mark.fuzz
@settings(max_examples=2500, deadline=None)
@given(
    before=st.dictionaries(NAMES, VALUES, max_size=4),
    after=st.dictionaries(NAMES, VALUES, max_size=4),
    model=st.text(),
    target=st.text(alphabet=st.characters(exclude_categories=["Cs"])),
    separators=SEPARATORS,
    ascii_only=st.booleans(),
)
def test_any_object_differs_only_in_the_model(
    before: Any, after: Any, model: Any, target: Any, separators: Any, ascii_only: Any
) -> None:
    before.pop("model", None)
    after.pop("model", None)
    document = {**before, "model": "\0 marker \0", **after}
    marker = json.dumps("\0 marker \0")
    text = json.dumps(document, separators=separators, ensure_ascii=ascii_only)
    head, tail = re.split(re.escape(marker), text)
    body = (head + json.dumps(model, ensure_ascii=ascii_only) + tail).encode("utf-8", "replace")

    spliced = splice_model(body, target)

    assert json.loads(spliced) == {**json.loads(body), "model": target}
    assert spliced == head.encode("utf-8", "replace") + json.dumps(target).encode() + tail.encode(
        "utf-8", "replace"
    )
