from typing import Any

import pytest

from epp.sources.documents import (
    MAX_ALIASES,
    MAX_DEPTH,
    MAX_NODES,
    DocumentError,
    load_documents,
    within_bounds,
)


@pytest.mark.parametrize(
    ("text", "want"),
    [
        pytest.param("2026-01-01", "2026-01-01", id="date-is-text"),
        pytest.param("2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z", id="timestamp-is-text"),
        pytest.param("yes", "yes", id="yes-is-text"),
        pytest.param("off", "off", id="off-is-text"),
        pytest.param("true", True, id="true"),
        pytest.param("FALSE", False, id="upper-case-false"),
        pytest.param("tRue", "tRue", id="mixed-case-is-text"),
        pytest.param("012", "012", id="leading-zero-is-text"),
        pytest.param("0o17", "0o17", id="octal-is-text"),
        pytest.param("0x1f", "0x1f", id="hex-is-text"),
        pytest.param("1:30", "1:30", id="sexagesimal-is-text"),
        pytest.param("1_000", "1_000", id="underscores-are-text"),
        pytest.param("+1", "+1", id="plus-is-text"),
        pytest.param("-7", -7, id="negative"),
        pytest.param("1.5", 1.5, id="float"),
        pytest.param("1e3", 1000.0, id="exponent"),
        pytest.param(".5", ".5", id="bare-fraction-is-text"),
        pytest.param("5.", "5.", id="bare-point-is-text"),
        pytest.param(".inf", ".inf", id="infinity-is-text"),
        pytest.param(".nan", ".nan", id="nan-is-text"),
        pytest.param("1" * 30, int("1" * 30), id="big-integer-is-exact"),
        pytest.param("", None, id="nothing-is-null"),
        pytest.param("~", None, id="tilde-is-null"),
        pytest.param("null", None, id="null"),
        pytest.param("'null'", "null", id="quoted-null-is-text"),
        pytest.param("'8000'", "8000", id="quoted-number-is-text"),
        pytest.param("=", "=", id="equals-sign-is-text"),
        pytest.param("é中🚀", "é中🚀", id="unicode"),  # noqa: RUF001
        pytest.param("!!str 1", "1", id="explicit-string"),
    ],
)
def test_plain_scalars_have_the_types_of_json(text: str, want: Any) -> None:
    [document] = load_documents(f"a: {text}\n".encode())

    assert document == {"a": want}
    assert type(document["a"]) is type(want)


@pytest.mark.parametrize(
    ("data", "want"),
    [
        pytest.param(b"", [], id="empty-file"),
        pytest.param(b"# nothing\n", [], id="only-a-comment"),
        pytest.param(b"---\n---\na: 1\n---\n", [{"a": 1}], id="empty-documents-are-skipped"),
        pytest.param(b"a: 1\n---\nb: 2\n", [{"a": 1}, {"b": 2}], id="two-documents"),
        pytest.param(b"\xef\xbb\xbfa: 1", [{"a": 1}], id="byte-order-mark"),
        pytest.param(b"a: &x [1]\nb: *x", [{"a": [1], "b": [1]}], id="alias-is-expanded"),
        pytest.param(
            b"1: x\ntrue: y\nnull: z", [{"1": "x", "true": "y", "null": "z"}], id="keys-become-text"
        ),
        pytest.param(
            b"kind: List\nitems: [{a: 1}, {b: 2}]", [{"a": 1}, {"b": 2}], id="list-is-unpacked"
        ),
        pytest.param(b"kind: List\nitems: []", [], id="empty-list"),
    ],
)
def test_documents_of_a_yaml_file(data: bytes, want: list[Any]) -> None:
    assert load_documents(data) == want


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(b"a: 1\na: 2", "line 2: duplicate key 'a'", id="duplicate-key"),
        pytest.param(b"1: x\n'1': y", "line 2: duplicate key '1'", id="duplicate-after-conversion"),
        pytest.param(b"? [a]\n: 1", "line 1: a key must be a string", id="list-as-key"),
        pytest.param(b"a: *x", "line 1: found undefined alias", id="undefined-alias"),
        pytest.param(b"a: &x [*x]", "line 1: .*recursive", id="list-in-itself"),
        pytest.param(b"&x\na: *x", "recursive", id="map-in-itself"),
        pytest.param(b"a: \0", "control characters are not allowed", id="nul-byte"),
        pytest.param(b"\xff\xfe", r"not UTF-8 text \(byte 0\)", id="not-utf-8"),
        pytest.param(b"a: [", "line 2: ", id="unclosed-list"),
        pytest.param(b"a: !!python/object:os.system x", "line 1: .*python/object", id="python-tag"),
        pytest.param(b"a: !mine x", "line 1: .*!mine", id="private-tag"),
        pytest.param(b"a: !!int x", "line 1: .*not supported", id="tag-that-does-not-fit"),
        pytest.param(b"a: " + b"9" * 5000, "cannot be read: Exceeds the limit", id="huge-integer"),
        pytest.param(b"[" * 1000, f"nested deeper than {MAX_DEPTH} levels", id="depth-1000"),
        pytest.param(b"[" * 50_000, "nest", id="depth-50000"),
        pytest.param(b"a:\n" + b"- 1\n" * MAX_NODES, "line .*: more than .* nodes", id="nodes"),
        pytest.param(
            b"a: &x 1\nb:\n" + b"- *x\n" * (MAX_ALIASES + 1), "more than .* aliases", id="aliases"
        ),
        pytest.param(b"kind: List", "items: a List needs a list of items", id="list-without-items"),
    ],
)
def test_yaml_that_is_refused_says_why(data: bytes, message: str) -> None:
    with pytest.raises(DocumentError, match=message):
        load_documents(data)


