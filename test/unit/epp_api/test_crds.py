"""The CRDs are structural schemas with the identities and defaults of the API."""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import yaml

from epp_api.crd_files import crd_files

POOL = "inference.networking.k8s.io_inferencepools.yaml"
OLD_POOL = "inference.networking.x-k8s.io_inferencepools.yaml"
MODEL = "inference.networking.x-k8s.io_inferencemodels.yaml"
OBJECTIVE = "llm-d.ai_inferenceobjectives.yaml"
OLD_OBJECTIVE = "inference.networking.x-k8s.io_inferenceobjectives.yaml"
REWRITE = "llm-d.ai_inferencemodelrewrites.yaml"
OLD_REWRITE = "inference.networking.x-k8s.io_inferencemodelrewrites.yaml"
FILES = (POOL, OLD_POOL, MODEL, OBJECTIVE, OLD_OBJECTIVE, REWRITE, OLD_REWRITE)

KEYWORDS = frozenset(
    {
        "type", "description", "default", "format", "pattern", "enum", "required", "properties",
        "additionalProperties", "items", "minimum", "maximum", "minLength", "maxLength",
        "minItems", "maxItems", "minProperties", "maxProperties", "x-kubernetes-validations",
        "x-kubernetes-list-type", "x-kubernetes-list-map-keys",
    }
)  # fmt: skip
"""What a structural schema may use, as far as these do."""

POOL_REFERENCE = {
    "spec.poolRef.group": "inference.networking.k8s.io",
    "spec.poolRef.kind": "InferencePool",
}

Node = tuple[str, Mapping[str, Any]]


def crd(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(crd_files()[name].read_text())
    return loaded


def root(name: str) -> Mapping[str, Any]:
    [version] = crd(name)["spec"]["versions"]
    schema: Mapping[str, Any] = version["schema"]["openAPIV3Schema"]
    return schema


def nodes(schema: Mapping[str, Any], path: str = "") -> Iterator[Node]:
    yield path, schema
    for key, child in schema.get("properties", {}).items():
        yield from nodes(child, f"{path}.{key}".lstrip("."))
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), Mapping):
            yield from nodes(schema[key], f"{path}[]")


def test_these_are_all() -> None:
    assert set(crd_files()) == set(FILES)


@pytest.mark.parametrize("name", FILES)
def test_every_place_of_a_schema_is_typed_and_uses_known_keywords(name: str) -> None:
    for path, schema in nodes(root(name)):
        assert schema.get("type") in {"object", "array", "string", "integer"}, path
        assert set(schema) <= KEYWORDS, path
        assert schema["type"] != "array" or "items" in schema, path
        assert not ("properties" in schema and "additionalProperties" in schema), path


@pytest.mark.parametrize("name", FILES)
def test_every_required_field_is_declared(name: str) -> None:
    for path, schema in nodes(root(name)):
        assert set(schema.get("required", ())) <= set(schema.get("properties", {})), path


@pytest.mark.parametrize("name", FILES)
def test_keys_of_a_map_list_are_required_fields_of_its_items(name: str) -> None:
    for path, schema in nodes(root(name)):
        keys = schema.get("x-kubernetes-list-map-keys", ())
        assert set(keys) <= set(schema.get("items", {}).get("required", ())), path


