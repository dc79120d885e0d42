"""Pools that are refused: an edit of a valid one, the field, the message."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from epp.sources.problems import ManifestProblem
from epp.sources.validation import Manifest, ManifestValidator

Edited = Callable[..., dict[str, Any]]
Edits = Mapping[str, Any]

LABEL = "must match ^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$"
GROUP = r"must match ^$|^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
KIND = "must match ^[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?$"
FAILURE_MODE = "must be one of FailOpen, FailClose"
PORT_REQUIRED = "port is required when the endpoint picker is a Service"


def problems_of(outcome: Manifest | list[ManifestProblem]) -> list[tuple[str, str]]:
    assert isinstance(outcome, list)
    return [(problem.field, problem.message) for problem in outcome]


def ports(*numbers: int) -> list[dict[str, int]]:
    return [{"number": number} for number in numbers]


def row(kind: str, edits: Edits, field: str, message: str, *, id: str) -> Any:  # noqa: A002
    return pytest.param(kind, edits, field, message, id=f"{kind.replace(' ', '-')}-{id}")


POOL = "spec.selector.matchLabels"
REF = "spec.endpointPickerRef"
EXT = "spec.extensionRef"
REFUSED = [
    row("pool", {"spec": ...}, "spec", "is required", id="no-spec"),
    row("pool", {"spec.selector": ...}, "spec.selector", "is required", id="no-selector"),
    row("pool", {"spec.selector": {}}, POOL, "is required", id="no-match-labels"),
    row("pool", {POOL: {}}, POOL, "must have at least 1 entries", id="no-labels"),
    row(
        "pool",
        {POOL: {f"k{n}": "v" for n in range(65)}},
        POOL,
        "must have at most 64 entries",
        id="65-labels",
    ),
    row("pool", {f"{POOL}.app": "-a"}, f"{POOL}.app", LABEL, id="label-starts-with-a-dash"),
    row("pool", {f"{POOL}.app": "a\n"}, f"{POOL}.app", LABEL, id="label-ends-with-a-newline"),
    row(
        "pool",
        {f"{POOL}.app": "a" * 64},
        f"{POOL}.app",
        "must have at most 63 characters",
        id="label-64",
    ),
    row("pool", {f"{POOL}.app": 1}, f"{POOL}.app", "must be of type string", id="label-number"),
    row("pool", {"spec.targetPorts": ...}, "spec.targetPorts", "is required", id="no-ports"),
    row(
        "pool",
        {"spec.targetPorts": []},
        "spec.targetPorts",
        "must have at least 1 items",
        id="0-ports",
    ),
    row(
        "pool",
        {"spec.targetPorts": ports(*range(1, 10))},
        "spec.targetPorts",
        "must have at most 8 items",
        id="9-ports",
    ),
    row(
        "pool",
        {"spec.targetPorts": ports(8200, 8200)},
        "spec.targetPorts",
        "every port number may be listed only once",
        id="A6-port-twice",
    ),
    row(
        "pool",
        {"spec.targetPorts.0.number": 0},
        "spec.targetPorts[0].number",
        "must be at least 1",
        id="port-0",
    ),
    row(
        "pool",
        {"spec.targetPorts.0.number": 65536},
        "spec.targetPorts[0].number",
        "must be at most 65535",
        id="port-65536",
    ),
    row(
        "pool",
        {"spec.targetPorts.0.number": "80"},
        "spec.targetPorts[0].number",
        "must be of type integer",
        id="port-text",
    ),
    row(
        "pool",
        {"spec.targetPorts.0.number": True},
        "spec.targetPorts[0].number",
        "must be of type integer",
        id="port-true",
    ),
    row(
        "pool",
        {"spec.appProtocol": "grpc"},
        "spec.appProtocol",
        "must be one of http, kubernetes.io/h2c",
        id="protocol",
    ),
    row("pool", {f"{REF}.port": ...}, REF, PORT_REQUIRED, id="A7-kind-and-port-omitted"),
    row("pool", {f"{REF}.port": None}, REF, PORT_REQUIRED, id="port-null-is-omitted"),
    row(
        "pool",
        {f"{REF}.port": ..., f"{REF}.kind": "Service"},
        REF,
        PORT_REQUIRED,
        id="service-without-port",
    ),
    row("pool", {f"{REF}.kind": "1a"}, f"{REF}.kind", KIND, id="kind-starts-with-a-digit"),
    row("pool", {f"{REF}.kind": "A\n"}, f"{REF}.kind", KIND, id="kind-ends-with-a-newline"),
    row(
        "pool",
        {f"{REF}.kind": "a" * 64},
        f"{REF}.kind",
        "must have at most 63 characters",
        id="kind-64",
    ),
    row("pool", {f"{REF}.group": "A"}, f"{REF}.group", GROUP, id="group-upper-case"),
    row("pool", {f"{REF}.group": "\n"}, f"{REF}.group", GROUP, id="group-newline"),
    row("pool", {f"{REF}.group": "a\n"}, f"{REF}.group", GROUP, id="group-ends-with-a-newline"),
    row(
        "pool",
        {f"{REF}.group": "a" * 254},
        f"{REF}.group",
        "must have at most 253 characters",
        id="group-254",
    ),
    row("pool", {f"{REF}.name": ...}, f"{REF}.name", "is required", id="no-ref-name"),
    row(
        "pool",
        {f"{REF}.name": ""},
        f"{REF}.name",
        "must have at least 1 characters",
        id="empty-ref-name",
    ),
    row(
        "pool",
        {f"{REF}.name": "a" * 254},
        f"{REF}.name",
        "must have at most 253 characters",
        id="ref-name-254",
    ),
    row(
        "pool",
        {f"{REF}.port.number": 0},
        f"{REF}.port.number",
        "must be at least 1",
        id="picker-port-0",
    ),
    row("pool", {f"{REF}.port": {}}, f"{REF}.port.number", "is required", id="picker-port-empty"),
    row(
        "pool",
        {f"{REF}.failureMode": "open"},
        f"{REF}.failureMode",
        FAILURE_MODE,
        id="failure-mode",
    ),
    row(
        "pool",
        {"spec.targetPort": 1},
        "spec.targetPort",
        "unknown field, did you mean targetPorts?",
        id="near",
    ),
    row("pool", {"spec.zzz": 1}, "spec.zzz", "unknown field", id="nothing-near"),
    row("pool", {"extra": 1}, "extra", "unknown field", id="unknown-at-the-root"),
    row("old pool", {"spec.selector": ...}, "spec.selector", "is required", id="no-selector"),
    row(
        "old pool",
        {"spec.selector.app": "a\n"},
        "spec.selector.app",
        LABEL,
        id="label-ends-with-a-newline",
    ),
    row(
        "old pool",
        {"spec.targetPortNumber": ...},
        "spec.targetPortNumber",
        "is required",
        id="no-port",
    ),
    row(
        "old pool",
        {"spec.targetPortNumber": 0},
        "spec.targetPortNumber",
        "must be at least 1",
        id="port-0",
    ),
    row(
        "old pool",
        {"spec.targetPortNumber": 65536},
        "spec.targetPortNumber",
        "must be at most 65535",
        id="port-65536",
    ),
    row("old pool", {EXT: ...}, EXT, "is required", id="no-extension"),
    row("old pool", {f"{EXT}.name": ...}, f"{EXT}.name", "is required", id="no-extension-name"),
    row("old pool", {f"{EXT}.kind": "A\n"}, f"{EXT}.kind", KIND, id="kind-ends-with-a-newline"),
    row("old pool", {f"{EXT}.group": "A"}, f"{EXT}.group", GROUP, id="group-upper-case"),
    row(
        "old pool",
        {f"{EXT}.portNumber": 65536},
        f"{EXT}.portNumber",
        "must be at most 65535",
        id="picker-port",
    ),
    row(
        "old pool",
        {f"{EXT}.failureMode": "open"},
        f"{EXT}.failureMode",
        FAILURE_MODE,
        id="failure-mode",
    ),
    row(
        "old pool",
        {f"{EXT}.targetPortNumber": 1},
        f"{EXT}.targetPortNumber",
        "unknown field, did you mean portNumber?",
        id="v1alpha1-name-of-the-port",
    ),
]


@pytest.mark.parametrize(("kind", "edits", "field", "message"), REFUSED)
def test_a_manifest_is_refused_at_the_field(
    checker: ManifestValidator, edited: Edited, kind: str, edits: Edits, field: str, message: str
) -> None:
    outcome = checker.validate(edited(kind, edits))

    assert problems_of(outcome) == [(field, message)]
