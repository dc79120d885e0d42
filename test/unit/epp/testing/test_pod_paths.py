"""A container's manifest, made true for a process."""

from pathlib import Path

import pytest

from epp.testing.pod_paths import (
    PodSpecError,
    PreStop,
    Rewriter,
    environment,
    expand,
    pre_stop_of,
)

POD = {
    "metadata": {
        "name": "web-1-a",
        "namespace": "demo",
        "uid": "u-1",
        "labels": {"app": "web"},
        "annotations": {},
    },
    "spec": {"nodeName": "local", "serviceAccountName": "epp"},
}


@pytest.mark.parametrize(
    ("text", "want"),
    [
        pytest.param("--name=$(A)", "--name=1", id="known"),
        pytest.param("$(A)$(B)", "12", id="two"),
        pytest.param("$(NO)", "$(NO)", id="unknown-stays"),
        pytest.param("$$(A)", "$(A)", id="escaped"),
        pytest.param("$A ${A}", "$A ${A}", id="a-shell's-are-not-ours"),
    ],
)
def test_references_to_variables_are_filled_in(text, want):
    assert expand(text, {"A": "1", "B": "2"}) == want


def test_variables_come_from_manifest_pod_and_earlier_ones():
    container = {
        "env": [
            {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "APP", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
            {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {
                "name": "ACCOUNT",
                "valueFrom": {"fieldRef": {"fieldPath": "spec.serviceAccountName"}},
            },
            {"name": "WHO", "value": "$(POD_NAME) on $(HOST)"},
            {"name": "EMPTY"},
        ]
    }

    values = environment(POD, container, given={"HOST": "h"}, address="127.1.2.3")

    assert values == {
        "HOST": "h",
        "POD_NAME": "web-1-a",
        "APP": "web",
        "IP": "127.1.2.3",
        "ACCOUNT": "epp",
        "WHO": "web-1-a on h",
        "EMPTY": "",
    }


@pytest.mark.parametrize(
    ("container", "named"),
    [
        pytest.param(
            {"env": [{"name": "X", "valueFrom": {"secretKeyRef": {}}}]},
            "X.*secretKeyRef",
            id="secret",
        ),
        pytest.param(
            {"env": [{"name": "X", "valueFrom": {"fieldRef": {"fieldPath": "spec.no"}}}]},
            "spec.no",
            id="field",
        ),
        pytest.param({"envFrom": [{}]}, "envFrom", id="env-from"),
    ],
)
def test_what_cannot_be_resolved_is_named(container, named):
    with pytest.raises(PodSpecError, match=named):
        environment(POD, container, given={}, address="127.1.2.3")


@pytest.mark.parametrize(
    ("text", "want"),
    [
        pytest.param(
            "--eds-file=/run/epp/endpoints.yaml", "--eds-file=/p/e/endpoints.yaml", id="in"
        ),
        pytest.param("/run/epp", "/p/e", id="itself"),
        pytest.param("/run/epp-other/x", "/run/epp-other/x", id="another-of-the-same-start"),
        pytest.param("/var/run/epp/x", "/var/run/epp/x", id="within-another-path"),
        pytest.param("/run/epp/deep/x /run/epp/x", "/p/d/x /p/e/x", id="a-mount-within-a-mount"),
        pytest.param('{path: "/run/epp/x"}', '{path: "/p/e/x"}', id="quoted"),
        pytest.param("--host=0.0.0.0", "--host=127.1.2.3", id="every-address"),
        pytest.param("address: 127.0.0.1, port: 9", "address: 127.1.2.3, port: 9", id="loopback"),
        pytest.param("10.0.0.0/8 127.0.0.11", "10.0.0.0/8 127.0.0.11", id="other-addresses"),
    ],
)
def test_paths_and_addresses_of_a_pod_become_those_of_the_machine(text, want):
    mounts = {"/run/epp": Path("/p/e"), "/run/epp/deep": Path("/p/d")}

    assert Rewriter(mounts=mounts, address="127.1.2.3")(text) == want


@pytest.mark.parametrize(
    ("hook", "want"),
    [
        pytest.param({}, PreStop(), id="none"),
        pytest.param({"preStop": {"sleep": {"seconds": 5}}}, PreStop(seconds=5.0), id="sleep"),
        pytest.param(
            {"preStop": {"exec": {"command": ["a", "b"]}}},
            PreStop(command=("a", "b")),
            id="program",
        ),
    ],
)
def test_the_hook_before_the_end_is_read(hook, want):
    assert pre_stop_of({"name": "c", "lifecycle": hook}) == want


def test_another_hook_is_refused():
    with pytest.raises(PodSpecError, match="httpGet"):
        pre_stop_of({"name": "c", "lifecycle": {"preStop": {"httpGet": {}}}})