@pytest.mark.parametrize(
    ("name", "group", "version", "kind", "plural", "short_names"),
    [
        pytest.param(
            POOL, "inference.networking.k8s.io", "v1", "InferencePool", "inferencepools",
            ["infpool"], id="pool",
        ),
        pytest.param(
            OLD_POOL, "inference.networking.x-k8s.io", "v1alpha2", "InferencePool",
            "inferencepools", ["xinfpool"], id="old-pool",
        ),
        pytest.param(
            MODEL, "inference.networking.x-k8s.io", "v1alpha2", "InferenceModel",
            "inferencemodels", [], id="model",
        ),
        pytest.param(
            OBJECTIVE, "llm-d.ai", "v1alpha2", "InferenceObjective", "inferenceobjectives", [],
            id="objective",
        ),
        pytest.param(
            OLD_OBJECTIVE, "inference.networking.x-k8s.io", "v1alpha2", "InferenceObjective",
            "inferenceobjectives", [], id="old-objective",
        ),
        pytest.param(
            REWRITE, "llm-d.ai", "v1alpha2", "InferenceModelRewrite", "inferencemodelrewrites", [],
            id="rewrite",
        ),
        pytest.param(
            OLD_REWRITE, "inference.networking.x-k8s.io", "v1alpha2", "InferenceModelRewrite",
            "inferencemodelrewrites", [], id="old-rewrite",
        ),
    ],
)  # fmt: skip
def test_identity(
    name: str, group: str, version: str, kind: str, plural: str, short_names: list[str]
) -> None:
    loaded = crd(name)
    spec, names = loaded["spec"], loaded["spec"]["names"]

    assert (loaded["apiVersion"], loaded["kind"]) == (
        "apiextensions.k8s.io/v1",
        "CustomResourceDefinition",
    )
    assert loaded["metadata"]["name"] == f"{plural}.{group}"
    assert (spec["group"], spec["scope"]) == (group, "Namespaced")
    assert (names["kind"], names["plural"], names["listKind"]) == (kind, plural, f"{kind}List")
    assert names["singular"] == kind.lower()
    assert names.get("shortNames", []) == short_names
    [only] = spec["versions"]
    assert (only["name"], only["served"], only["storage"]) == (version, True, True)
    assert only["subresources"] == {"status": {}}


def test_a_group_below_k8s_io_names_its_approval() -> None:
    assert crd(POOL)["metadata"]["annotations"]["api-approved.kubernetes.io"].startswith("https://")


@pytest.mark.parametrize(
    ("name", "want"),
    [
        pytest.param(POOL, [], id="pool"),
        pytest.param(OLD_POOL, [], id="old-pool"),
        pytest.param(
            MODEL,
            [
                ("Model Name", ".spec.modelName"),
                ("Inference Pool", ".spec.poolRef.name"),
                ("Criticality", ".spec.criticality"),
                ("Age", ".metadata.creationTimestamp"),
            ],
            id="model",
        ),
        *(
            pytest.param(
                name,
                [
                    ("Inference Pool", ".spec.poolRef.name"),
                    ("Priority", ".spec.priority"),
                    ("Age", ".metadata.creationTimestamp"),
                ],
                id=f"objective-{number}",
            )
            for number, name in enumerate((OBJECTIVE, OLD_OBJECTIVE))
        ),
        *(
            pytest.param(
                name,
                [
                    ("Inference Pool", ".spec.poolRef.name"),
                    ("Age", ".metadata.creationTimestamp"),
                ],
                id=f"rewrite-{number}",
            )
            for number, name in enumerate((REWRITE, OLD_REWRITE))
        ),
    ],
)
def test_printer_columns(name: str, want: list[tuple[str, str]]) -> None:
    [version] = crd(name)["spec"]["versions"]

    columns = version.get("additionalPrinterColumns", [])
    assert [(column["name"], column["jsonPath"]) for column in columns] == want


@pytest.mark.parametrize(
    ("name", "want"),
    [
        pytest.param(
            POOL,
            {
                "spec.appProtocol": "http",
                "spec.endpointPickerRef.group": "",
                "spec.endpointPickerRef.kind": "Service",
                "spec.endpointPickerRef.failureMode": "FailClose",
            },
            id="pool",
        ),
        pytest.param(
            OLD_POOL,
            {
                "spec.extensionRef.group": "",
                "spec.extensionRef.kind": "Service",
                "spec.extensionRef.failureMode": "FailClose",
            },
            id="old-pool",
        ),
        pytest.param(
            MODEL,
            {
                "spec.poolRef.group": "inference.networking.x-k8s.io",
                "spec.poolRef.kind": "InferencePool",
            },
            id="model",
        ),
        *(
            pytest.param(name, POOL_REFERENCE, id=f"objective-{number}")
            for number, name in enumerate((OBJECTIVE, OLD_OBJECTIVE))
        ),
        *(
            pytest.param(
                name,
                {**POOL_REFERENCE, "spec.rules[].matches[].model.type": "Exact"},
                id=f"rewrite-{number}",
            )
            for number, name in enumerate((REWRITE, OLD_REWRITE))
        ),
    ],
)
def test_defaults_of_the_spec(name: str, want: Mapping[str, Any]) -> None:
    found = {path: schema["default"] for path, schema in nodes(root(name)) if "default" in schema}

    assert {path: value for path, value in found.items() if path.startswith("spec")} == want


