"""The check of rendered manifests: its command line, and input of shapes that ours does not have.

Its rules on valid shapes are in test_lint_rules.py; what it says of our own manifests, changed one
by one: test/integration/deploy.
"""

import copy
import io
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
CLAIM = """\
apiVersion: v1
kind: ServiceAccount
metadata: {name: epp, namespace: default}
"""
WORLD = (ROOT / "test" / "testdata" / "manifests" / "world.yaml").read_text("utf-8")


@pytest.fixture
def run(lint, monkeypatch, capsys):
    """Status and lines of the command."""

    def ran(text, *arguments):
        monkeypatch.setattr("sys.stdin", io.StringIO(text))
        status = lint.main(arguments)
        return status, capsys.readouterr().err.splitlines()

    return ran


def document(kind, spec="{}", more=""):
    """YAML of one object."""
    metadata = "{name: x, namespace: default}"
    return f"{{apiVersion: v1, kind: {kind}, metadata: {metadata}, spec: {spec}{more}}}\n"


def test_a_problem_is_a_line_and_a_status(run):
    assert run(CLAIM.replace("default", "demo")) == (
        1,
        ["ServiceAccount demo/epp: there is no Namespace demo"],
    )


def test_what_comes_from_elsewhere_can_be_named(run):
    text = CLAIM.replace("default", "demo")

    assert run(text, "--external", "Namespace/demo") == (0, [])


def test_an_object_without_a_namespace_is_a_problem(check):
    assert check(CLAIM.replace(", namespace: default", "")) == [
        "ServiceAccount epp: has no namespace"
    ]


def test_a_world_that_holds_together_has_no_problems(check):
    assert check(WORLD) == []


def test_the_items_of_a_list_are_objects_like_others(check):
    items = list(yaml.safe_load_all(WORLD))
    items[0]["metadata"]["namespace"] = "nowhere"
    text = yaml.safe_dump({"apiVersion": "v1", "kind": "List", "items": items})

    assert "ServiceAccount nowhere/epp: there is no Namespace nowhere" in check(text)


@pytest.mark.parametrize(
    ("text", "want"),
    [
        pytest.param("- a\n", "document 1: is no Kubernetes object", id="list"),
        pytest.param("words\n", "document 1: is no Kubernetes object", id="words"),
        pytest.param("a: b\n", "document 1: kind is missing", id="no-kind"),
        pytest.param("kind: Pod\n", "document 1: apiVersion is missing", id="no-version"),
        pytest.param(
            "{kind: Pod, apiVersion: v1}\n", "document 1: metadata.name is missing", id="no-name"
        ),
        pytest.param(
            "{kind: Pod, apiVersion: v1, metadata: {name: 1}}\n",
            "document 1: metadata.name is not a string",
            id="name-that-is-a-number",
        ),
        pytest.param(
            "{kind: List, items: 1}\n", "document 1: items is not a list", id="list-of-nothing"
        ),
        pytest.param(
            "{kind: List, items: [{}]}\n",
            "document 1, items[0]: kind is missing",
            id="item-without-kind",
        ),
        pytest.param(
            document("Service", "{selector: {app: 1}}"),
            "Service default/x: spec.selector.app is not a string",
            id="label-that-is-a-number",
        ),
        pytest.param(
            document("Service", "{selector: {app: x}, ports: [{name: p}]}"),
            "Service default/x: spec.ports[0].port is missing",
            id="port-without-number",
        ),
        pytest.param(
            document("Service", "{selector: {app: x}, ports: {port: 1}}"),
            "Service default/x: spec.ports is not a list",
            id="ports-that-are-no-list",
        ),
        pytest.param(
            document("InferenceModel"),
            "InferenceModel default/x: spec.poolRef.name is missing",
            id="model-of-no-pool",
        ),
        pytest.param(
            document("DestinationRule"),
            "DestinationRule default/x: spec.host is missing",
            id="rule-for-no-host",
        ),
        pytest.param(
            document("Secret", more=", type: kubernetes.io/service-account-token"),
            "metadata.annotations.kubernetes.io/service-account.name is missing",
            id="token-of-nobody",
        ),
    ],
)
def test_what_it_would_not_take_is_named(check, text, want):
    assert want in "\n".join(check(text))


def test_other_objects_are_checked_beside_a_broken_one(check):
    text = document("Service", "{selector: 1}") + "---\n" + CLAIM.replace("default", "demo")

    assert check(text) == [
        "Service default/x: spec.selector is not a mapping",
        "ServiceAccount demo/epp: there is no Namespace demo",
    ]


def test_no_yaml_is_an_error_and_not_a_traceback(run):
    status, lines = run("a: [")

    assert status == 2
    assert lines[0].startswith("standard input is no YAML")


def places(node, path=()):
    """Every place in a document, outermost first."""
    yield path
    if isinstance(node, dict):
        children = list(node.items())
    else:
        children = list(enumerate(node)) if isinstance(node, list) else []
    for key, child in children:
        yield from places(child, (*path, key))


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(value, id=type(value).__name__)
        for value in (None, True, 7, "text", [], {}, [None], {"a": [{"b": 1}]}, {1: 2})
    ],
)
def test_no_value_anywhere_makes_it_fall_over(lint, value):
    """One value after another in place of each value of a world that has every rule at work."""
    world = list(yaml.safe_load_all(WORLD))
    spots = [path for path in places(world) if path]
    assert len(spots) > 250

    for *path, last in spots:
        broken = copy.deepcopy(world)
        node = broken
        for key in path:
            node = node[key]
        node[last] = copy.deepcopy(value)

        found = lint.problems(broken)

        assert all(isinstance(line, str) and ": " in line for line in found), (path, last)
