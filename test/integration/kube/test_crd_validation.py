"""What the real API server refuses, the file source refuses: the same manifests, the same fields.

The manifests are those of the unit tests of ``epp.sources.validation``.
"""

import importlib.util
import re
from pathlib import Path

import pytest

from epp.sources.validation import Manifest, ManifestValidator
from epp.testing.api_admin import identity
from epp.testing.api_connection import StatusError

TABLES = Path(__file__).parents[2] / "unit" / "epp" / "sources"
NAMESPACE = "default"
RULES = "x-kubernetes-validations"
UNKNOWN_FIELD = re.compile(r'unknown field "([^"]+)"')
POD_SPEC = {"containers": [{"name": "server", "image": "example/server"}]}
STRICTER = {
    "status-is-dropped": "strict decoding reads the status before it is dropped",
    "other-pod-fields": "the spec is checked; the file source does not read it",
    "other-metadata": "names of finalizers are checked; the file source does not read them",
}
"""Accepted by the file source alone, and why."""


def load(name):
    spec = importlib.util.spec_from_file_location(f"tables_{name}", TABLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MODULES = [load(path.stem) for path in sorted(TABLES.glob("test_validation*.py"))]
REFUSED = [row for module in MODULES for row in getattr(module, "REFUSED", ())]
OF_CRDS = [row for row in REFUSED if row.values[0] != "pod"]
OF_PODS = [row for row in REFUSED if row.values[0] == "pod"]
PODS_METADATA = [row for row in OF_PODS if row.values[2].startswith("metadata")]
PODS_STATUS = [row for row in OF_PODS if row.values[2].startswith("status")]


def accepted():
    for module in MODULES:
        for mark in getattr(getattr(module, "test_a_manifest_is_accepted", None), "pytestmark", ()):
            if mark.name == "parametrize" and mark.args[0] == ("kind", "edits"):
                yield from mark.args[1]


ACCEPTED = [row for row in accepted() if row.id not in STRICTER]
ACCEPTED_HERE_ALONE = [row for row in accepted() if row.id in STRICTER]


def edited(kind, edits):
    document = load("conftest")._edited(kind, edits)
    if kind == "pod" and "spec" not in document:
        document["spec"] = POD_SPEC
    return document


@pytest.fixture(scope="session")
def checker():
    return ManifestValidator(NAMESPACE)


async def refusal_of(awaitable):
    with pytest.raises(StatusError) as caught:
        await awaitable
    assert 400 <= caught.value.status < 500
    return caught.value


def fields_of(refusal):
    """Fields that the API server names, in a cause or as unknown."""
    named = {cause.field for cause in refusal.causes} - {"", "<nil>"}
    return named | set(UNKNOWN_FIELD.findall(refusal.message))


def rules_in(part):
    """Messages of the rules anywhere in a CRD that a new object can break."""
    if isinstance(part, dict):
        for rule in part.get(RULES, ()):
            if "oldSelf" not in rule["rule"]:
                yield rule["message"]
    for child in part.values() if isinstance(part, dict) else part:
        if isinstance(child, dict | list):
            yield from rules_in(child)


@pytest.fixture(scope="session")
def rule_messages(crds):
    return set(rules_in(crds))


@pytest.mark.parametrize(("kind", "edits", "field", "message"), OF_CRDS)
async def test_both_refuse_it_at_the_same_field(
    admin, checker, rule_messages, kind, edits, field, message
):
    document = edited(kind, edits)

    outcome = checker.validate(document)
    refusal = await refusal_of(admin.dry_run(document, namespace=NAMESPACE))

    assert [problem.field for problem in outcome] == [field]
    assert fields_of(refusal) == {field}
    if message in rule_messages:
        assert [cause.message.endswith(f": {message}") for cause in refusal.causes] == [True]


def test_every_rule_of_the_crds_is_broken_by_a_manifest(rule_messages):
    assert rule_messages == rule_messages & {row.values[3] for row in OF_CRDS}
    assert len(rule_messages) >= 3


@pytest.mark.parametrize(("kind", "edits"), ACCEPTED)
async def test_both_accept_it(admin, checker, kind, edits):
    document = edited(kind, edits)

    assert isinstance(checker.validate(document), Manifest)
    stored = await admin.dry_run(document, namespace=NAMESPACE)

    assert stored["metadata"]["name"] == document["metadata"]["name"]


@pytest.mark.parametrize(("kind", "edits"), ACCEPTED_HERE_ALONE)
async def test_the_api_server_is_stricter(admin, checker, kind, edits):
    document = edited(kind, edits)

    assert isinstance(checker.validate(document), Manifest)
    await refusal_of(admin.dry_run(document, namespace=NAMESPACE))


@pytest.mark.parametrize("kind", ["pool", "old pool", "model", "objective", "rewrite"])
async def test_both_fill_in_the_same_defaults(admin, checker, kind):
    document = edited(kind, {})

    stored = await admin.dry_run(document, namespace=NAMESPACE)

    assert checker.validate(document).document["spec"] == stored["spec"]


@pytest.mark.parametrize(("kind", "edits", "field", "message"), PODS_METADATA)
async def test_both_refuse_the_metadata_of_a_pod(admin, checker, kind, edits, field, message):
    document = edited(kind, edits)

    assert isinstance(checker.validate(document), list)
    await refusal_of(admin.dry_run(document, namespace=NAMESPACE))


@pytest.mark.parametrize(("kind", "edits", "field", "message"), PODS_STATUS)
async def test_both_refuse_the_status_of_a_pod(
    admin, checker, namespace, kind, edits, field, message
):
    document = edited(kind, edits)
    pod = {**identity("v1", "Pod", document["metadata"]["name"]), "spec": POD_SPEC}
    await admin.apply([pod], namespace=namespace)

    assert isinstance(checker.validate(document), list)
    await refusal_of(admin.patch_status(pod, document["status"], namespace=namespace))


def test_nothing_in_the_tables_is_left_out():
    elsewhere = {"apiVersion", "kind"}  # there is no path to send such an object to

    assert [row.id for row in OF_PODS if row.values[2] not in elsewhere] == [
        row.id for row in OF_PODS if row in PODS_METADATA or row in PODS_STATUS
    ]
    assert {row.id for row in ACCEPTED_HERE_ALONE} == set(STRICTER)
    assert len(OF_CRDS) > 60