@pytest.mark.parametrize(
    "text",
    ["!!binary aGk=", "!!timestamp 2026-01-01", "!!set {x}", "!!omap [b: 1]", "!!float .inf"],
)
def test_an_explicit_tag_cannot_build_other_types(text: str) -> None:
    with pytest.raises(DocumentError, match="line 1"):
        load_documents(f"a: {text}\n".encode())


@pytest.mark.parametrize("text", ["!!bool x", "!!timestamp x", "!!int ''", "!!float ''"])
def test_an_explicit_tag_that_does_not_fit_is_a_document_error(text: str) -> None:
    with pytest.raises(DocumentError):
        load_documents(f"a: {text}\n".encode())


def test_a_merge_key_is_refused_by_name() -> None:
    with pytest.raises(DocumentError, match="line 3: merge keys"):
        load_documents(b"a: &x {k: 1}\nb:\n  <<: *x\n")


@pytest.mark.parametrize(
    ("data", "is_json"),
    [(b"a: 1e999", False), (b'{"a": 1e999}', True), (b'{"a": NaN}', True)],
)
def test_a_number_that_json_cannot_hold_is_refused(data: bytes, is_json: bool) -> None:
    with pytest.raises(DocumentError):
        load_documents(data, is_json=is_json)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(b'{"a": 1, "a": 2}', "duplicate key 'a'", id="duplicate-key"),
        pytest.param(b'{"a": {"b": 1, "b": 2}}', "duplicate key 'b'", id="duplicate-inside"),
        pytest.param(b"[" * 50_000, "recursion", id="depth-50000"),
        pytest.param(b"1" * 5000, "Exceeds the limit", id="huge-integer"),
        pytest.param(b'{\n"a": ]', "line 2: Expecting value", id="syntax"),
        pytest.param(b"", "line 1: Expecting value", id="empty"),
        pytest.param(b"a: 1", "line 1", id="yaml-in-a-json-file"),
    ],
)
def test_json_that_is_refused_says_why(data: bytes, message: str) -> None:
    with pytest.raises(DocumentError, match=message):
        load_documents(data, is_json=True)


def test_a_json_file_is_one_document_with_byte_order_mark_or_without() -> None:
    assert load_documents(b'\xef\xbb\xbf{"a": "yes"}', is_json=True) == [{"a": "yes"}]


def _nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels - 1):
        value = [value]
    return value


def _bomb(levels: int) -> Any:
    value: Any = [1]
    for _ in range(levels):
        value = [value] * 10
    return value


@pytest.mark.parametrize(
    ("document", "want"),
    [
        pytest.param(_nested(MAX_DEPTH), True, id="depth-at-the-limit"),
        pytest.param(_nested(MAX_DEPTH + 1), False, id="depth-over-the-limit"),
        pytest.param([1] * (MAX_NODES - 1), True, id="nodes-at-the-limit"),
        pytest.param([1] * MAX_NODES, False, id="nodes-over-the-limit"),
        pytest.param(_bomb(12), False, id="alias-bomb"),
        pytest.param({"a": {"b": [1, 2]}}, True, id="ordinary"),
    ],
)
def test_bounds_count_the_expanded_document(document: Any, want: bool) -> None:
    assert within_bounds(document) is want


def test_an_alias_bomb_is_read_without_being_expanded() -> None:
    lines = ["a0: &a0 [x]"] + [
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 11)
    ]

    [document] = load_documents("\n".join(lines).encode())

    assert not within_bounds(document)
