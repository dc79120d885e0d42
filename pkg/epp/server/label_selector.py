"""Label selectors in the syntax of ``kubectl -l``: equality, sets, existence, numbers.

A selector is a value: parsed once and validated, then it matches labels and prints itself in a
form that the API server takes as ``labelSelector``.
Reference: k8s.io/apimachinery pkg/labels/selector.go: ``!=`` and ``notin`` match objects that do
not have the key.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

_NAME = r"[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_DNS_LABEL = r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?"
_KEY = re.compile(rf"(?:({_DNS_LABEL}(?:\.{_DNS_LABEL})*)/)?{_NAME}")
_VALUE = re.compile(rf"(?:{_NAME})?")
MAX_PREFIX_LENGTH = 253

_EXISTS = re.compile(r"(!?)\s*([^\s!=<>(),]+)")
_COMPARISON = re.compile(r"([^\s!=<>(),]+)\s*(==|=|!=|<|>)\s*([^\s!=<>(),]*)")
_SET = re.compile(r"([^\s!=<>(),]+)\s+(in|notin)\s*\(([^()]*)\)")
_SPLIT = re.compile(r",(?![^(]*\))")


class Operator(StrEnum):
    """How a requirement compares; the values are the words of the canonical form."""

    EXISTS = ""
    ABSENT = "!"
    EQUALS = "="
    DIFFERS = "!="
    IN = "in"
    NOT_IN = "notin"
    ABOVE = ">"
    BELOW = "<"


_NEGATIVE = frozenset({Operator.DIFFERS, Operator.NOT_IN})


@dataclass(frozen=True, slots=True)
class Requirement:
    """One term: a key, how to compare, and with what."""

    key: str
    operator: Operator
    values: tuple[str, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Tell whether labels satisfy this term."""
        value = labels.get(self.key)
        match self.operator:
            case Operator.EXISTS:
                return value is not None
            case Operator.ABSENT:
                return value is None
            case Operator.ABOVE | Operator.BELOW:
                return self._compares(value)
            case _ if value is None:
                return self.operator in _NEGATIVE
            case _:
                return (value in self.values) is (self.operator not in _NEGATIVE)

    def _compares(self, value: str | None) -> bool:
        if value is None or not (value.isascii() and value.isdigit()):
            return False
        bound = int(self.values[0])
        return int(value) > bound if self.operator is Operator.ABOVE else int(value) < bound

    def __str__(self) -> str:
        match self.operator:
            case Operator.EXISTS | Operator.ABSENT:
                return f"{self.operator}{self.key}"
            case Operator.IN | Operator.NOT_IN:
                return f"{self.key} {self.operator} ({','.join(self.values)})"
            case _:
                return f"{self.key}{self.operator}{self.values[0]}"


@dataclass(frozen=True, slots=True)
class LabelSelector:
    """Terms that must all hold; ``str()`` is the query parameter of the API."""

    requirements: tuple[Requirement, ...]

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Tell whether labels satisfy every term."""
        return all(requirement.matches(labels) for requirement in self.requirements)

    @property
    def equalities(self) -> dict[str, str] | None:
        """The selector as labels to have, None when it says more than equality."""
        wanted: dict[str, str] = {}
        for term in self.requirements:
            if term.operator is not Operator.EQUALS or term.key in wanted:
                return None
            wanted[term.key] = term.values[0]
        return wanted

    def __str__(self) -> str:
        return ",".join(map(str, self.requirements))


def parse_label_selector(text: str) -> LabelSelector:
    """Parse and validate. Raises ValueError with half a sentence that names the term."""
    return LabelSelector(tuple(_requirement(term.strip()) for term in _SPLIT.split(text)))


def _requirement(term: str) -> Requirement:
    if match := _SET.fullmatch(term):
        key, word, listed = match.groups()
        values = tuple(dict.fromkeys(value.strip() for value in listed.split(",")))
        requirement = Requirement(key, Operator(word), values)
    elif match := _COMPARISON.fullmatch(term):
        key, word, value = match.groups()
        requirement = Requirement(key, Operator("=" if word == "==" else word), (value,))
    elif match := _EXISTS.fullmatch(term):
        requirement = Requirement(match[2], Operator(match[1]))
    else:
        raise ValueError(f"is not a label selector: cannot read the term {term!r}")
    for problem in _problems(requirement):
        raise ValueError(f"is not a label selector: {problem} in the term {term!r}")
    return requirement


def _problems(requirement: Requirement) -> Iterator[str]:
    match = _KEY.fullmatch(requirement.key)
    if match is None or len(match[1] or "") > MAX_PREFIX_LENGTH:
        yield f"{requirement.key!r} is not a label key"
    for value in requirement.values:
        if requirement.operator in {Operator.ABOVE, Operator.BELOW}:
            if not (value.isascii() and value.isdigit()):
                yield f"{value!r} is not a whole number"
        elif _VALUE.fullmatch(value) is None:
            yield f"{value!r} is not a label value"
