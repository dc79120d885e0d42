"""Label and field selectors as an API server evaluates them, for the fake one.

Reference: kubernetes.io, "Labels and selectors" (syntax).
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

Json = dict[str, Any]
Matches = Callable[[Json], bool]

_TERM = re.compile(
    r"\s*(?:"
    r"(?P<set_key>[^\s,!=()]+)\s+(?P<set_op>in|notin)\s*\((?P<values>[^)]*)\)"
    r"|(?P<key>[^\s,!=()]+)\s*(?P<op>==|=|!=)\s*(?P<value>[^\s,()=]*)"
    r"|(?P<absent>!)?\s*(?P<name>[^\s,!=()]+)"
    r")\s*(?:,|$)"
)


class SelectorError(Exception):
    """A selector that an API server refuses."""


def matcher(label_selector: str, field_selector: str) -> Matches:
    """Make the test for both selectors. Raises SelectorError."""
    labels = [_label_term(term) for term in _terms(label_selector)]
    fields = [_field_term(term) for term in _terms(field_selector)]

    def matches(obj: Json) -> bool:
        found: Mapping[str, str] = obj.get("metadata", {}).get("labels") or {}
        return all(term(found) for term in labels) and all(term(obj) for term in fields)

    return matches


def _terms(selector: str) -> list[re.Match[str]]:
    terms, position = [], 0
    while position < len(selector):
        term = _TERM.match(selector, position)
        if term is None:
            raise SelectorError(f"unable to parse requirement: {selector[position:]!r}")
        terms.append(term)
        position = term.end()
    return terms


def _label_term(term: re.Match[str]) -> Callable[[Mapping[str, str]], bool]:
    if key := term["set_key"]:
        values = {value.strip() for value in term["values"].split(",")}
        if term["set_op"] == "in":
            return lambda labels: labels.get(key) in values
        return lambda labels: labels.get(key) not in values
    if key := term["key"]:
        value = term["value"]
        if term["op"] == "!=":
            return lambda labels: labels.get(key) != value
        return lambda labels: labels.get(key) == value
    name, wanted = term["name"], term["absent"] is None
    return lambda labels: (name in labels) is wanted


def _field_term(term: re.Match[str]) -> Matches:
    path, op, wanted = term["key"], term["op"], term["value"]
    if not path:
        raise SelectorError(f"invalid field selector: {term[0]!r}")

    def test(obj: Json) -> bool:
        value: Any = obj
        for name in path.split("."):
            value = value.get(name, "") if isinstance(value, dict) else ""
        return (str(value) == wanted) is (op != "!=")

    return test
