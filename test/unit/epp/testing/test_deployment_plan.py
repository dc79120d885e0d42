"""What the harness's Deployment controller does next, case by case."""

import pytest

from epp.testing.deployment_plan import HASH_LABEL, new_pod, plan, status, template_hash


def deployment(replicas=3, *, surge=1, unavailable=0, strategy="RollingUpdate", image="new"):
    rolling = {"maxSurge": surge, "maxUnavailable": unavailable}
    return {
        "metadata": {"name": "web", "namespace": "demo", "uid": "d-1", "generation": 4},
        "spec": {
            "replicas": replicas,
            "strategy": {
                "type": strategy,
                **({"rollingUpdate": rolling} if strategy == "RollingUpdate" else {}),
            },
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "c", "image": image}]},
            },
        },
    }


NEW = template_hash(deployment())


def pods(text):
    """``n`` new, ``o`` old, upper case when ready, ``x`` an old one that is going."""
    made = []
    for number, letter in enumerate(text):
        digest = NEW if letter.lower() == "n" else "old"
        metadata = {
            "name": f"{letter}{number}",
            "uid": f"{letter}{number}",
            "labels": {HASH_LABEL: digest},
            "creationTimestamp": f"2026-01-01T00:00:{number:02}Z",
        }
        if letter == "x":
            metadata["deletionTimestamp"] = "2026-01-01T01:00:00Z"
        ready = {"type": "Ready", "status": str(letter.isupper())}
        made.append({"metadata": metadata, "status": {"conditions": [ready]}})
    return made


def decided(there, **options):
    step = plan(deployment(**options), pods(there))
    return step.create, [pod["metadata"]["name"] for pod in step.delete]


@pytest.mark.parametrize(
    ("there", "options", "create", "delete"),
    [
        pytest.param("", {}, 3, [], id="nothing-there"),
        pytest.param("Nn", {}, 1, [], id="one-missing"),
        pytest.param("NNN", {}, 0, [], id="complete"),
        pytest.param("NnNN", {}, 0, ["n1"], id="too-many-the-idle-one-goes"),
        pytest.param("NNNNN", {}, 0, ["N4", "N3"], id="too-many-the-youngest-go"),
        pytest.param("NN", {"replicas": 0}, 0, ["N1", "N0"], id="scaled-to-none"),
        pytest.param("OOO", {}, 1, [], id="update-begins-above-the-number"),
        pytest.param("OOOn", {}, 0, [], id="update-waits-for-the-new-one"),
        pytest.param("OOON", {}, 0, ["O2"], id="a-ready-new-one-lets-an-old-one-go"),
        pytest.param("OOxN", {}, 1, [], id="going-ones-do-not-count"),
        pytest.param("OoON", {}, 0, ["o1"], id="idle-old-ones-go-first"),
        pytest.param("NNNO", {}, 0, ["O3"], id="update-ends"),
        pytest.param("OOO", {"surge": 0, "unavailable": 1}, 0, ["O2"], id="below-the-number"),
        pytest.param("OO", {"surge": 0, "unavailable": 1}, 1, [], id="below-then-new"),
        pytest.param("OOO", {"surge": 0, "unavailable": 0}, 0, ["O2"], id="neither-is-one-below"),
        pytest.param("Oo", {"replicas": 2, "surge": "100%"}, 2, [], id="all-at-once"),
        pytest.param(
            "Oonn",
            {"replicas": 2, "surge": "100%", "unavailable": "100%"},
            0,
            ["o1", "O0"],
            id="leader-election-waits-for-nobody",
        ),
        pytest.param("OO", {"strategy": "Recreate"}, 0, ["O0", "O1"], id="recreate-old-go"),
        pytest.param("xx", {"strategy": "Recreate"}, 0, [], id="recreate-waits-for-their-end"),
        pytest.param("", {"strategy": "Recreate"}, 3, [], id="recreate-new"),
    ],
)
def test_the_next_step(there, options, create, delete):
    assert decided(there, **options) == (create, delete)


@pytest.mark.parametrize(
    ("there", "numbers", "available", "progressing"),
    [
        pytest.param("NNN", (3, 3, 3), "True", "NewReplicaSetAvailable", id="complete"),
        pytest.param("NNn", (3, 3, 2), "False", "ReplicaSetUpdated", id="one-idle"),
        pytest.param("OOON", (4, 1, 4), "True", "ReplicaSetUpdated", id="updating"),
        pytest.param("xNNN", (3, 3, 3), "True", "NewReplicaSetAvailable", id="going-not-counted"),
    ],
)
def test_the_status_says_how_far_it_is(there, numbers, available, progressing):
    told = status(deployment(), pods(there))

    conditions = {c["type"]: c for c in told["conditions"]}
    assert (told["replicas"], told["updatedReplicas"], told["availableReplicas"]) == numbers
    assert told["observedGeneration"] == 4
    assert conditions["Available"]["status"] == available
    assert conditions["Progressing"]["reason"] == progressing


def test_a_pod_has_labels_owner_and_node():
    pod = new_pod(deployment(), "abcde", node="local")

    assert pod["metadata"]["name"] == f"web-{NEW}-abcde"
    assert pod["metadata"]["labels"] == {"app": "web", HASH_LABEL: NEW}
    assert pod["metadata"]["ownerReferences"][0]["uid"] == "d-1"
    assert pod["spec"]["nodeName"] == "local"


def test_the_hash_changes_with_the_template_alone():
    assert template_hash(deployment(1)) == NEW
    assert template_hash(deployment(image="other")) != NEW