@pytest.mark.parametrize(
    ("name", "want"),
    [
        pytest.param(
            POOL,
            {
                "spec.targetPorts": "self.all(p1, self.exists_one(p2, p1.number==p2.number))",
                "spec.endpointPickerRef": "self.kind != 'Service' || has(self.port)",
            },
            id="pool",
        ),
        pytest.param(OLD_POOL, {}, id="old-pool"),
        pytest.param(
            MODEL,
            {
                "spec.modelName": "self == oldSelf",
                "spec.targetModels": "self.all(model, has(model.weight)) || "
                "self.all(model, !has(model.weight))",
            },
            id="model",
        ),
        *(
            pytest.param(name, {}, id=f"none-{number}")
            for number, name in enumerate((OBJECTIVE, OLD_OBJECTIVE, REWRITE, OLD_REWRITE))
        ),
    ],
)
def test_rules(name: str, want: Mapping[str, str]) -> None:
    rules = {
        path: schema["x-kubernetes-validations"]
        for path, schema in nodes(root(name))
        if "x-kubernetes-validations" in schema
    }

    assert {path: rule["rule"] for path, [rule] in rules.items()} == want
    assert all(rule["message"] for [rule] in rules.values())


@pytest.mark.parametrize(
    ("name", "path", "key", "status", "type_"),
    [
        pytest.param(MODEL, "status.conditions", None, "Unknown", "Ready", id="model"),
        pytest.param(OBJECTIVE, "status.conditions", None, "Unknown", "Ready", id="objective"),
        pytest.param(REWRITE, "status.conditions", None, "Unknown", "Accepted", id="rewrite"),
        pytest.param(OLD_POOL, "status", "parent", "Unknown", "Accepted", id="old-pool"),
    ],
)
def test_status_defaults_say_that_nobody_has_looked_yet(
    name: str, path: str, key: str | None, status: str, type_: str
) -> None:
    default = dict(nodes(root(name)))[path]["default"]

    conditions = default if key is None else default[key][0]["conditions"]
    [condition] = conditions
    assert (condition["type"], condition["status"], condition["reason"]) == (
        type_,
        status,
        "Pending",
    )
    assert condition["lastTransitionTime"] == "1970-01-01T00:00:00Z"


@pytest.mark.parametrize(
    ("name", "old_name", "ranges"),
    [
        pytest.param(OBJECTIVE, OLD_OBJECTIVE, {"spec.priority"}, id="objective"),
        pytest.param(REWRITE, OLD_REWRITE, set(), id="rewrite"),
    ],
)
def test_the_two_groups_of_a_kind_have_the_same_schema_but_for_integer_ranges(
    name: str, old_name: str, ranges: set[str]
) -> None:
    new, old = dict(nodes(root(name))), dict(nodes(root(old_name)))

    def own(schema: Mapping[str, Any]) -> dict[str, Any]:
        return {key: schema[key] for key in schema if key not in {"properties", "items"}}

    def ranged(schema: Mapping[str, Any]) -> dict[str, Any]:
        return {key: schema[key] for key in schema if key in {"type", "description"}}

    assert set(new) == set(old)
    differing = {path for path in new if own(new[path]) != own(old[path])}
    assert differing == ranges
    assert all(ranged(new[path]) == ranged(old[path]) for path in differing)
