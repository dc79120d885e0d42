"""YAML and JSON text to documents with JSON's types only.

A timestamp stays a string, ``yes`` and ``012`` too: what Kubernetes would see after conversion to
JSON. Bounds come before building: depth, nodes and aliases are counted on the event stream, which
needs no recursion, so hostile text cannot exhaust stack or memory.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

MAX_DEPTH = 64
MAX_NODES = 100_000
MAX_ALIASES = 100
"""Few enough that their product stays below the node bound in any sane file."""


_PLAIN_TAGS = frozenset({"!", *(f"tag:yaml.org,2002:{kind}" for kind in ("str", "map", "seq"))})
"""Explicit tags that change nothing; others build types that JSON does not have, or fail to."""


class DocumentError(Exception):
    """Text that holds no usable documents; the message names the line where known."""


class _JsonTypesLoader(yaml.CSafeLoader):
    """Resolves plain scalars as JSON does, and refuses duplicate keys."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012


def _resolve(tag: str, pattern: str, first: str) -> None:
    _JsonTypesLoader.add_implicit_resolver(tag, re.compile(pattern), list(first))


_resolve("tag:yaml.org,2002:null", r"^(?:null|Null|NULL|~|)$", "nN~\0")
_resolve("tag:yaml.org,2002:bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF")
_resolve("tag:yaml.org,2002:int", r"^-?(?:0|[1-9][0-9]*)$", "-0123456789")
_resolve(
    "tag:yaml.org,2002:float",
    r"^-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?$",
    "-0123456789",
)
_JsonTypesLoader.yaml_implicit_resolvers.setdefault("", []).append(
    ("tag:yaml.org,2002:null", re.compile(r"^$"))
)


_MERGE = frozenset({("<<", None), ("<<", "")})
"""A plain ``<<``, which other loaders merge; in quotes it is a key like any other."""


def _construct_float(_loader: _JsonTypesLoader, node: yaml.ScalarNode) -> float:
    value = float(node.value)
    if not math.isfinite(value):
        raise _problem(f"{node.value} is beyond the range of numbers", node)
    return value


def _construct_mapping(loader: _JsonTypesLoader, node: yaml.MappingNode) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key_node, value_node in node.value:
        if isinstance(key_node, yaml.ScalarNode) and (key_node.value, key_node.style) in _MERGE:
            raise _problem("merge keys (<<) are not supported", key_node)
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str):
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
        if key is None:
            raise _problem("a key must be a string", key_node)
        if key in result:
            raise _problem(f"duplicate key {key!r}", key_node)
        result[key] = loader.construct_object(value_node, deep=True)
    return result


def _problem(message: str, node: yaml.Node) -> DocumentError:
    return DocumentError(f"line {node.start_mark.line + 1}: {message}")


_JsonTypesLoader.add_constructor("tag:yaml.org,2002:map", _construct_mapping)
_JsonTypesLoader.add_constructor("tag:yaml.org,2002:float", _construct_float)


def load_documents(data: bytes, *, is_json: bool = False) -> Sequence[Any]:
    """Return the non-empty documents of a file, ``List`` objects unpacked.

    Raises:
        DocumentError: The text is no YAML or JSON, or beyond the bounds.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise DocumentError(f"not UTF-8 text (byte {exc.start})") from exc
    documents = [_load_json(text)] if is_json else _load_yaml(text)
    return [item for document in documents for item in _unpack(document)]


def _load_yaml(text: str) -> list[Any]:
    try:
        _check_bounds(text)
        return list(yaml.load_all(text, Loader=_JsonTypesLoader))
    except yaml.YAMLError as exc:
        raise DocumentError(_yaml_message(exc)) from exc
    except (ValueError, RecursionError, OverflowError) as exc:
        raise DocumentError(f"cannot be read: {exc}") from exc


def _check_bounds(text: str) -> None:
    depth = aliases = 0
    for nodes, event in enumerate(yaml.parse(text, Loader=yaml.CSafeLoader)):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        aliases += isinstance(event, yaml.AliasEvent)
        line = 0 if event.start_mark is None else event.start_mark.line + 1
        tag = getattr(event, "tag", None)
        if tag is not None and tag not in _PLAIN_TAGS:
            raise DocumentError(f"line {line}: the tag {tag} is not supported")
        if depth > MAX_DEPTH:
            raise DocumentError(f"line {line}: nested deeper than {MAX_DEPTH} levels")
        if nodes > MAX_NODES:
            raise DocumentError(f"line {line}: more than {MAX_NODES} nodes")
        if aliases > MAX_ALIASES:
            raise DocumentError(f"line {line}: more than {MAX_ALIASES} aliases")


def _load_json(text: str) -> Any:
    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key, value in items:
            if key in result:
                raise DocumentError(f"duplicate key {key!r}")
            result[key] = value
        return result

    def finite(text: str) -> float:
        value = float(text)
        if not math.isfinite(value):
            raise DocumentError(f"{text} is no JSON number")
        return value

    try:
        return json.loads(text, object_pairs_hook=pairs, parse_float=finite, parse_constant=finite)
    except json.JSONDecodeError as exc:
        raise DocumentError(f"line {exc.lineno}: {exc.msg}") from exc
    except (ValueError, RecursionError) as exc:
        raise DocumentError(f"cannot be read: {exc}") from exc


def _unpack(document: Any) -> Iterator[Any]:
    if document is None:
        return
    if isinstance(document, Mapping) and document.get("kind") == "List":
        items = document.get("items")
        if not isinstance(items, list):
            raise DocumentError("items: a List needs a list of items")
        yield from items
        return
    yield document


def within_bounds(document: Any) -> bool:
    """Tell whether a document, aliases expanded, is within depth and node bounds."""
    budget = MAX_NODES
    stack = [(document, 1)]
    while stack:
        value, depth = stack.pop()
        budget -= 1
        if budget < 0 or depth > MAX_DEPTH:
            return False
        if isinstance(value, dict):
            stack.extend((child, depth + 1) for child in value.values())
        elif isinstance(value, list):
            stack.extend((child, depth + 1) for child in value)
        if len(stack) > MAX_NODES:
            return False
    return True


def _yaml_message(exc: yaml.YAMLError) -> str:
    mark = getattr(exc, "problem_mark", None)
    problem = getattr(exc, "problem", None) or str(exc).splitlines()[0]
    return problem if mark is None else f"line {mark.line + 1}: {problem}"
