"""The CRDs' own ``x-kubernetes-validations``, evaluated as the API server does.

A rule that does not compile without ``oldSelf`` is a transition rule: it is evaluated only when
there is an old object. Where the CEL library has no wheel, one log line says so and no rule is
checked; the schema still is.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from epp.logs import get_logger

log = get_logger(__name__)

try:
    from cel_expr_python import cel
except ImportError:  # no wheel for this platform
    cel = None
    log.warning("no CEL library here: rules of the CRDs are not checked")

RULES = "x-kubernetes-validations"


@dataclass(frozen=True, slots=True)
class CelRule:
    """A compiled rule.

    Attributes:
        text: As the CRD has it.
        message: What to tell the user when it does not hold.
        transition: Compares with the old object.
        program: Compiled expression.
    """

    text: str
    message: str
    transition: bool
    program: Any


class CelEvaluator:
    """Compiles rules once and evaluates them on plain data."""

    def __init__(self) -> None:
        self._rules: dict[str, CelRule] = {}
        if cel is None:
            return
        dynamic = cel.Type.DYN
        self._plain = cel.NewEnv(variables={"self": dynamic})
        self._with_old = cel.NewEnv(variables={"self": dynamic, "oldSelf": dynamic})

    def rules_of(self, schema: Mapping[str, Any]) -> Iterator[CelRule]:
        """Rules that stand at one place of a schema. Raises ValueError for one that is no CEL."""
        if cel is None:
            return
        for entry in schema.get(RULES, ()):
            text = entry["rule"]
            if text not in self._rules:
                self._rules[text] = self._compile(
                    text, entry.get("message", f"failed rule: {text}")
                )
            yield self._rules[text]

    def holds(self, rule: CelRule, value: Any, old: Any = None) -> bool:
        """Tell whether a rule holds; an evaluation error counts as no."""
        data = {"self": value, "oldSelf": old} if rule.transition else {"self": value}
        try:
            result = rule.program.eval(data=data)
        except (RuntimeError, TypeError, ValueError, OverflowError):
            return False
        # An error is a truthy value of its own type: only a boolean true is a yes.
        return bool(result.type() == cel.Type.BOOL and result.value() is True)

    def _compile(self, text: str, message: str) -> CelRule:
        try:
            return CelRule(text, message, transition=False, program=self._plain.compile(text))
        except RuntimeError:
            pass
        try:
            return CelRule(text, message, transition=True, program=self._with_old.compile(text))
        except RuntimeError as exc:
            raise ValueError(f"{text!r} is no CEL expression: {exc}") from exc
