import subprocess
import sys
from typing import Any

import pytest

from epp.sources.cel_rules import RULES, CelEvaluator, CelRule


def compiled(text: str, message: str | None = None) -> tuple[CelEvaluator, CelRule]:
    evaluator = CelEvaluator()
    entry = {"rule": text} if message is None else {"rule": text, "message": message}
    [rule] = evaluator.rules_of({RULES: [entry]})
    return evaluator, rule


PORTS_DIFFER = "self.all(p1, self.exists_one(p2, p1.number==p2.number))"
ALL_OR_NONE = "self.all(model, has(model.weight)) || self.all(model, !has(model.weight))"
SERVICE_HAS_PORT = "self.kind != 'Service' || has(self.port)"


@pytest.mark.parametrize(
    ("text", "value", "want"),
    [
        pytest.param(PORTS_DIFFER, [{"number": 1}, {"number": 2}], True, id="ports-differ"),
        pytest.param(PORTS_DIFFER, [{"number": 1}, {"number": 1}], False, id="ports-equal"),
        pytest.param(ALL_OR_NONE, [{"weight": 1}, {"weight": 2}], True, id="all-weighted"),
        pytest.param(ALL_OR_NONE, [{}, {}], True, id="none-weighted"),
        pytest.param(ALL_OR_NONE, [{"weight": 1}, {}], False, id="one-weighted"),
        pytest.param(ALL_OR_NONE, [], True, id="no-targets"),
        pytest.param(SERVICE_HAS_PORT, {"kind": "Service"}, False, id="service-no-port"),
        pytest.param(SERVICE_HAS_PORT, {"kind": "Service", "port": {}}, True, id="service-port"),
        pytest.param(SERVICE_HAS_PORT, {"kind": "Other"}, True, id="other-no-port"),
        pytest.param("self.absent == 1", {}, False, id="error-is-not-true"),
        pytest.param("1 / self == 1", 0, False, id="division-by-zero-is-not-true"),
        pytest.param("self.size() > 0", 3, False, id="no-such-overload-is-not-true"),
        pytest.param("self + 1", 1, False, id="a-number-is-not-true"),
        pytest.param("'true'", 1, False, id="a-text-is-not-true"),
    ],
)
def test_only_a_boolean_true_holds(text: str, value: Any, want: bool) -> None:
    evaluator, rule = compiled(text)

    assert evaluator.holds(rule, value) is want


@pytest.mark.parametrize(("old", "new", "want"), [("a", "a", True), ("a", "b", False)])
def test_a_transition_rule_compares_with_the_old_value(old: str, new: str, want: bool) -> None:
    evaluator, rule = compiled("self == oldSelf")

    assert rule.transition
    assert evaluator.holds(rule, new, old) is want


def test_a_rule_without_old_self_is_no_transition_rule() -> None:
    _, rule = compiled("self == 1")

    assert not rule.transition


def test_a_rule_without_message_tells_its_text() -> None:
    assert compiled("self == 1")[1].message == "failed rule: self == 1"
    assert compiled("self == 1", "must be one")[1].message == "must be one"


def test_a_rule_that_is_no_cel_is_named() -> None:
    with pytest.raises(ValueError, match=r"'self ===' is no CEL expression"):
        compiled("self ===")


def test_a_schema_without_rules_has_none() -> None:
    assert list(CelEvaluator().rules_of({"type": "string"})) == []


WITHOUT_LIBRARY = """
import sys
sys.modules["cel_expr_python"] = None
from epp.sources.validation import Manifest, ManifestValidator

checker = ManifestValidator()
ManifestValidator()
pool = {
    "apiVersion": "inference.networking.k8s.io/v1",
    "kind": "InferencePool",
    "metadata": {"name": "p"},
    "spec": {"selector": {"matchLabels": {"a": "b"}}, "targetPorts": [{"number": 1}] * 2},
}
print(isinstance(checker.validate(pool), Manifest))
pool["spec"]["targetPorts"][0]["number"] = 0
print(isinstance(checker.validate(pool), Manifest))
"""


def test_without_the_library_one_line_says_so_and_the_schema_is_checked() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_LIBRARY], capture_output=True, text=True, check=True
    )

    said = done.stdout + done.stderr
    assert said.count("no CEL library here") == 1
    assert [line for line in done.stdout.splitlines() if line in {"True", "False"}] == [
        "True",
        "False",
    ]
