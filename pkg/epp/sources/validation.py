"""A document to a typed object, or to the list of everything that is wrong with it.

Schemas and rules are the CRDs' (``config/crd/bases``); nothing is written twice. Order as in the
API server: bounds, kind, nulls and defaults, schema, then CEL rules.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import yaml
from jsonschema import Draft202012Validator

from epp.kube.resource import PODS
from epp.sources.cel_rules import CelEvaluator
from epp.sources.documents import within_bounds
from epp.sources.kinds import KINDS, TYPES, ApiObject, TypeId
from epp.sources.problems import ManifestProblem, shown
from epp.sources.schema import (
    METADATA_SCHEMA,
    POD_SCHEMA,
    Path,
    SchemaError,
    json_schema,
    normalised,
    path_text,
    schema_errors,
    validator,
)
from epp_api.crd_files import crd_files
from epp_api.meta import NamespacedName
from epp_api.v1alpha2 import shared_types

OTHER_KINDS = frozenset({"InferencePoolImport"})
"""Kinds of our groups that are not read."""

SHARED_GROUPS = frozenset({shared_types.GROUP})
"""Groups in which others have kinds too: of these only the versions that we read are ours."""

_OWN_GROUPS = frozenset(kind.resource.group for kind in KINDS) - SHARED_GROUPS - {PODS.group}
_OWN_VERSIONS = frozenset(
    kind.resource.api_version for kind in KINDS if kind.resource.group in SHARED_GROUPS
)

_MISSING = re.compile(r"Object missing required field `(?P<field>\w+)`( - at `(?P<parent>[^`]*)`)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A valid object.

    Attributes:
        type_id: ``(apiVersion, kind)``.
        key: Namespace and name.
        obj: Typed.
        document: As validated: nulls pruned, defaults filled in.
    """

    type_id: TypeId
    key: NamespacedName
    obj: ApiObject
    document: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _KindSchema:
    structural: Mapping[str, Any]
    checker: Draft202012Validator


