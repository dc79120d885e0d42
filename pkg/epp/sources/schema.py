"""Structural schemas of CRDs as JSON schemas, and objects as the API server would store them.

Nulls are pruned and defaults filled in before anything is validated, in that order, as the API
server does. Unknown fields are errors, as in a strict server-side check. Paths read like
``spec.targetPorts[0].number``.
"""

import difflib
import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from jsonschema import Draft202012Validator, FormatChecker
from jsonschema.exceptions import ValidationError

from epp.sources.problems import shown

Path = tuple[str | int, ...]
_PLAIN_KEY = re.compile(r"^[A-Za-z_][A-Za-z0-9_-]*$")
_END_ANCHOR = re.compile(r"(?<!\\)\$(?=$|\|)")
_UNSUPPORTED = "x-kubernetes-"

_LABEL_VALUE: Mapping[str, Any] = {
    "type": "string",
    "maxLength": 63,
    "pattern": r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?\Z",
}
_UNREAD_METADATA = (
    "deletionGracePeriodSeconds",
    "finalizers",
    "generateName",
    "managedFields",
    "ownerReferences",
    "selfLink",
)
_RFC_3339 = re.compile(
    r"\d{4}-\d{2}-\d{2}[Tt]\d{2}:\d{2}:\d{2}(\.\d+)?([Zz]|[+-]\d{2}:\d{2})", re.ASCII
)

METADATA_SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "required": ["name"],
    "properties": {
        "name": {
            "type": "string",
            "minLength": 1,
            "maxLength": 253,
            "pattern": r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\Z",
        },
        "namespace": {
            "type": "string",
            "maxLength": 63,
            "pattern": r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?\Z",
        },
        "uid": {"type": "string"},
        "resourceVersion": {"type": "string"},
        "generation": {"type": "integer", "minimum": 0, "format": "int64"},
        "labels": {"type": "object", "additionalProperties": _LABEL_VALUE},
        "annotations": {"type": "object", "additionalProperties": {"type": "string"}},
        "creationTimestamp": {"type": "string", "format": "date-time"},
        "deletionTimestamp": {"type": "string", "format": "date-time"},
        **{name: {} for name in _UNREAD_METADATA},
    },
    "additionalProperties": False,
}

POD_SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "required": ["metadata"],
    "properties": {
        "metadata": METADATA_SCHEMA,
        "status": {
            "type": "object",
            "properties": {
                "podIP": {"type": "string", "format": "ip"},
                "conditions": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "required": ["type", "status"],
                        "properties": {
                            "type": {"type": "string"},
                            "status": {"enum": ["True", "False", "Unknown"]},
                            "reason": {"type": "string"},
                            "message": {"type": "string"},
                            "lastTransitionTime": {"type": "string"},
                            "observedGeneration": {"type": "integer"},
                        },
                    },
                },
            },
        },
    },
}
"""The part of a pod that we read; a pod of a cluster has many more fields."""

_FORMATS = FormatChecker(formats=())


@_FORMATS.checks("int32")
def _is_int32(value: object) -> bool:
    return not isinstance(value, int) or -(2**31) <= value < 2**31


@_FORMATS.checks("int64")
def _is_int64(value: object) -> bool:
    return not isinstance(value, int) or -(2**63) <= value < 2**63


@_FORMATS.checks("ip", raises=ValueError)
def _is_ip(value: object) -> bool:
    return not isinstance(value, str) or bool(ipaddress.ip_address(value))


@_FORMATS.checks("date-time", raises=ValueError)
def _is_date_time(value: object) -> bool:
    if not isinstance(value, str):
        return True
    return bool(_RFC_3339.fullmatch(value)) and bool(datetime.fromisoformat(value.upper()))


@dataclass(frozen=True, slots=True)
class SchemaError:
    """A violation: path, message, and the value shown (empty when there is none)."""

    path: Path
    message: str
    value: str = ""


def json_schema(structural: Mapping[str, Any]) -> dict[str, Any]:
    """Turn a structural schema into a JSON schema that refuses unknown fields."""
    result: dict[str, Any] = {}
    for key, value in structural.items():
        if key.startswith(_UNSUPPORTED) or key in {"description", "default", "nullable"}:
            continue
        if key == "properties":
            result[key] = {name: json_schema(child) for name, child in value.items()}
        elif key in {"items", "additionalProperties"} and isinstance(value, Mapping):
            result[key] = json_schema(value)
        elif key == "pattern":
            result[key] = _END_ANCHOR.sub(r"\\Z", value)  # `$` alone admits a final newline
        else:
            result[key] = value
    closed = "properties" in result and "additionalProperties" not in result
    if closed and not structural.get("x-kubernetes-preserve-unknown-fields"):
        result["additionalProperties"] = False
    return result


