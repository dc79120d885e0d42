"""Structural OpenAPI schemas, as CRDs carry them: defaults, and translation to JSON Schema.

The dialect differs from JSON Schema in what this module translates: integer formats, ``nullable``,
``$`` in patterns (Python's also matches before a final newline), and fields nobody declared, which
an API server refuses when asked to be strict. A keyword that is not translated is an error when
the schema is loaded: a rule must not be lost in silence.
"""

import copy
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from ipaddress import ip_address
from typing import Any

import jsonschema

_INTEGER_BOUNDS = {"int32": (-(2**31), 2**31 - 1), "int64": (-(2**63), 2**63 - 1)}
_COPIED = frozenset({
    "enum", "maxItems", "maxLength", "maxProperties", "maximum", "minItems", "minLength",
    "minProperties", "minimum", "required", "type",
})  # fmt: skip
_NO_CONSTRAINT = frozenset({
    "default",  # apply_defaults
    "description",
    "x-kubernetes-list-map-keys", "x-kubernetes-list-type",  # for merging patches
    "x-kubernetes-preserve-unknown-fields",  # to_json_schema
    "x-kubernetes-validations",  # epp.sources.cel
})  # fmt: skip
_DNS_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_DNS_SUBDOMAIN = re.compile(rf"{_DNS_LABEL}(\.{_DNS_LABEL})*", re.ASCII)
_RFC3339 = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)", re.ASCII
)


def is_rfc3339(text: str) -> bool:
    """Tell whether a text is a timestamp as Kubernetes writes them."""
    if not _RFC3339.fullmatch(text):
        return False
    try:
        datetime.fromisoformat(text[:19])
    except ValueError:
        return False
    return True


def is_ip_address(text: str) -> bool:
    """Tell whether a text is an IPv4 or IPv6 address without a zone; empty counts as not yet known."""
    try:
        ip_address(text)
    except ValueError:
        return not text
    return "%" not in text


def is_dns_subdomain(text: str) -> bool:
    """Tell whether a text can name an object."""
    return len(text) <= 253 and _DNS_SUBDOMAIN.fullmatch(text) is not None


def is_dns_label(text: str) -> bool:
    """Tell whether a text can name a namespace."""
    return len(text) <= 63 and "." not in text and is_dns_subdomain(text)


FORMATS: Mapping[str, tuple[Callable[[str], bool], str]] = {
    "date-time": (is_rfc3339, "must be an RFC 3339 timestamp like 2025-01-31T12:00:00Z"),
    "dns-label": (
        is_dns_label,
        "must be a DNS label: lower-case letters, digits and '-', at most 63 characters",
    ),
    "dns-subdomain": (
        is_dns_subdomain,
        "must be a DNS subdomain: lower-case letters, digits, '-' and '.', at most 253 characters",
    ),
    "ip": (is_ip_address, "must be an IP address"),
}
"""Formats that strings are checked against, and what to tell whoever got one wrong."""


def apply_defaults(schema: Mapping[str, Any], value: Any) -> Any:
    """Return a copy of a value in which absent fields have their defaults.

    A null field that is not nullable counts as absent, as on the API server. The copy shares
    nothing with the value, which may repeat parts of itself.
    """
    if isinstance(value, dict):
        properties = schema.get("properties", {})
        rest = schema.get("additionalProperties")
        result = {}
        for name, part in value.items():
            child = properties.get(name, rest if isinstance(rest, dict) else {})
            if part is None and child and not child.get("nullable", False):
                continue
            result[name] = apply_defaults(child, part)
        for name, child in properties.items():
            if name not in result and "default" in child:
                result[name] = apply_defaults(child, copy.deepcopy(child["default"]))
        return result
    if isinstance(value, list):
        return [apply_defaults(schema.get("items", {}), item) for item in value]
    return value


def to_json_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Translate a structural schema.

    Raises:
        ValueError: The schema uses a keyword or a format that is not translated.
    """
    translated: dict[str, Any] = {}
    for keyword, setting in schema.items():
        if keyword in _COPIED:
            translated[keyword] = setting
        elif keyword == "properties":
            translated[keyword] = {name: to_json_schema(part) for name, part in setting.items()}
        elif keyword == "items" or (keyword == "additionalProperties" and setting is not True):
            translated[keyword] = to_json_schema(setting)
        elif keyword == "pattern":
            translated[keyword] = _python_pattern(setting)
        elif keyword == "format":
            _translate_format(setting, schema, translated)
        elif keyword not in _NO_CONSTRAINT | {"nullable", "additionalProperties"}:
            raise ValueError(f"schema keyword {keyword!r} is not supported")
    if schema.get("nullable"):
        translated["type"] = [schema["type"], "null"]
    is_open = schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in schema
    if "properties" in schema and not is_open:
        translated["additionalProperties"] = False
    return translated


def make_validator(schema: Mapping[str, Any]) -> Any:
    """Return a ``jsonschema`` validator of a structural schema.

    Raises:
        ValueError: See ``to_json_schema``.
    """
    checker = jsonschema.FormatChecker(formats=())
    for name, (check, _) in FORMATS.items():
        checker.checks(name)(_on_strings(check))
    return _Validator(to_json_schema(schema), format_checker=checker)


def _on_strings(check: Callable[[str], bool]) -> Callable[[object], bool]:
    return lambda value: not isinstance(value, str) or check(value)


def _translate_format(name: str, schema: Mapping[str, Any], translated: dict[str, Any]) -> None:
    if name in FORMATS:
        translated["format"] = name
    elif name in _INTEGER_BOUNDS:
        low, high = _INTEGER_BOUNDS[name]
        translated["minimum"] = max(low, schema.get("minimum", low))
        translated["maximum"] = min(high, schema.get("maximum", high))
    else:
        raise ValueError(f"schema format {name!r} is not supported")


def _python_pattern(pattern: str) -> str:
    """Replace ``$`` outside of character classes by ``\\Z``: the end of the text and nothing else."""
    result, in_class, escaped = [], False, False
    for char in pattern:
        if escaped:
            escaped = False
        elif char == "\\":
            escaped = True
        elif char in "[]":
            in_class = char == "["
        elif char == "$" and not in_class:
            result.append(r"\Z")
            continue
        result.append(char)
    return "".join(result)


def _check_pattern(_validator: Any, pattern: str, value: Any, schema: Mapping[str, Any]) -> Any:
    """Match a text of admissible length only: time of a match grows with the length."""
    if not isinstance(value, str) or len(value) > schema.get("maxLength", len(value)):
        return
    if not re.search(pattern, value, re.ASCII):
        yield jsonschema.ValidationError("pattern")


def _is_integer(_checker: Any, value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


_Validator: Any = jsonschema.validators.extend(
    jsonschema.Draft202012Validator,
    {"pattern": _check_pattern},
    type_checker=jsonschema.Draft202012Validator.TYPE_CHECKER.redefine("integer", _is_integer),
)