class ManifestValidator:
    """Validates documents of the kinds that we read.

    Args:
        default_namespace: Of objects that name none.
    """

    def __init__(self, default_namespace: str = "default") -> None:
        self._default_namespace = default_namespace
        self._cel = CelEvaluator()
        self._schemas = {("v1", "Pod"): _KindSchema(POD_SCHEMA, validator(POD_SCHEMA))}
        for path in crd_files().values():
            self._add_crd(yaml.safe_load(path.read_text()))

    def identity(self, document: Any) -> tuple[TypeId, NamespacedName] | None:
        """Kind and key of a document as far as it goes, also of a broken one; None without."""
        if not isinstance(document, dict):
            return None
        metadata = document.get("metadata")
        if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str):
            return None
        namespace = metadata.get("namespace") or self._default_namespace
        type_id = (str(document.get("apiVersion")), str(document.get("kind")))
        return type_id, NamespacedName(str(namespace), metadata["name"])

    def is_ours(self, document: Any) -> bool:
        """Tell whether a document is of a kind that we read, or so broken that nobody knows."""
        if not isinstance(document, dict):
            return True
        api_version, kind = document.get("apiVersion"), document.get("kind")
        if not isinstance(api_version, str) or not isinstance(kind, str):
            return True
        if kind in {known for _, known in TYPES}:
            return True
        ours = api_version.partition("/")[0] in _OWN_GROUPS or api_version in _OWN_VERSIONS
        return ours and kind not in OTHER_KINDS  # where kinds are ours, an unknown one is a slip

    def validate(self, document: Any) -> Manifest | list[ManifestProblem]:
        """Return the object, or everything that is wrong with the document."""
        if not within_bounds(document):
            return [ManifestProblem(message="nested too deeply or too large")]
        problem = self._wrong_kind(document)
        if problem is not None:
            return [problem]
        type_id = (document["apiVersion"], document["kind"])
        schema = self._schemas[type_id]
        prepared = self._prepared(document, schema.structural)
        errors = schema_errors(schema.checker, prepared)
        if not errors:
            errors = list(self._rule_errors(schema.structural, prepared, ()))
        if errors:
            return [self._problem(document, error) for error in errors]
        return self._typed(type_id, prepared)

    def refused_changes(self, new: Manifest, old: Manifest) -> Sequence[str]:
        """Paths that a transition rule refuses to change: the object must be replaced."""
        if new.type_id != old.type_id:
            return ["kind"]
        schema = self._schemas[new.type_id].structural
        found = self._transitions(schema, new.document, old.document, ())
        return [path_text(error.path) for error in found]

    def _add_crd(self, crd: Mapping[str, Any]) -> None:
        group, kind = crd["spec"]["group"], crd["spec"]["names"]["kind"]
        for version in crd["spec"]["versions"]:
            structural = dict(version["schema"]["openAPIV3Schema"])
            # The status subresource: what a manifest says there is dropped, here as in the server.
            properties = {k: p for k, p in structural["properties"].items() if k != "status"}
            structural["properties"] = {**properties, "metadata": METADATA_SCHEMA}
            structural["required"] = [*structural.get("required", ()), "metadata"]
            schema = json_schema(structural)
            schema["properties"]["metadata"] = dict(METADATA_SCHEMA)
            type_id = (f"{group}/{version['name']}", kind)
            self._schemas[type_id] = _KindSchema(structural, validator(schema))

    def _wrong_kind(self, document: Any) -> ManifestProblem | None:
        if not isinstance(document, dict):
            return ManifestProblem(message="must be an object", value=shown(document))
        for field in ("apiVersion", "kind"):
            if not isinstance(document.get(field), str):
                value = "" if field not in document else shown(document[field])
                return ManifestProblem(message="must be a string", field=field, value=value)
        type_id = (document["apiVersion"], document["kind"])
        if type_id in self._schemas:
            return None
        known = sorted(api for api, kind in self._schemas if kind == type_id[1])
        if not known:
            kinds = ", ".join(sorted({kind for _, kind in self._schemas}))
            return ManifestProblem(
                message=f"unknown kind, known: {kinds}", field="kind", value=shown(type_id[1])
            )
        message = f"unknown version of {type_id[1]}, known: {', '.join(known)}"
        return ManifestProblem(message=message, field="apiVersion", value=shown(type_id[0]))

    def _prepared(self, document: Mapping[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
        kept = dict(document)
        if kept["kind"] != "Pod":
            kept.pop("status", None)
        prepared: dict[str, Any] = normalised(kept, schema)
        metadata = prepared.get("metadata")
        if isinstance(metadata, dict):
            namespace = metadata.get("namespace")
            if namespace is None or namespace == "":
                metadata["namespace"] = self._default_namespace
        return prepared

    def _rule_errors(
        self, schema: Mapping[str, Any], value: Any, path: Path
    ) -> Iterator[SchemaError]:
        for rule in self._cel.rules_of(schema):
            if not rule.transition and not self._cel.holds(rule, value):
                yield SchemaError(path, rule.message, shown(value))
        for key, child, child_schema in _children(schema, value):
            yield from self._rule_errors(child_schema, child, (*path, key))

    def _transitions(
        self, schema: Mapping[str, Any], new: Any, old: Any, path: Path
    ) -> Iterator[SchemaError]:
        for rule in self._cel.rules_of(schema):
            if rule.transition and not self._cel.holds(rule, new, old):
                yield SchemaError(path, rule.message)
        if not isinstance(new, dict) or not isinstance(old, dict):
            return
        for key, child, child_schema in _children(schema, new):
            if key in old:
                yield from self._transitions(child_schema, child, old[key], (*path, key))

    def _problem(self, document: Mapping[str, Any], error: SchemaError) -> ManifestProblem:
        identity = self.identity(document)
        named = str(document["kind"]) if identity is None else f"{document['kind']} {identity[1]}"
        return ManifestProblem(
            message=error.message, object=named, field=path_text(error.path), value=error.value
        )

    def _typed(self, type_id: TypeId, document: dict[str, Any]) -> Manifest | list[ManifestProblem]:
        try:
            obj = msgspec.convert(document, TYPES[type_id])
        except (msgspec.ValidationError, OverflowError) as exc:
            return [_untyped(document, str(exc))]
        return Manifest(type_id=type_id, key=obj.metadata.key, obj=obj, document=document)


def _untyped(document: Mapping[str, Any], text: str) -> ManifestProblem:
    """What the typed object demands beyond the schema: v1alpha2 admits a model without a spec."""
    metadata = document["metadata"]
    named = f"{document['kind']} {metadata['namespace']}/{metadata['name']}"
    missing = _MISSING.fullmatch(text)
    if missing is None:
        return ManifestProblem(message=text, object=named)
    parent = (missing["parent"] or "").removeprefix("$").removeprefix(".")
    field = f"{parent}.{missing['field']}" if parent else missing["field"]
    return ManifestProblem(message="is required", object=named, field=field)


def _children(
    schema: Mapping[str, Any], value: Any
) -> Iterator[tuple[str | int, Any, Mapping[str, Any]]]:
    if isinstance(value, dict):
        properties = schema.get("properties", {})
        other = schema.get("additionalProperties")
        for key, child in value.items():
            child_schema = properties.get(key, other)
            if isinstance(child_schema, Mapping):
                yield key, child, child_schema
    elif isinstance(value, list) and isinstance(schema.get("items"), Mapping):
        for position, child in enumerate(value):
            yield position, child, schema["items"]