def normalised(value: Any, schema: Mapping[str, Any]) -> Any:
    """A copy without nulls, with the schema's defaults, and with 80.0 read as the integer 80."""
    if isinstance(value, dict):
        properties = schema.get("properties", {})
        other = schema.get("additionalProperties")
        rest = other if isinstance(other, Mapping) else {}
        kept = {
            key: normalised(child, properties.get(key, rest))
            for key, child in value.items()
            if child is not None
        }
        for key, child in properties.items():
            if key not in kept and "default" in child:
                kept[key] = normalised(child["default"], child)
        return kept
    if isinstance(value, list):
        return [normalised(child, schema.get("items", {})) for child in value]
    if isinstance(value, float) and value.is_integer() and schema.get("type") == "integer":
        return int(value)
    return value


def validator(schema: Mapping[str, Any]) -> Draft202012Validator:
    """A validator with our formats."""
    return Draft202012Validator(dict(schema), format_checker=_FORMATS)


def schema_errors(checker: Draft202012Validator, document: Any) -> list[SchemaError]:
    """All violations in path order, in the API server's words where it has a fixed phrase."""
    found = [e for error in checker.iter_errors(document) for e in _translated(error)]
    return sorted(found, key=lambda error: (_order(error.path), error.message))


def _order(path: Path) -> list[tuple[int, str]]:
    """Positions sort as numbers, names as text."""
    return [(part, "") if isinstance(part, int) else (-1, part) for part in path]


def path_text(path: Path) -> str:
    """``spec.targetPorts[0].number``; keys that are no plain words stand in brackets."""
    text = ""
    for part in path:
        if isinstance(part, int) or not _PLAIN_KEY.match(part):
            text += f"[{part}]"
        else:
            text += f".{part}" if text else part
    return text


def _translated(error: ValidationError) -> Iterator[SchemaError]:
    path: Path = tuple(error.absolute_path)
    keyword = str(error.validator)
    instance = cast("Any", error.instance)
    limit = cast("Any", error.validator_value)
    schema = cast("Any", error.schema)
    if keyword == "required":
        missing = [name for name in limit if name not in instance]
        first = next((name for name in missing if f"'{name}'" in error.message), missing[0])
        yield SchemaError((*path, first), "is required")
    elif keyword == "additionalProperties":
        yield from _unknown_fields(path, instance, schema)
    else:
        yield SchemaError(path, _MESSAGES.get(keyword, _as_is)(error, limit), shown(instance))


def _unknown_fields(path: Path, instance: Mapping[str, Any], schema: Any) -> Iterator[SchemaError]:
    known = list(schema.get("properties", {}))
    for name in instance:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f", did you mean {near[0]}?" if near else ""
            yield SchemaError((*path, name), f"unknown field{hint}")


def _as_is(error: ValidationError, _limit: Any) -> str:
    return error.message


def _choices(_error: ValidationError, limit: Sequence[Any]) -> str:
    return f"must be one of {', '.join(str(choice) for choice in limit)}"


_MESSAGES: Mapping[str, Callable[[ValidationError, Any], str]] = {
    "enum": _choices,
    "type": lambda _error, limit: f"must be of type {limit}",
    "format": lambda _error, limit: f"is no valid {limit}",
    "pattern": lambda _error, limit: f"must match {limit.replace(chr(92) + 'Z', '$')}",
    "minimum": lambda _error, limit: f"must be at least {limit}",
    "maximum": lambda _error, limit: f"must be at most {limit}",
    "minLength": lambda _error, limit: f"must have at least {limit} characters",
    "maxLength": lambda _error, limit: f"must have at most {limit} characters",
    "minItems": lambda _error, limit: f"must have at least {limit} items",
    "maxItems": lambda _error, limit: f"must have at most {limit} items",
    "minProperties": lambda _error, limit: f"must have at least {limit} entries",
    "maxProperties": lambda _error, limit: f"must have at most {limit} entries",
}
