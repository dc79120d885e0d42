"""Validation rules of a schema (``x-kubernetes-validations``), evaluated by the CEL runtime.

The rules are written once, in the CRDs. This module compiles them, walks a value along its schema
and says which rules do not hold. It is the only one that touches the CEL library, whose traps it
keeps to itself: an evaluation error is a truthy value, not an exception; text with half a
surrogate pair and the like raise; data nested some thousand levels deep end the process, so depth
is checked before every call.

A *transition rule* speaks of ``oldSelf``: it does not compile without that name. It holds for
every creation; ``transition_problems`` evaluates it between two versions of an object.

Where the library has no wheel (musl, Windows) there is one log line and no rule is evaluated.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from types import ModuleType
from typing import Any, Literal

from epp.logs import get_logger
from epp.sources.field_problem import FieldPath, FieldProblem
from epp.sources.yaml_documents import MAX_DEPTH

log = get_logger(__name__)

RULES_KEYWORD = "x-kubernetes-validations"


class _Missing(Enum):
    OLD = "no old value"


@dataclass(frozen=True, slots=True, kw_only=True)
class CelRule:
    """One compiled rule: its text, the CRD's message, and whether it compares with ``oldSelf``."""

    text: str
    message: str
    is_transition: bool
    expression: Any


class CelRules:
    """The rules of one schema, by the schema node that carries them.

    Args:
        schema: The structural schema of a kind.
        library: The CEL module; None evaluates nothing.

    Raises:
        ValueError: A rule of the schema does not compile. The schemas are ours: a defect.
    """

    def __init__(self, schema: Mapping[str, Any], library: ModuleType | None) -> None:
        self._schema = schema
        self._library = library
        self._rules: dict[int, Sequence[CelRule]] = {}
        if library is not None:
            for node in _nodes(schema):
                if RULES_KEYWORD in node:
                    rules = [_compile(library, entry) for entry in node[RULES_KEYWORD]]
                    self._rules[id(node)] = rules

    def problems(self, value: Any, unsound: Sequence[FieldPath] = ()) -> list[FieldProblem]:
        """Evaluate every rule but transition rules.

        Args:
            value: The object, defaults applied.
            unsound: Paths that the schema itself refuses; rules above or at them are skipped,
                their operands are not what the rule expects.
        """
        found = []
        for path, rule, here, _ in self._applicable(self._schema, value, _Missing.OLD, ()):
            blocked = any(bad[: len(path)] == path for bad in unsound)
            if not rule.is_transition and not blocked:
                found.extend(self._check(path, rule, here, {"self": here}))
        return found

    def transition_problems(self, old: Any, new: Any) -> list[FieldProblem]:
        """Evaluate the transition rules between two versions that are both valid.

        List items have no identity across versions, as on the API server: rules inside items are
        not evaluated.
        """
        found = []
        for path, rule, here, before in self._applicable(self._schema, new, old, ()):
            if rule.is_transition and before is not _Missing.OLD:
                found.extend(self._check(path, rule, here, {"self": here, "oldSelf": before}))
        return found

    def _applicable(
        self, schema: Mapping[str, Any], value: Any, old: Any, path: FieldPath
    ) -> Iterator[tuple[FieldPath, CelRule, Any, Any]]:
        for rule in self._rules.get(id(schema), ()):
            yield path, rule, value, old
        if isinstance(value, dict):
            before = old if isinstance(old, dict) else {}
            for name, part in value.items():
                child = schema.get("properties", {}).get(name, schema.get("additionalProperties"))
                if isinstance(child, dict):
                    old_part = before.get(name, _Missing.OLD)
                    yield from self._applicable(child, part, old_part, (*path, name))
        elif isinstance(value, list) and "items" in schema:
            for index, item in enumerate(value):
                yield from self._applicable(
                    schema["items"], item, _Missing.OLD, (*path, index)
                )

    def _check(
        self, path: FieldPath, rule: CelRule, value: Any, data: dict[str, Any]
    ) -> Iterator[FieldProblem]:
        outcome = self._evaluate(rule, data)
        if outcome is False:
            yield FieldProblem(path, rule.message, value)
        elif outcome is not True:
            message = f"rule {rule.text!r} cannot be evaluated: {outcome}"
            yield FieldProblem(path, message, value)

    def _evaluate(self, rule: CelRule, data: dict[str, Any]) -> bool | str:
        if any(is_deeper_than(value, MAX_DEPTH) for value in data.values()):
            return f"nested more than {MAX_DEPTH} levels deep"
        if self._library is None:  # no rule was compiled then
            return True
        try:
            result = rule.expression.eval(data=data)
            if result.type() == self._library.Type.BOOL:
                return bool(result.value())
            return str(result.value())
        except (RuntimeError, ValueError, TypeError) as exc:
            return str(exc)


def load_cel_library() -> ModuleType | None:
    """Import the CEL runtime; None, and one log line, where it is not installed."""
    try:
        from cel_expr_python import cel
    except ImportError as exc:
        log.info("validation rules of the CRDs are not checked", reason="no CEL library", error=exc)
        return None
    library: ModuleType = cel
    return library


def is_deeper_than(value: Any, limit: int) -> bool:
    """Tell whether containers nest more than ``limit`` levels; never recurses."""
    level = [value]
    for _ in range(limit + 1):
        level = [
            part
            for item in level
            if isinstance(item, dict | list)
            for part in (item.values() if isinstance(item, dict) else item)
        ]
        if not level:
            return False
    return any(isinstance(item, dict | list) for item in level)


def _nodes(schema: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield schema
    for child in schema.get("properties", {}).values():
        yield from _nodes(child)
    for keyword in ("items", "additionalProperties"):
        if isinstance(schema.get(keyword), dict):
            yield from _nodes(schema[keyword])


def _compile(library: ModuleType, entry: Mapping[str, str]) -> CelRule:
    text = entry["rule"]
    message = entry.get("message", f"failed rule: {text}")
    errors = []
    for is_transition in (False, True):
        names: Sequence[Literal["self", "oldSelf"]] = (
            ("self", "oldSelf") if is_transition else ("self",)
        )
        environment = library.NewEnv(variables=dict.fromkeys(names, library.Type.DYN))
        try:
            expression = environment.compile(text)
        except RuntimeError as exc:
            errors.append(str(exc))
            continue
        return CelRule(
            text=text, message=message, is_transition=is_transition, expression=expression
        )
    raise ValueError(f"rule does not compile: {text}: {errors[-1]}")
