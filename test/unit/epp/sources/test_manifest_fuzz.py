"""Whatever stands in a file: no exception, the last good state stays, objects are valid.

Explicit tags (``!!bool x``) are not drawn here: test_documents.py has them as a table.
"""

from typing import Any

import msgspec
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from epp.sources.kinds import TYPES
from epp.sources.manifest_set import Change, ManifestSet
from epp.sources.validation import Manifest, ManifestValidator
from epp_api.meta import NamespacedName

CHECKER = ManifestValidator()
NOW = "2026-01-01T00:00:00Z"

POD = (
    b"apiVersion: v1\nkind: Pod\nmetadata: {name: a, labels: {app: x}}\nstatus: {podIP: 10.0.0.1}\n"
)
POOL = b"""apiVersion: inference.networking.k8s.io/v1
kind: InferencePool
metadata: {name: p}
spec:
  selector: {matchLabels: {app: x}}
  targetPorts: [{number: 8000}, {number: 8001}]
  endpointPickerRef: {name: epp, port: {number: 9002}}
"""
OLD_POOL = b"""apiVersion: inference.networking.x-k8s.io/v1alpha2
kind: InferencePool
metadata: {name: p}
spec: {selector: {app: x}, targetPortNumber: 8000, extensionRef: {name: epp}}
"""
MODEL = b"""apiVersion: inference.networking.x-k8s.io/v1alpha2
kind: InferenceModel
metadata: {name: m}
spec:
  modelName: m
  criticality: Critical
  poolRef: {name: p}
  targetModels: [{name: a, weight: 1}, {name: b, weight: 2}]
"""
OBJECTIVE = b"""apiVersion: llm-d.ai/v1alpha2
kind: InferenceObjective
metadata: {name: o}
spec: {priority: -5, poolRef: {name: p}}
"""
REWRITE = b"""apiVersion: inference.networking.x-k8s.io/v1alpha2
kind: InferenceModelRewrite
metadata: {name: w}
spec:
  poolRef: {name: p}
  rules:
  - matches: [{model: {value: m}}, {}]
    targets: [{modelRewrite: a, weight: 1}, {modelRewrite: b}]
  - split: [{modelRewrite: c}]
"""
GOOD = b"---\n".join([POD, POOL, OLD_POOL, MODEL, OBJECTIVE, REWRITE])
OLD_POOL_TYPE = ("inference.networking.x-k8s.io/v1alpha2", "InferencePool")
POD_ID = (("v1", "Pod"), NamespacedName("default", "a"))

WORDS = [
    "a", ": ", "\n", "  ", "- ", "[", "]", "{", "}", ", ", "'", '"', "&x ", "*x", "---\n", "# ",
    "|\n", ">\n", "? ", "null", "true", "1", "-1", "1e3", "65536", "name", "kind: Pod\n", "<<: ",
    "apiVersion: v1\n", "metadata: ", "spec: ", "status: ", "kind: List\n", "items: ", "\t", "é",
    "\\ud800", "\x00", "\u2028", "%YAML 1.2\n",
]  # fmt: skip

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
values = st.recursive(
    scalars,
    lambda child: st.lists(child, max_size=4) | st.dictionaries(st.text(max_size=6), child),
    max_leaves=8,
)


@st.composite
def spliced(draw: st.DrawFn) -> bytes:
    """A valid file with a few bytes cut out and others put in."""
    data = bytearray(GOOD)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.integers(0, 12)))
        data[start:end] = draw(
            st.binary(max_size=4) | st.sampled_from([word.encode() for word in WORDS])
        )
    return bytes(data)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A valid document with another value, or none, at one of its places."""
    document = yaml.safe_load(draw(st.sampled_from([POD, POOL, OLD_POOL, MODEL])))
    place: Any = document
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = draw(st.sampled_from(keys))
        child = place[key]
        if not isinstance(child, dict | list) or not child or draw(st.booleans()):
            break
        place = child
    if draw(st.booleans()):
        del place[key]
    else:
        place[key] = draw(values)
    return msgspec.json.encode(document)


texts = st.lists(st.sampled_from(WORDS), max_size=40).map(lambda words: "".join(words).encode())
contents = st.binary(max_size=200) | texts | spliced() | mutated()


def assert_valid(change: Change) -> None:
    for (type_id, key), obj in change.objects.items():
        assert type(obj) is TYPES[type_id]
        assert obj.metadata.key == key
        assert obj.metadata.creation_timestamp is not None
        document = msgspec.to_builtins(obj)
        document |= {"apiVersion": type_id[0], "kind": type_id[1]}
        if type_id == OLD_POOL_TYPE and "spec" in document:
            document["spec"].setdefault("selector", {})  # an encoder omits it when it is empty
        assert isinstance(CHECKER.validate(document), Manifest)
    assert all(problem.message and problem.file for problem in change.problems)


@pytest.mark.fuzz
@settings(max_examples=3000, deadline=None)
@given(data=contents, name=st.sampled_from(["a.yaml", "a.json"]))
def test_any_contents_leave_valid_objects_and_no_exception(data: bytes, name: str) -> None:
    manifests = ManifestSet(CHECKER)
    manifests.put_file("good.yaml", POD)
    manifests.put_file(name, data)

    change = manifests.resolve(NOW)

    assert_valid(change)
    assert POD_ID in change.objects


@pytest.mark.fuzz
@settings(max_examples=2500, deadline=None)
@given(data=contents)
def test_a_file_that_is_no_manifest_keeps_its_last_good_state(data: bytes) -> None:
    manifests = ManifestSet(CHECKER)
    manifests.put_file("a.yaml", GOOD)
    before = manifests.resolve(NOW)
    manifests.put_file("a.yaml", data)

    change = manifests.resolve(NOW)

    assert_valid(change)
    whole_file = [problem for problem in change.problems if problem.document == 0]
    declared_twice = [problem for problem in whole_file if "also declared" in problem.message]
    if whole_file and not declared_twice:
        assert change.objects == before.objects
    manifests.put_file("a.yaml", GOOD)
    again = manifests.resolve(NOW)
    assert set(again.objects) == set(before.objects)
    assert again.problems == ()
